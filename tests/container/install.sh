#!/usr/bin/env bash
# Install what the container tests need: Debian's own packages, and Apptainer (which is Singularity), of which Debian 12 has
# none: it comes from Debian unstable of the same mirror, is unpacked into ~/.cache with the few libraries of its own that are
# newer than this machine's, and changes nothing else here. Prints the folder that has `singularity`.
set -euo pipefail
target=${XDG_CACHE_HOME:-$HOME/.cache}/p2p_dist/apptainer
packages=(patchelf squashfs-tools uidmap libcap2-bin python3-venv python3-minimal ca-certificates)
if [ "$(id -u)" != 0 ]; then
    echo "the container tests build images and start a cluster: run them as root (sudo make test-container)" >&2
    exit 1
elif ! dpkg-query -W -f '${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | awk '$1 != "installed" {exit 1} END {exit NR != 7}'; then
    echo "installing for the container tests: ${packages[*]}" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
if ! "$target/bin/singularity" --version >/dev/null 2>&1; then
    new=$(mktemp -d) && trap 'rm -rf "$new"' EXIT && chmod 755 "$new"
    mirror=$({ cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true; } |
        sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' | head -n 1)
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$new"/{lists/partial,cache/archives/partial,parts,debs,all}
    echo "deb [signed-by=$keys] ${mirror:?no mirror of Debian in /etc/apt} sid main" >"$new/sources"
    apt=(apt-get -qq -o "Dir::Etc::sourcelist=$new/sources" -o "Dir::Etc::sourceparts=$new/parts" -o "Dir::Cache=$new/cache"
        -o "Dir::Etc::preferences=$new/none" -o "Dir::Etc::preferencesparts=$new/parts" -o "Dir::State::lists=$new/lists"
        -o APT::Sandbox::User=root -o Acquire::Languages=none)
    "${apt[@]}" update
    (cd "$new/debs" && "${apt[@]}" download apptainer libc6 libseccomp2 libsqlite3-0)
    for package in "$new"/debs/*.deb; do dpkg-deb -x "$package" "$new/all"; done
    rm -rf "$target" && mkdir -p "$target"/{bin,lib}
    cp -a "$new"/all/{usr,etc,var} "$target/"
    for name in ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libseccomp.so.2 libsqlite3.so.0; do
        cp -L "$(find "$new/all" -name "$name" | head -n 1)" "$target/lib/"
    done
    bash "${0%/*}/relocate.sh" "$target"
fi
echo "$target/bin"
