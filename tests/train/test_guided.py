"""A training with guides: the same for any world size and after any kill, since all follows from seed and position."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from p2p_dist.data import guides, manifest
from p2p_dist.data.index import Index
from p2p_dist.data.stream import Stream
from p2p_dist.run.rundir import RunDir
from p2p_dist.train.guided import Guided
from tests.rank_processes import RanksFailed
from tests.train import on_ranks

GUIDED = {"sketch": True, "beat_phase": True, "residual": True}


def write_guides(run: RunDir, settings, seed: int = 0, variants: int = 3) -> None:
    """Random sketches of each training song, in variants of which the n-th is n dB in its first band."""
    run.guides.mkdir(parents=True, exist_ok=True)
    entries, data = {}, settings.data
    for number, song in enumerate(manifest.read(run.shards)["splits"]["train"]["songs"]):
        frames = 400
        made = []
        for variant in range(variants):
            picture = np.random.default_rng((number, variant, seed)).uniform(-60, 0, (1, data.mels, frames)).astype(np.float16)
            picture[:, 0] = variant
            picture[:, 1] = np.arange(frames) % 64 - 80
            made.append(guides.rows_of(picture, np.arange(frames) / 43 + number / 10))
        entries[song["key"]] = guides.write_song(run.guides, song["key"], made)
    guides.write_record(run.guides, variants, data.mels + 2, entries)


def guided(run: RunDir, settings, rank: int = 0, world_size: int = 1, seed: int = 0) -> Guided:
    settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, seed=seed))
    stream = Stream(Index(run.shards, "train"), settings.data, seed=seed, global_batch_size=4, rank=rank, world_size=world_size)
    return Guided(guides.Guides(run.guides), stream, settings)


@pytest.fixture
def run(new_run):
    run, settings = new_run("run", model=GUIDED)
    write_guides(run, settings)
    return run, settings


def test_each_window_gets_its_part_of_its_song(run):
    one = guided(*run)
    index, data = one.stream.index, run[1].data
    for step in (0, 7):
        batch = one.batch(step)
        assert batch.shape == (4, 3, data.mels, data.frames)
        for number, guide in zip(one.stream.samples(one.stream.positions(step)), batch, strict=True):
            window = int(index.samples.key(int(number)).rpartition("-")[2])
            shown = (guide[0, 1] + 1) * 52.5
            wanted = (np.arange(data.frames) + window * data.window_hop) % 64
            np.testing.assert_allclose(shown.numpy(), wanted, atol=0.1)


def test_variants_follow_from_seed_and_position(run):
    one, same, other = guided(*run), guided(*run), guided(*run, seed=1)
    batches = [one.batch(step) for step in range(12)]
    variants = {round(((guide[0, 0, 0].item() + 1) * 52.5) - 80) for batch in batches for guide in batch}
    assert variants == {0, 1, 2}
    assert torch.equal(same.batch(5), batches[5]), "begun in the middle"
    two = torch.cat([guided(*run, rank, 2).batch(5) for rank in range(2)])
    assert torch.equal(two, batches[5])
    assert not all(torch.equal(other.batch(step), batches[step]) for step in range(12))
    epoch = len(one.stream.index)
    place = np.arange(40)
    drawn = [one.at(place + epoch * turn, np.zeros(40, np.int64)) for turn in range(2)]
    assert not torch.equal(*drawn), "in the next epoch, other variants of the same windows"


def test_predicted_strokes_are_left_out_or_a_quarter(run):
    """Of the variants that the stage `pattern` makes the last plays predicted strokes."""
    run, settings = run
    write_guides(run, settings, variants=guides.TRUE + guides.PREDICTED)
    drawn = {}
    for predicted in (False, True):
        train = dataclasses.replace(settings.train, predicted_strokes=predicted)
        one = guided(run, dataclasses.replace(settings, train=train))
        batch = one.at(np.arange(400), np.zeros(400, np.int64))
        drawn[predicted] = torch.round((batch[:, 0, 0, 0] + 1) * 52.5 - 80).int().bincount(minlength=4)
    assert drawn[False][guides.TRUE :].sum() == 0 and drawn[False][: guides.TRUE].min() > 90
    assert 70 < drawn[True][guides.TRUE] < 130


def test_killed_equals_undisturbed_with_guides(ranks, new_run, tmp_path, monkeypatch):
    """The killed one reads them from the node's disk, where it finds them again: their folder is no longer needed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    runs = []
    for name, stage in (("undisturbed", "none"), ("killed", "disk")):
        run, settings = new_run(name, model=GUIDED, train={"steps": 8, "checkpoint_every": 3}, data={"stage": stage})
        write_guides(run, settings)
        runs.append(run)
    assert ranks(1, on_ranks.train, runs[0].path, None, None) == [0]
    with pytest.raises(RanksFailed):
        ranks(1, on_ranks.train, runs[1].path, 5, None)
    for path in runs[1].guides.glob("*.f16"):
        path.unlink()
    assert ranks(1, on_ranks.train, runs[1].path, None, None) == [0]
    assert on_ranks.equal(*(on_ranks.state(run.path, 8) for run in runs))


def test_a_training_is_not_continued_with_other_sketches(ranks, new_run):
    run, settings = new_run("run", model=GUIDED, train={"steps": 8, "checkpoint_every": 3})
    write_guides(run, settings)
    with pytest.raises(RanksFailed):
        ranks(1, on_ranks.train, run.path, 5, None)
    write_guides(run, settings, seed=1)
    with pytest.raises(RanksFailed, match="trained with other sketches"):
        ranks(1, on_ranks.train, run.path, None, None)
    write_guides(run, settings)
    assert ranks(1, on_ranks.train, run.path, None, None) == [0]


def test_a_training_without_its_sketches_is_refused(ranks, new_run):
    run, _ = new_run("run", model=GUIDED, train={"steps": 2})
    with pytest.raises(RanksFailed, match=r"guides\.json"):
        ranks(1, on_ranks.train, run.path, None, None)
