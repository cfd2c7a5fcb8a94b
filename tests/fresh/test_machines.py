"""What make fresh passes into a new machine; what the Makefile says there. The machines themselves need root: make fresh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fresh import machines

CHECKOUT = Path(__file__).resolve().parents[2]


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


def test_a_python_without_venv_is_one_sentence(tmp_path: Path) -> None:
    """Debian's python3 without python3-venv."""
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\n[ "$1" != -c ] || exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    made = tmp_path / "venv"
    for target in ("install", "demo", "test"):
        command = ["make", "--silent", target, f"PYTHON={python}", f"VENV={made}"]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        said, *rest = done.stderr.splitlines()
        assert done.returncode and said.startswith("error: ") and "apt-get install python3-venv" in said
        assert all(line.startswith("make") for line in rest) and not made.exists()
