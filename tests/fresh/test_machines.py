"""What make fresh passes into a new machine; what the Makefile says there. The machines themselves need root: make fresh."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.fresh import machines

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = shlex.quote(sys.executable)  # the path of a checkout may have a space


def test_settings_of_pip_go_along_with_the_folders_that_they_name(tmp_path: Path) -> None:
    wheels, index = tmp_path / "wheels", tmp_path / "index" / "simple"
    wheels.mkdir()
    index.mkdir(parents=True)
    listed = f"global.find-links='{wheels}'\nglobal.cert='/a.pem'\n:env:.extra-index-url='file://{index} /gone'\n"
    variables, paths = machines.pip_settings(listed)
    assert variables == {
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
        "PIP_EXTRA_INDEX_URL": f"file://{index} /gone",
    }
    assert paths == [wheels, index.parent]


def test_a_test_that_is_left_out_for_another_reason_than_a_new_machine_gives_is_named() -> None:
    reasons = [
        "musdb needs ffmpeg, which is not installed",
        "only root can give a file away",
        "FluidSynth or its sound font is not installed",
        "pgrep, which every Mac has",
        "no compiler",
        "webdataset opens http:// by curl",
        "no name spaces for users here",
    ]
    lines = [f"SKIPPED [2] tests/a.py:{number}: {reason}\n" for number, reason in enumerate(reasons)]
    assert machines.left_out([*lines, "26 skipped\n"]) == (14, [])
    other = [
        f"SKIPPED [1] tests/b.py:3: {reason}" for reason in ("of the extra dev", "as root alone", "Could not import ffmpegs")
    ]
    assert machines.left_out([*lines, *(f"{line}\n" for line in other)]) == (17, other)


def refused(python: str, made: Path) -> str:
    """What the Makefile says to a Python that it can't use; it makes nothing."""
    # What `make -i test` hands on would make this make succeed, too.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    for target in ("install", "demo", "test"):
        command = ["make", "--silent", target, f"PYTHON={python}", f"VENV={made}"]
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
        said, *rest = done.stderr.splitlines()
        assert done.returncode and said.startswith("error: ")
        assert all(line.startswith("make") for line in rest) and not made.exists()
    return said


def test_a_python_without_venv_is_one_sentence(tmp_path: Path) -> None:
    """Debian's python3 without python3-venv."""
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexec {PYTHON} "$@"\n')
    python.chmod(0o755)
    assert "apt-get install python3-venv" in refused(str(python), tmp_path / "venv")


@pytest.mark.parametrize("version", ["3, 10, 12", "3, 14, 0"])
def test_a_python_that_is_too_old_or_too_new_is_one_sentence(tmp_path: Path, version: str) -> None:
    """Ubuntu 22.04's python3 is 3.10: pip would refuse it late, and .venv, once made, would keep it."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.version_info = ({version})\n")
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(tmp_path))} exec {PYTHON} "$@"\n')
    python.chmod(0o755)
    assert "make demo PYTHON=python3.12" in refused(str(python), tmp_path / "venv")


def test_the_makefile_takes_the_pythons_that_the_package_allows() -> None:
    allowed = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest, beyond = re.search(
        r"not \(3, (\d+)\) <= sys.version_info < \(3, (\d+)\)", (CHECKOUT / "Makefile").read_text()
    ).groups()
    assert allowed == f">=3.{oldest},<3.{beyond}"
