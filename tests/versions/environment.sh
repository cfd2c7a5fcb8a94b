#!/usr/bin/env bash
# environment.sh oldest|newest PYTHON: makes build/versions/END with the oldest or newest version of every dependency that
# pyproject.toml allows, and runs the suite in it. Where this has passed, both ends of every bound are tried.
set -euo pipefail
end=${1:?oldest or newest} python=${2:?a python}
case $end in
    oldest) resolution=lowest-direct ;;
    newest) resolution=highest ;;
    *) echo "error: $end: oldest or newest" >&2 && exit 2 ;;
esac
uv=$PWD/.venv/bin/uv
place=build/versions/$end
build=$(sed -n 's/^requires = \["\(setuptools.*\)"\]$/\1/p' pyproject.toml)
"$uv" venv --quiet --clear --python "$python" "$place"
"$uv" pip install --quiet --python "$place" --resolution "$resolution" --no-build-isolation "$build"
"$uv" pip install --quiet --python "$place" --resolution "$resolution" --no-build-isolation "$build" -e '.[test]'
"$uv" pip list --quiet --python "$place"
export PATH=$PWD/$place/bin:$PATH PYTHONDONTWRITEBYTECODE="" OMP_NUM_THREADS=1 P2P_VERSIONS=$end
slow=(browser readme faults slurm container)
# One process a core, a file of tests by one, with bytecode files, as make test does.
exec python -m pytest -n 2 --dist loadfile "${slow[@]/#/--ignore=tests/}" tests
