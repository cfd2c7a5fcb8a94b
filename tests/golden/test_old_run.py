"""A run and its shards that commit e9c9568 made (make.py): today's code goes on with it, checks it, shows it, evaluates it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from p2p_dist.common import records
from p2p_dist.data import index
from p2p_dist.evaluate import checkpoints
from p2p_dist.evaluate.report import page
from p2p_dist.jobs import begin_run, stages, status
from p2p_dist.run import metrics_file, rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import science
from p2p_dist.train import verify
from tests.golden import make
from tests.train import on_ranks

HERE = Path(__file__).parent
CONTINUED = json.loads((HERE / "run-v1-continued.json").read_text())


@pytest.fixture
def old(tmp_path, monkeypatch) -> RunDir:
    """A copy in a folder of runs: it was asked to stop at step 8 of 12; the checkpoint of step 4 is evaluated."""
    shutil.copytree(HERE / "run-v1", tmp_path / "runs" / "run-v1")
    shutil.copytree(HERE / "shards-v1", tmp_path / "shards" / "shards-v1")
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    return rundir.find("run-v1")


def test_it_goes_on_to_the_bit(old, ranks):
    """As e9c9568 went on: the same batches everywhere; the same weights, to the bit where processor and torch are the same."""
    assert ranks(1, on_ranks.train, old.path) == [0]
    assert " ".join(on_ranks.digests(old)) == CONTINUED["batches"]
    found, recorded = make.digest_of(old, 12), CONTINUED["weights"]
    assert found["sums"] == pytest.approx(recorded["sums"], rel=0.01, abs=1e-4)
    losses = [row["l1"] for row in metrics_file.read(old)]
    assert losses == pytest.approx(CONTINUED["l1"], rel=1e-3)
    if (torch.__version__, make.processor()) == (CONTINUED["torch"], CONTINUED["processor"]):
        assert found["sha256"] == recorded["sha256"]
        assert losses == CONTINUED["l1"]
    assert verify.verify_run(old) == []
    assert stages.is_done("train", old) == "12 steps"


def test_its_settings_are_those_that_the_same_command_names_today(old):
    """A setting that is new must have the value that the code of its time implied: no digest and no name changes. Its moving
    average goes on without the warm-up that new runs have, a sketch with the strokes that they do not have."""
    settings = begin_run.check_begin(old, make.settings(), "shards-v1")
    earlier = {"ema_warmup": False, "predicted_strokes": True, "loud_strokes": False}
    assert settings.train == dataclasses.replace(make.settings().train, **earlier)
    recorded = records.read(old.checkpoints / rundir.step_name(8) / "meta.json")["settings"]
    assert science.are_those(recorded, settings) == []
    assert records.read(old.shards / "manifest.json")["settings_digest"] == science.digest_of_version_0_1(settings.data)
    other = dataclasses.replace(settings, train=dataclasses.replace(settings.train, seed=1))
    with pytest.raises(ValueError, match=r"train\.seed"):
        begin_run.check_begin(old, other, "shards-v1")


def test_its_shards_are_read(old):
    assert (
        stages.is_done("preprocess", old)
        == "2 train songs in 21 windows, 1 valid songs in 9 windows, 1 test songs in 9 windows"
    )
    content = records.read(old.shards / "manifest.json")
    for split, part in content["splits"].items():
        found = index.Index(old.shards, split)
        rows = [list(dataclasses.astuple(found.sample(number))) for number in range(len(found))]
        assert rows == part["samples"]


def test_it_is_verified_and_shown(old):
    assert verify.verify_run(old) == []
    found = status.gather(old)
    assert (found["step"], found["total"], found["checkpoint"]) == (8, 12, 8)
    assert re.fullmatch("stopped .* at step 8", found["stages"]["train"])
    damaged = old.checkpoints / rundir.step_name(8) / "state.pt"
    content = bytearray(damaged.read_bytes())
    content[5000] ^= 1
    damaged.write_bytes(content)
    assert any("step-00000008" in line for line in verify.verify_run(old))


def test_it_is_evaluated_and_has_its_page(old):
    """Its evaluation stays as it was made, made anew it has the same figures, and the page shows old and new together."""
    settings, evaluated = rundir.read_settings(old), old.evaluations / rundir.step_name(4)
    before = (evaluated / "metrics.json").read_bytes()
    assert checkpoints.evaluate(old, settings, only=[4, 8]) == 1
    assert (evaluated / "metrics.json").read_bytes() == before
    text = page.write(old, settings).read_text()
    assert all(word in text for word in ("Held Out", evaluated.name, rundir.step_name(8)))

    shutil.rmtree(evaluated)
    assert checkpoints.evaluate(old, settings, only=[4]) == 1
    recorded, anew = json.loads(before)["songs"][0], records.read(evaluated / "metrics.json")["songs"][0]
    assert anew["key"] == recorded["key"]
    for measure, value in recorded["output"].items():
        close = None if value is None else pytest.approx(value, rel=1e-3, abs=1e-3)
        assert anew["output"][measure] == close, measure
