"""The sequence of training batches: a pure function of (manifest, seed, step).

The stream is one seeded permutation of all samples after another, cut into global batches; an epoch is one permutation,
and a batch may lie across the border of two. Rank r of W takes its even share of each global batch. So resume is
arithmetic, the shuffle is perfect, every sample comes once an epoch whatever the batch size, the world size may change
between starts, and no rank can run dry.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from p2p_dist.data.index import Index
from p2p_dist.data.pairs import CEILING, FLOOR
from p2p_dist.settings.config import Data


def permutation(seed: int, epoch: int, samples: int) -> np.ndarray:
    """Return the order of all samples in one epoch, (samples,).

    Sorts the raw output of Philox: numpy promises that it stays the same in every version, which it does not of shuffles.
    """
    random = np.random.Philox(key=[seed, epoch]).random_raw(samples)
    return np.argsort(random, kind="stable")


def positions(step: int, global_batch_size: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
    """Return the positions in the stream of one rank's share of global batch `step` (from 0).

    Raises:
        ValueError: the world size does not divide the global batch; the message lists those that do.
    """
    if global_batch_size % world_size:
        fitting = [str(n) for n in range(1, global_batch_size + 1) if global_batch_size % n == 0]
        raise ValueError(
            f"{world_size} processes cannot divide a global batch of {global_batch_size}: "
            f"use {', '.join(fitting)} processes, or change train.global-batch-size in a new run"
        )
    share = global_batch_size // world_size
    return step * global_batch_size + rank * share + np.arange(share)


class Stream:
    """The batches of one rank.

    Args:
        index: the training split.
        stage: `device` reads the whole split into the device's memory at once; anything else reads batch by batch.
    """

    def __init__(
        self,
        index: Index,
        data: Data,
        *,
        seed: int,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        positions(0, global_batch_size, rank, world_size)
        self.index, self.seed, self.global_batch_size = index, seed, global_batch_size
        self.rank, self.world_size, self.device = rank, world_size, torch.device(device)
        self.low, self.high = FLOOR, CEILING[data.representation]
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        self.resident = None
        if data.stage == "device":
            self.resident = torch.from_numpy(index.read(np.arange(len(index)))).to(self.device)

    def samples(self, places: np.ndarray) -> np.ndarray:
        """Return the sample numbers at these positions of the stream."""
        numbers = np.empty(len(places), np.int64)
        for row, place in enumerate(places):
            epoch, within = divmod(int(place), len(self.index))
            if self._order[0] != epoch:
                self._order = (epoch, permutation(self.seed, epoch, len(self.index)))
            numbers[row] = self._order[1][within]
        return numbers

    def places(self, step: int) -> np.ndarray:
        """Places in the stream of this rank's share of global batch `step`: what per-sample randomness is drawn from."""
        return positions(step, self.global_batch_size, self.rank, self.world_size)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Read this rank's share of global batch `step`.

        Returns:
            input and target, float32 (batch, channels, mels, frames) from -1 (floor) to 1 (ceiling), on the device.
        """
        numbers = self.samples(self.places(step))
        if self.resident is not None:
            pairs = self.resident[torch.from_numpy(numbers).to(self.device)]
        else:
            pairs = torch.from_numpy(self.index.read(numbers))
            if self.device.type == "cuda":
                pairs = pairs.pin_memory().to(self.device, non_blocking=True)
        scaled = to_network(pairs.float(), self.low, self.high)
        return scaled[:, 0], scaled[:, 1]

    def keys_digest(self, step: int) -> str:
        """Digest of the global batch, 12 hexadecimal digits: the same samples in the same order, for any world size."""
        numbers = self.samples(positions(step, self.global_batch_size))
        keys = "\n".join(self.index.samples[number].key for number in numbers)
        return hashlib.sha256(keys.encode()).hexdigest()[:12]


def to_network(db: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Scale dB from `low` .. `high` to -1 .. 1, the range of the networks. For the thesis's -80 .. 0 this is x / 40 + 1."""
    return (db - low) * (2 / (high - low)) - 1


def from_network(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """The inverse of `to_network`."""
    return (values + 1) * ((high - low) / 2) + low
