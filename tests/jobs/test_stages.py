"""Whether a stage is done."""

from __future__ import annotations

import dataclasses

from p2p_dist.common import files
from p2p_dist.data import guides, manifest
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
    (run.checkpoints / rundir.step_name(90) / checkpoints.STATE).unlink()
    assert stages.is_done("train", run) == "90 steps", "it was trained to its end, and its state removed since"
    (run.checkpoints / rundir.step_name(90) / checkpoints.GENERATOR).unlink()
    assert stages.is_done("train", run) is None


def test_only_a_run_with_a_sketch_has_the_stage_pattern(new_run):
    plain, _ = new_run("plain")
    guided, settings = new_run("guided", model={"sketch": True})
    assert "pattern" not in stages.of(plain) and stages.is_done("pattern", plain) == stages.NO_SKETCH
    assert stages.of(guided) == stages.STAGES and stages.is_done("pattern", guided) is None
    place = site.load_site("slurm", None)
    assert [job.stage for job in specs.jobs(guided, settings, place)] == list(stages.STAGES)
    assert [job.stage for job in specs.jobs(plain, presets.PRESETS["tiny"], place)] == list(stages.of(plain))


def test_sketches_are_made_again_when_the_training_songs_changed(new_run):
    run, _ = new_run("guided", model={"sketch": True})
    keys = [song["key"] for song in manifest.read(run.shards)["splits"]["train"]["songs"]]
    entry = {"frames": 1, "bytes": 2, "sha256": "0" * 64}
    files.write_json(run.dataset, {"schema": 1, "name": run.read_dataset(), "training": "now"})

    def is_done(songs, training):
        guides.write_record(run.guides, 1, 3, dict.fromkeys(songs, entry), training)
        return stages.is_done("pattern", run) is not None

    assert not is_done(keys, "now"), "there is no drummer"
    run.drummer.touch()
    assert is_done(keys, "now")
    assert is_done(keys, None), "of a version that noted no digest"
    assert not is_done(keys, "before"), "another recording under the same name"
    assert not is_done([*keys, "gone"], "now") and not is_done(keys[1:], "now")
    (run.guides / "guides.json").write_text("{")
    assert stages.is_done("pattern", run) is None, "damaged"
    assert is_done(keys, "now")
    files.write_json(run.dataset, {"schema": 1, "name": "later", "training": "now"})
    assert stages.is_done("pattern", run) is None, "songs are still to be read"
    files.write_text(run.checkpoints / rundir.step_name(1) / checkpoints.STATE, "")
    files.write_json(run.checkpoints / rundir.step_name(1) / checkpoints.META, {"step": 1, "files": {}})
    assert stages.is_done("pattern", run) is not None, "songs of a training do not change"


def test_the_pattern_job_is_shown_the_songs_and_counts_what_is_finished(new_run, tmp_path):
    run, settings = new_run("guided", model={"sketch": True})
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, root=str(tmp_path / "songs")))
    assert str(tmp_path / "songs") in setup._folders(run, settings.data, "pattern")
    assert batch._progress("pattern", run.path) == (0, 0)
    for number in range(1, 3):
        (run.pattern / "finished").mkdir(parents=True, exist_ok=True)
        (run.pattern / "finished" / f"song-{number}").touch()
        assert batch._progress("pattern", run.path)[0] == number
