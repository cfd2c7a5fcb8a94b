"""Whether a stage is done."""

from __future__ import annotations

import dataclasses

from p2p_dist.jobs import site, stages
from p2p_dist.jobs.slurm import batch, setup, specs
from p2p_dist.run import checkpoints, rundir
from p2p_dist.settings import presets
from tests.run.unread_checkpoints import run

__all__ = ["run"]


def test_a_training_is_done_when_its_last_checkpoint_is_whole(run):
    assert stages.is_done("train", run) == "90 steps" and checkpoints.newest_step(run.checkpoints) == 90
    (run.checkpoints / rundir.step_name(75) / checkpoints.STATE).unlink()
    assert [one.is_kept for one in checkpoints.find(run.checkpoints)] == [True, False]
    assert stages.is_done("train", run) == "90 steps"


def test_only_a_run_with_a_sketch_has_the_stage_pattern(new_run):
    plain, _ = new_run("plain")
    guided, settings = new_run("guided", model={"sketch": True})
    assert "pattern" not in stages.of(plain) and stages.is_done("pattern", plain) == stages.NO_SKETCH
    assert stages.of(guided) == stages.STAGES and stages.is_done("pattern", guided) is None
    place = site.load_site("slurm", None)
    assert [job.stage for job in specs.jobs(guided, settings, place)] == list(stages.STAGES)
    assert [job.stage for job in specs.jobs(plain, presets.PRESETS["tiny"], place)] == list(stages.of(plain))
    for path in (guided.drummer, guided.guides / "guides.json"):
        assert stages.is_done("pattern", guided) is None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert stages.is_done("pattern", guided) is not None


def test_the_pattern_job_is_shown_the_songs_and_counts_what_is_finished(new_run, tmp_path):
    run, settings = new_run("guided", model={"sketch": True})
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, root=str(tmp_path / "songs")))
    assert str(tmp_path / "songs") in setup._folders(run, settings.data, "pattern")
    assert batch._progress("pattern", run.path) == (0, 0)
    for number in range(1, 3):
        (run.pattern / "finished").mkdir(parents=True, exist_ok=True)
        (run.pattern / "finished" / f"song-{number}").touch()
        assert batch._progress("pattern", run.path)[0] == number
