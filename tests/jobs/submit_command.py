"""launch/submit.py as it is typed, and what its dry run prints."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working place whose name needs quoting."""
    place = tmp_path / "it's my place"
    place.mkdir()
    monkeypatch.setenv("P2P_RUNS", str(place / "runs"))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    return place


def songs(folder):
    """Files that only have to be there: the launcher opens none."""
    for split, name in (("train", "a.stem.mp4"), ("test", "b.stem.mp4")):
        (folder / split).mkdir(parents=True)
        (folder / split / name).write_bytes(b"x")
    return str(folder)


def launch(*arguments, code=None):
    """Run launch/submit.py in its own process; `code` runs before it."""
    before = f"{code}\n" if code else ""
    program = (
        f"{before}import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, 'launch'); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "launch/submit.py", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )


BASE_ONLY = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numpy", "scipy", "av", "soundfile", "webdataset", "musdb", "stempeg"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def scripts(printed):
    """stage -> script, of what a dry run printed."""
    parts = printed.split("\n##### ")[1:]
    return {
        name.removesuffix(".sh"): body for name, _, body in (part.partition("\n") for part in parts) if name.endswith(".sh")
    }
