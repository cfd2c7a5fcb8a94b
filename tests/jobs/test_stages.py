"""Whether a stage is done."""

from __future__ import annotations

from p2p_dist.jobs import stages
from p2p_dist.run import checkpoints, rundir
from tests.run.unread_checkpoints import run

__all__ = ["run"]


def test_a_training_is_done_when_its_last_checkpoint_is_whole(run):
    assert stages.is_done("train", run) == "90 steps" and checkpoints.newest_step(run.checkpoints) == 90
    (run.checkpoints / rundir.step_name(75) / checkpoints.STATE).unlink()
    assert [one.is_kept for one in checkpoints.find(run.checkpoints)] == [True, False]
    assert stages.is_done("train", run) == "90 steps"
