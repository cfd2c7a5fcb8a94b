"""What the launcher takes for a finished training: what a training would continue from, told without torch."""

from __future__ import annotations

import shutil

import pytest

from p2p_dist.jobs import stages
from p2p_dist.run import checkpoints, rundir
from tests.run.unread_checkpoints import run, write

__all__ = ["run"]


@pytest.mark.parametrize("harm", ["only meta", "empty, later", "flipped", "cut", "copied", "no generator", "a file"])
def test_what_is_not_whole_does_not_count(run, harm):
    folder = run.checkpoints / rundir.step_name(90)
    if harm == "only meta":
        (folder / checkpoints.STATE).unlink()
        (folder / checkpoints.GENERATOR).unlink()
    elif harm == "empty, later":
        folder.rename(run.checkpoints / rundir.step_name(95))  # what holds step 90 is not of step 95
        (run.checkpoints / rundir.step_name(100)).mkdir()
    elif harm == "flipped":
        (folder / checkpoints.STATE).write_bytes(b"State 90")
        assert stages.is_done("train", run, content=False) == "90 steps", "a look at sizes does not tell"
    elif harm == "cut":
        (folder / checkpoints.STATE).write_bytes(b"state 9")
    elif harm == "copied":
        shutil.rmtree(folder)
        shutil.copytree(run.checkpoints / rundir.step_name(75), folder)
    elif harm == "no generator":
        (folder / checkpoints.GENERATOR).unlink()
    else:
        shutil.rmtree(folder)
        folder.touch()
    assert stages.is_done("train", run) is None
    assert checkpoints.newest_step(run.checkpoints, content=True) == 75


def test_a_checkpoint_is_read_once_by_a_process_and_again_where_it_changed(run, monkeypatch):
    read = []
    monkeypatch.setattr(checkpoints.files, "sha256_file", lambda path: read.append(path) or "0")
    for _ in range(3):
        assert stages.is_done("train", run) is None
    assert len(read) == 2, "the first file of each"
    monkeypatch.undo()
    write(run, 90)
    assert stages.is_done("train", run) == "90 steps"
