#!/usr/bin/env bash
# Build an overlay: one file with the packages that jobs need and the image does not have. The image stays unchanged.
#   build_overlay.sh IMAGE [OUTPUT [OPTIONS of singularity exec]]
# OUTPUT (default: containers/p2p_dist.sqsh). Jobs mount it at /user-software: launch/submit.py --container IMAGE --overlay OUTPUT
set -euo pipefail
command -v singularity >/dev/null || {
    echo "error: the command singularity was not found, see containers/README.md" >&2
    exit 2
}
image=$(realpath "${1:?name the image that the overlay is for}")
output=$(realpath -m "${2:-$(dirname "$0")/p2p_dist.sqsh}")
shift $(($# > 2 ? 2 : $#))
cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/tmp}/overlay-XXXXXX")
trap 'rm -rf "$work" "$output.building"' EXIT
mkdir -p "$work/share/p2p_dist"
cp -r pyproject.toml constraints.txt containers/check.py containers/requirements.py p2p_dist "$work/share/p2p_dist/"
unset PYTHONPATH PYTHONHOME
# Bind the folder at its final path, because a virtual environment contains its path. If the image's Python is in a virtual
# environment itself, --system-site-packages does not include its packages; image.pth adds them.
# shellcheck disable=SC2016  # it is the shell in the container that expands
PYTHONNOUSERSITE=1 singularity exec --bind "$work:/user-software" "$@" "$image" bash -euo pipefail -c '
    cd /user-software
    python -m venv --system-site-packages .
    python -c "import site; print(*site.getsitepackages(), sep=\"\n\")" >"$(echo lib/python*/site-packages)/image.pth"
    cd share/p2p_dist
    PATH=/user-software/bin:$PATH
    python requirements.py .
    python -m pip install --no-cache-dir --constraint image.txt --requirement needed.txt
    python requirements.py . --unchanged
    python check.py'
read -r -a compression <<<"${COMPRESSION:-}" # such as: -comp lz4
mksquashfs "$work" "$output.building" -noappend -no-progress -quiet -no-xattrs -all-root "${compression[@]}"
mv "$output.building" "$output"
echo "built $output"
