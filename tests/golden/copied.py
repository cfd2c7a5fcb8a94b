"""A copy of the run that an earlier version made."""

import shutil
from pathlib import Path

import pytest

from p2p_dist.run import rundir

GOLDEN = Path(__file__).resolve().parent


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that is trained and evaluated, in a folder of runs deep enough for names that lead out of it."""
    place = tmp_path / "a" / "b" / "c"
    shutil.copytree(GOLDEN / "run-v1", place / "runs" / "run-v1")
    shutil.copytree(GOLDEN / "shards-v1", place / "shards" / "shards-v1")
    monkeypatch.setenv("P2P_RUNS", str(place / "runs"))
    return rundir.find("run-v1")
