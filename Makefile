# make demo   the whole way on one machine, from an example song to a page
# make test   the tests: no root, nothing outside this checkout, about 4 minutes on two idle cores
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-versions lock guards test-browser test-readme test-faults fresh soak test-slurm test-container gpu gpu-wheels starter clean

install: $(VENV)/run
demo: $(VENV)/run
	$(BIN)/python launch/submit.py --nodes 2

define ENVIRONMENT
@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13: name one that is, as in make demo PYTHON=python3.12" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) makes no virtual environments: apt-get install python3-venv (on Debian and Ubuntu, as root), then this command again" >&2; exit 1; }
$(PYTHON) -m venv $(VENV)
endef

# An environment is made again when what it should contain has changed.
$(VENV)/run: pyproject.toml constraints.txt
	$(ENVIRONMENT)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[run]'
	touch $@

# It holds what jobs need, too.
$(VENV)/dev: pyproject.toml constraints.txt
	$(ENVIRONMENT)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(VENV)/run $@

# Three at a time, a file of tests by one: on two cores, since they wait for processes of their own much of the time. With bytecode
# files, whatever the shell says: the tests start Python more than a hundred times. Without a plugin of pytest that only came with a
# tracker.
test: $(VENV)/dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -p no:anyio --ignore=tests/browser --ignore=tests/readme --ignore=tests/faults --ignore=tests/slurm --ignore=tests/container

# The suite with the oldest, then with the newest version of everything that pyproject.toml allows: environments in build/versions,
# some GB to download, about 15 minutes. Name Pythons that are installed elsewhere: make test-versions NEWEST_PYTHON=PATH
OLDEST_PYTHON ?= python3.11
NEWEST_PYTHON ?= python3.13
test-versions: $(VENV)/dev
	tests/versions/environment.sh oldest $(OLDEST_PYTHON)
	tests/versions/environment.sh newest $(NEWEST_PYTHON)

# uv.lock, after pyproject.toml has changed, and constraints.txt, made from it. What need not change is left as it is.
# UPGRADE=--upgrade takes the newest of everything, UPGRADE='--upgrade-package NAME' of one. Not in .venv, which is made from them.
UPGRADE ?=
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet "$$(sed -n 's/^ *"\(uv==.*\)",$$/\1/p' pyproject.toml)"
	build/lock/bin/uv lock $(UPGRADE)
	tests/versions/constraints.sh build/lock/bin/uv >constraints.txt

guards: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/uv lock --check --quiet
	tests/versions/constraints.sh $(BIN)/uv | diff constraints.txt -
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/shellcheck .ci/run hpc/*.sh hpc/*/*.sh hpc/*.sbatch containers/*.sh tests/*/*.sh

# A page in Debian's chromium, and checked for errors of HTML and of accessibility. Installs what is missing (needs root).
test-browser: $(VENV)/dev
	tests/browser/install.sh
	$(BIN)/python -m pytest tests/browser

# On two real Slurms that the tests start on this machine: they wait much of the time, so two files run side by side. Installs
# Debian's packages where they are missing (needs root).
test-slurm: $(VENV)/dev
	tests/slurm/install.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/slurm

# Images built and jobs run with a real Singularity on that Slurm: about 4 minutes. Installs what is missing (needs root).
test-container: $(VENV)/dev
	tests/slurm/install.sh
	tests/container/install.sh
	$(BIN)/python -m pytest tests/container

# The commands of the README that need no cluster, GPU or songs, pasted into a shell in a fresh clone. The others are parsed by
# tests/test_readme_is_true.py.
test-readme: $(VENV)/dev
	$(BIN)/python -m pytest tests/readme

# Every fault that needs no scheduler, injected into trainings on this machine: about 5 minutes on two cores.
test-faults: $(VENV)/dev
	$(BIN)/python -m pytest tests/faults

# This file's first two commands and the wheel alone on new machines, which it makes in build/fresh. Needs root; some GB to download.
SUITES ?= bookworm trixie
fresh:
	$(PYTHON) tests/fresh/machines.py $(SUITES)

# One training through 2000 kills at random instants. tests/faults/FAULTS.md holds the figures of a long one.
soak: $(VENV)/dev
	$(BIN)/python -m tests.faults.soak --kills 2000

# Everything that only a GPU can answer, in so many minutes: tests/benchmarks/gpu.md. Asked again, it does what is missing.
# DEVICE=cpu tries it all in small. ONLY="data 'curves*'" chooses measurements by name.
MINUTES ?= 8
PART ?= all
DEVICE ?= cuda
REPORT ?= tests/benchmarks
gpu:
	$(PYTHON) tests/benchmarks/gpu.py --minutes $(MINUTES) --part $(PART) --device $(DEVICE) --report $(REPORT) $(if $(ONLY),--only $(ONLY))

# Wheels of what a machine without a network lacks, for its Python, into .wheels: less than 50 MB, which `make gpu` uses there.
WHEELS_PYTHON ?= 3.12
gpu-wheels:
	$(PYTHON) tests/benchmarks/gpu_parts/wheels.py --python $(WHEELS_PYTHON)

# The starter model that comes with the package, made and measured again: DATA holds evr/, practice/ and thesis_clips/, see
# p2p_dist/generate/starter/README.md. What is finished is kept in build/starter.
starter: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/starter.py --data $(DATA) --work build/starter

clean:
	rm -rf $(VENV) build *.egg-info
