"""Songs that training does not use come and go; those that it was trained on stay. On real songs, shards and checkpoints."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from p2p_dist.audio import held_out_titles, layouts
from p2p_dist.data import dataset as datasets
from p2p_dist.data import shards
from p2p_dist.data.index import Index
from p2p_dist.jobs import begin_run, fits, site, stages
from p2p_dist.jobs.slurm import launch as launching
from p2p_dist.jobs.slurm import specs, squeue
from p2p_dist.run import rundir
from p2p_dist.settings import presets
from p2p_dist.train import checkpoint
from p2p_dist.train.distributed import Ranks
from p2p_dist.train.networks import build
from tests.conftest import write_songs

TINY = presets.PRESETS["tiny"]


def wanted(root, evaluate="never", preset=TINY):
    data = dataclasses.replace(preset.data, root=str(root))
    return dataclasses.replace(preset, data=data, resources=dataclasses.replace(preset.resources, evaluate=evaluate))


def make(root, run, settings):
    """What preprocessing does."""
    assert shards.preprocess(root, run.shards, settings.data, workers=1) == []


def launch(run, settings):
    """What the launcher does before the stages."""
    return begin_run.begin(run, settings, datasets.name_for(run, Path(settings.data.root), settings.data))


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Songs of train/ alone, and a run that was trained on them to its end."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    root = tmp_path / "songs"
    write_songs(root, {"train/one": 1.5, "train/two": 1.5})
    run, settings = rundir.find("a"), wanted(root)
    launch(run, settings)
    make(root, run, settings)
    total = settings.train.total_steps(len(Index(run.shards, "train")))
    networks = build(settings, Ranks(0, 1, 0, torch.device("cpu"), None))
    checkpoint.save(run.checkpoints, total, networks.state(), networks.to_evaluate(), {})
    assert stages.is_done("train", run) == f"{total} steps"
    assert stages.is_done("evaluate", run) == stages.is_done("page", run) == stages.NOT_ASKED
    return root, run


def test_songs_to_test_on_are_asked_for_before_training(tmp_path):
    write_songs(tmp_path, {"train/one": 0.1})
    with pytest.raises(ValueError, match=r"has no test songs.*put songs.*test, or only train with --evaluate never"):
        fits.check_songs(wanted(tmp_path).data, "test", asked=True)
    fits.check_songs(wanted(tmp_path).data, "test", asked=False)
    write_songs(tmp_path, {"test/two": 0.1})
    fits.check_songs(wanted(tmp_path).data, "test", asked=True)
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(ValueError, match="has no training songs"):
        fits.check_songs(wanted(tmp_path).data, "test", asked=False)


@pytest.mark.parametrize("older", [False, True], ids=["now", "a run that noted only a name"])
def test_songs_to_test_on_that_come_later_lose_no_training(trained, older):
    root, run = trained
    if older:  # of version 0.1, which named shards by another rule
        settings = wanted(root)
        name = datasets.name_of_version_0_1(root, settings.data, layouts.list_songs(root))
        run.shards.rename(run.shards.with_name(name))
        run.dataset.write_text(json.dumps({"name": name}))
        assert datasets.name_for(run, root, settings.data) == name
    before, first = run.shards, Index(run.shards, "train").samples.digest
    (run.evaluations / "x").mkdir(parents=True)
    (run.evaluations / rundir.step_name(5)).mkdir()
    write_songs(root, {"test/three": 1.5})
    settings = launch(run, wanted(root, "after"))
    assert run.shards != before and run.shards_before == before
    assert (run.path / f"evaluations-{before.name}" / "x").is_dir() and not run.evaluations.exists(), "kept aside"
    assert stages.is_done("train", run) is not None, "while the new shards are still to be made"
    assert stages.is_done("preprocess", run) is None and stages.is_done("evaluate", run) is None
    planned = {step.job.stage: step.done for step in launching.plan(run, settings, site.load_site("slurm"), {})}
    assert planned["train"] and not any(planned[stage] for stage in ("preprocess", "evaluate", "page"))
    make(root, run, settings)
    assert Index(run.shards, "train").samples.digest == first, "so training would go on from its checkpoint"
    assert stages.is_done("train", run) and stages.is_done("preprocess", run)
    launch(run, wanted(root, "after"))
    assert run.shards_before == before
    shutil.rmtree(root / "test")
    launch(run, wanted(root))
    assert run.shards == before and stages.is_done("train", run)


def test_songs_for_validation_may_come_where_none_was_held_back(tmp_path, monkeypatch):
    write_songs(tmp_path, {"train/one": 0.1, "train/four": 0.1})
    there = {}
    for split, name in (("train", "one"), ("train", "four"), ("valid", "six")):
        there[name] = layouts.Source(name, split, tmp_path / "train" / name, layouts.stem_files(tmp_path / "train" / name))

    def digest(*names):
        monkeypatch.setattr(layouts, "list_songs", lambda *_: [there[name] for name in names])
        return datasets.training_digest(tmp_path, TINY.data)

    assert held_out_titles.validation_by_hash(["one", "four"]) == {"four"}
    assert digest("one") == digest("one", "six")
    assert digest("one", "four") != digest("one", "four", "six"), "four is trained on now"


def test_a_song_that_training_uses_stays(trained):
    root, run = trained
    write_songs(root, {"train/one": 1.5, "train/two": 1.6})
    with pytest.raises(ValueError, match="the training songs differ from those that the run a was trained on"):
        launch(run, wanted(root))
    assert run.shards_before is None


def test_queued_jobs_find_the_shards_that_they_were_queued_for(trained):
    _, run = trained
    job = squeue.Queued("7", "RUNNING", "None", None)
    launching.check_not_queued(run, run.read_dataset(), {"evaluate": job})
    with pytest.raises(ValueError, match=r"the songs changed, and jobs.*evaluate: job 7.*cancel.py a.*nothing was queued"):
        launching.check_not_queued(run, "other", {"evaluate": job})


def test_without_an_evaluation_no_job_is_for_it(trained):
    root, run = trained
    place = site.load_site("slurm")
    assert [job.stage for job in specs.jobs(run, wanted(root), place)] == ["preprocess", "train"]
    assert len(specs.jobs(run, wanted(root, "after"), place)) == 4


def test_evaluations_on_other_songs_are_kept_aside_when_overlap_is_allowed(tmp_path, monkeypatch):
    """All evaluations of a run are on the same songs: the page and the ranking compare them."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    root = tmp_path / "songs"
    write_songs(root, {"train/one": 1.5, "test/three": 1.5})
    shutil.copytree(root / "train" / "one", root / "test" / "the same")
    run, settings = rundir.find("a"), wanted(root, "after")
    launch(run, settings)
    make(root, run, settings)
    (run.evaluations / rundir.step_name(5)).mkdir(parents=True)
    launch(run, settings)
    assert run.evaluations.is_dir(), "nothing changed"
    launch(run, dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, allow_overlap=True)))
    assert (run.path / "evaluations-without-overlap").is_dir() and not run.evaluations.exists()
