"""Commands as they are typed, and what the dry run of launch/submit.py prints."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_dist import cli

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


def launch(*arguments, code=None, command="submit"):
    """Run launch/submit.py or another command; with `code`, in a process of its own in which that runs first.

    Without it in this process, which has imported already what each process would import again.
    """
    if code is None:
        return type_here(command, *arguments)
    program = (
        f"{code}\nimport runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, 'launch'); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = [sys.executable, "-c", program, f"launch/{command}.py", *arguments]
    return subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)


def type_here(command, *arguments):
    """Run a command of launch/ in this process; what it prints and leaves with."""
    printed, complained = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"launch/{command}.py", *arguments])
        patch.chdir(CHECKOUT)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained), pytest.raises(SystemExit) as left:
            cli.run(command, list(arguments))
    return subprocess.CompletedProcess(arguments, left.value.code, printed.getvalue(), complained.getvalue())


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
