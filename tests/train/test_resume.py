"""A training that was killed and resumed is the training that was never killed."""

from __future__ import annotations

import torch

from p2p_dist.data.stream import Stream
from p2p_dist.train import loop
from tests.rank_processes import RanksFailed
from tests.train import on_ranks

STEPS = 20


def train_with_kills(ranks, run, kills, world_size=1, sabotage=None):
    """Train to the end, through a kill after each of the updates in `kills`."""
    for step in kills:
        try:
            ranks(world_size, on_ranks.train, run.path, step, sabotage)
        except RanksFailed as failure:
            assert set(failure.codes.values()) == {9}, failure
        else:
            raise AssertionError(f"the kill after update {step} did not happen")
    assert ranks(world_size, on_ranks.train, run.path, None, sabotage) == [0] * world_size


def test_killed_equals_undisturbed(ranks, new_run):
    undisturbed, _ = new_run("undisturbed")
    killed, _ = new_run("killed")
    train_with_kills(ranks, undisturbed, [])
    train_with_kills(ranks, killed, [3, 8, 9, 17])
    assert on_ranks.equal(on_ranks.state(undisturbed.path, STEPS), on_ranks.state(killed.path, STEPS))
    assert on_ranks.digests(undisturbed) == on_ranks.digests(killed)
    assert len(on_ranks.digests(killed)) == STEPS


def noise_from_the_global_state():
    loop.noise_at = lambda places, seed, shape, device: torch.randn(len(places), *shape)


def stream_from_the_start():
    honest, calls = Stream.places, []
    Stream.places = lambda self, step: (calls.append(step), honest(self, step - calls[0]))[1]


def test_twins_differ(ranks, new_run):
    for sabotage in (noise_from_the_global_state, stream_from_the_start):
        undisturbed, _ = new_run(f"undisturbed-{sabotage.__name__}")
        killed, _ = new_run(f"killed-{sabotage.__name__}")
        train_with_kills(ranks, undisturbed, [], sabotage=sabotage)
        train_with_kills(ranks, killed, [8], sabotage=sabotage)
        same = on_ranks.equal(on_ranks.state(undisturbed.path, STEPS), on_ranks.state(killed.path, STEPS))
        assert not same, sabotage.__name__


def test_world_size_may_change(ranks, new_run):
    steady, _ = new_run("steady")
    changing, _ = new_run("changing")
    train_with_kills(ranks, steady, [])
    for world_size, step in ((2, 6), (1, 13)):
        try:
            ranks(world_size, on_ranks.train, changing.path, step)
        except RanksFailed as failure:
            assert 9 in failure.codes.values()
    assert ranks(2, on_ranks.train, changing.path) == [0, 0]
    assert on_ranks.digests(steady) == on_ranks.digests(changing)
    assert len(on_ranks.digests(steady)) == STEPS
