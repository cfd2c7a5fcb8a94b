"""The sequence of batches: permutations, shares of ranks, and that they do not depend on how they are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2p_dist.data.index import Index
from p2p_dist.data.stream import Stream, from_network, positions, to_network
from p2p_dist.settings.config import Data


@given(st.integers(1, 16), st.integers(0, 240), st.integers(0, 10**9))
def test_shares_of_the_ranks_are_the_global_batch_whatever_their_number(world: int, more: int, step: int) -> None:
    size = world + more
    shares = [positions(step, size, rank, world) for rank in range(world)]
    assert np.concatenate(shares).tolist() == list(range(step * size, (step + 1) * size))
    sizes = [len(share) for share in shares]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1


def test_a_rank_without_a_pair_is_refused() -> None:
    assert len(positions(0, 4, 3, 4)) == 1
    with pytest.raises(ValueError, match="use at most 4 processes"):
        positions(0, 4, 0, 5)


def test_a_share_is_weighted_by_its_size(dataset: Path, small: Data) -> None:
    index = Index(dataset, "train")
    weights = [Stream(index, small, seed=0, global_batch_size=64, rank=rank, world_size=24).weight for rank in range(24)]
    assert weights == [3 * 24 / 64] * 16 + [2 * 24 / 64] * 8 and sum(weights) == 24
    assert Stream(index, small, seed=0, global_batch_size=6, rank=2, world_size=3).weight == 1.0, "exactly"


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_every_sample_comes_once_an_epoch_even_where_batches_lie_across_its_border(
    dataset: Path, small: Data, batch: int
) -> None:
    index = Index(dataset, "train")
    stream = Stream(index, small, seed=3, global_batch_size=batch)
    steps = -(-3 * len(index) // batch)
    seen = np.concatenate([stream.samples(stream.positions(step)) for step in range(steps)])
    for epoch in range(3):
        assert sorted(seen[epoch * len(index) : (epoch + 1) * len(index)]) == list(range(len(index)))


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_a_batch_does_not_depend_on_the_number_of_ranks(dataset: Path, small: Data, world: int) -> None:
    index = Index(dataset, "train")
    alone = Stream(index, small, seed=1, global_batch_size=6)
    ranks = [Stream(index, small, seed=1, global_batch_size=6, rank=rank, world_size=world) for rank in range(world)]
    for step in (0, 1, 7, 1000):
        for side in (0, 1):
            shares = torch.cat([rank.batch(step)[side] for rank in ranks])
            assert torch.equal(shares, alone.batch(step)[side])
        assert len({rank.keys_digest(step) for rank in ranks} | {alone.keys_digest(step)}) == 1


def test_batches_are_the_arrays_of_the_shards_scaled_for_the_networks(dataset: Path, small: Data) -> None:
    index = Index(dataset, "train")
    stream = Stream(index, small, seed=1, global_batch_size=4)
    stored = index.read(stream.samples(stream.positions(2))).astype(np.float32)
    for side, batch in enumerate(stream.batch(2)):
        assert batch.dtype == torch.float32 and batch.shape == (4, 1, 32, 32)
        assert batch.min() >= -1 and batch.max() <= 1
        np.testing.assert_allclose(from_network(batch, stream.low, stream.high), stored[:, side], atol=1e-4)


def test_a_set_in_device_memory_gives_the_same_batches(dataset: Path, small: Data) -> None:
    index = Index(dataset, "train")
    read = Stream(index, small, seed=1, global_batch_size=4)
    resident = Stream(index, replace(small, stage="device"), seed=1, global_batch_size=4)
    for step in range(3):
        assert all(torch.equal(a, b) for a, b in zip(read.batch(step), resident.batch(step), strict=True))


def test_digests_name_the_batch(dataset: Path, small: Data) -> None:
    stream = Stream(Index(dataset, "train"), small, seed=1, global_batch_size=4)
    other = Stream(Index(dataset, "train"), small, seed=2, global_batch_size=4)
    digests = [stream.keys_digest(step) for step in range(4)]
    assert len(set(digests)) == 4 and digests == [stream.keys_digest(step) for step in range(4)]
    assert digests != [other.keys_digest(step) for step in range(4)]


@given(st.floats(-80, 25, width=32))
def test_scaling_for_the_networks_can_be_undone(db: float) -> None:
    there = to_network(torch.tensor(db), -80.0, 25.0)
    assert -1 <= there <= 1
    assert abs(float(from_network(there, -80.0, 25.0)) - db) < 1e-4
    assert float(to_network(torch.tensor(db), -80.0, 0.0)) == pytest.approx(db / 40 + 1, abs=1e-5)
