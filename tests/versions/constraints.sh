#!/usr/bin/env bash
# constraints.sh UV: prints constraints.txt, for pip, from uv.lock. One version of each package for every Python and system, so
# that no line needs a condition; no hash, since torch may come as another build of this version (for CPUs alone, or for ROCm).
set -euo pipefail
echo "# The versions that were tested together. Made from uv.lock by: make lock"
"${1:?the program uv}" export --quiet --frozen --all-extras --no-emit-project --no-hashes --no-annotate --no-header | sed 's/ ;.*//'
