#!/usr/bin/env bash
# Build the image that jobs run in: build.sh [OUTPUT [BASE [OPTIONS of singularity build]]]. OUTPUT (default:
# containers/p2p_dist.sif); BASE: a .sif, a folder or docker://NAME (default: LUMI's). On LUMI `module load LUMI systools` first.
set -euo pipefail
command -v singularity >/dev/null || {
    echo "error: the command singularity was not found, see containers/README.md" >&2
    exit 2
}
output=$(realpath -m "${1:-$(dirname "$0")/p2p_dist.sif}")
base=${2:-}
shift $(($# > 2 ? 2 : $#))
[ ! -e "$base" ] || base=$(realpath "$base")
cd "$(dirname "$0")/.."
# The build fails if a folder that a module binds into containers does not exist in the base.
unset SINGULARITY_BIND SINGULARITY_BINDPATH APPTAINER_BIND APPTAINER_BINDPATH
arguments=(--build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' p2p_dist/__init__.py)")
arguments+=(--build-arg "COMMIT=$(git describe --always --dirty --abbrev=40 --match= 2>/dev/null || echo unknown)")
from=${base:-$(sed -n 's/^ *BASE=//p' containers/p2p_dist.def)}
case $from in
docker://*) arguments+=(--build-arg BOOTSTRAP=docker --build-arg "BASE=${from#docker://}") ;;
*)
    [ -e "$from" ] || {
        echo "error: no base image $from: name another, or docker://lumiaifactory/lumi-multitorch:full" >&2
        exit 2
    }
    arguments+=(--build-arg "BASE=$from")
    [ -d "$from" ] || arguments+=(--build-arg "BASE_DIGEST=sha256:$(sha256sum "$from" | cut -d ' ' -f 1)")
    ;;
esac
if [[ $(singularity build --help) != *--build-arg* ]]; then
    echo "error: this $(singularity --version) is too old for --build-arg: use containers/build_overlay.sh" >&2
    exit 2
fi
new=$output.building.sif # do not change an image that jobs may be using
trap 'rm -f "$new"' EXIT
singularity build --force "${arguments[@]}" "$@" "$new" containers/p2p_dist.def
mv "$new" "$output"
echo "built $output"
