"""Figures as the commands print them."""

from __future__ import annotations

import pytest

from p2p_dist.cli import figures
from p2p_dist.common import files
from p2p_dist.run import rundir


def test_best_is_the_checkpoint_that_was_named(tmp_path):
    run = rundir.RunDir(tmp_path / "runs" / "run")
    with pytest.raises(ValueError, match="evaluate it first"):
        figures.steps_of(run, ("best",))
    (run.checkpoints / rundir.step_name(60)).mkdir(parents=True)
    files.write_json(run.best, {"step": 60, "score": 0.5, "chosen_on": "test", "note": ""})
    assert figures.steps_of(run, ("best", 30, 60)) == (60, 30) and figures.steps_of(run, ()) == ()
