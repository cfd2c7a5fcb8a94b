"""The sequence of training batches: a pure function of (manifest, seed, step).

The stream is a sequence of seeded permutations of all samples (data/order.py), cut into global batches. An epoch is one
permutation; a batch may contain samples of two epochs. Rank r of W takes its share of each global batch; shares differ by at
most one sample. So a resumed training needs only the number of the step, every sample occurs once per epoch whatever the batch
size, the world size may change between starts, and all ranks have the same number of batches.

A thread reads, checks and scales the next batch while the caller works with the current one. This needs memory for two batches.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import weakref
from collections.abc import Callable

import numpy as np
import torch

from p2p_dist.data import order
from p2p_dist.data.copies import Copies
from p2p_dist.data.index import Index
from p2p_dist.data.pairs import CEILING, FLOOR
from p2p_dist.data.prefetch import Prefetcher
from p2p_dist.settings.config import Data


def positions(step: int, global_batch_size: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
    """Return the positions in the stream of one rank's share of global batch `step` (from 0).

    If the world size does not divide the global batch, the first ranks have one position more than the others.

    Raises:
        ValueError: there are more processes than pairs in a global batch.
    """
    if world_size > global_batch_size:
        raise ValueError(
            f"{world_size} processes are too many for a global batch of {global_batch_size} pairs: use at most "
            f"{global_batch_size} processes, or a larger train.global-batch-size in a new run"
        )
    share, rest = divmod(global_batch_size, world_size)
    begin = step * global_batch_size + rank * share + min(rank, rest)
    return begin + np.arange(share + (rank < rest))


_ALONE = 30000
"""Number of elements up to which torch converts in one thread. For more it would start threads beside those of the training."""


class Stream:
    """The batches of one rank. One thread at a time may use it.

    Args:
        index: the training split.
        data: with `stage` device the whole split is read into the device's memory at once, else batch by batch.
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
        share = len(positions(0, global_batch_size, rank, world_size))
        self.weight = share * world_size / global_batch_size
        """This rank's share relative to an even one. Gradients and losses are weighted by it before they are averaged."""
        self.index, self.seed, self.global_batch_size = index, seed, global_batch_size
        self.rank, self.world_size, self.device = rank, world_size, torch.device(device)
        self.low, self.high = FLOOR, CEILING[data.representation]
        self._sorted = functools.lru_cache(maxsize=2)(order.sorted_order)  # two: a batch may contain two epochs
        self._prefetcher: Prefetcher[torch.Tensor] = Prefetcher()
        self.resident = None
        if data.stage == "device":
            self.resident = torch.from_numpy(index.read(np.arange(len(index)))).to(self.device)
        shape = (share, 2, *index.shape)
        self._copies = None
        if self.device.type == "cuda" and self.resident is None:
            self._copies = Copies(shape, torch.from_numpy(np.empty(0, index.dtype)).dtype, self.device)
        self._scaled = _Scaled(index, shape, self.low, self.high)

    def samples(self, positions: np.ndarray) -> np.ndarray:
        """Return the sample numbers at these positions of the stream."""
        epochs, within = np.divmod(positions, len(self.index))
        numbers = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            if self.index.order == "feistel":
                numbers[here] = order.feistel(self.seed, epoch, len(self.index), within[here])
            else:
                numbers[here] = self._sorted(self.seed, epoch, len(self.index))[within[here]]
        return numbers

    def positions(self, step: int) -> np.ndarray:
        """Return the positions of this rank's share of global batch `step`; they seed the randomness of each sample."""
        return positions(step, self.global_batch_size, self.rank, self.world_size)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Read this rank's share of global batch `step`.

        Returns:
            input and target, float32 (batch, channels, mels, frames) from -1 (floor) to 1 (ceiling), on the device.
        """
        if self.resident is not None:
            numbers = torch.from_numpy(self.samples(self.positions(step)))
            if self.device.type == "cuda":  # from pageable memory the copy would block the host
                numbers = numbers.pin_memory()
            numbers = numbers.to(self.device, non_blocking=True)
            scaled = to_network(self.resident.index_select(0, numbers).float(), self.low, self.high)
        elif self._copies is not None:
            pairs = self._copies.received(self._prefetcher.result(step, self._reading(step)))
            self._prefetcher.start(step + 1, self._reading(step + 1))
            scaled = to_network(pairs, self.low, self.high)
        else:
            scaled = self._prefetcher.result(step, self._reading(step)).to(self.device)
            self._prefetcher.start(step + 1, self._reading(step + 1))
        return scaled[:, 0], scaled[:, 1]

    def _reading(self, step: int) -> Callable[[], torch.Tensor]:
        def read() -> torch.Tensor:
            numbers = self.samples(self.positions(step))
            if self._copies is None:
                return self._scaled.read(numbers)
            return self._copies.send(lambda pinned: self._read_into(pinned, numbers))  # as stored, scaled by the GPU

        return read

    def _read_into(self, batch: torch.Tensor, numbers: np.ndarray) -> None:
        for _ in self.index.read_into(batch.numpy(), numbers):
            pass

    def keys_digest(self, step: int) -> str:
        """Digest of the keys of the global batch, 12 hexadecimal digits; it does not depend on the world size."""
        numbers = self.samples(positions(step, self.global_batch_size))
        keys = "\n".join(map(self.index.samples.key, numbers.tolist()))
        return hashlib.sha256(keys.encode()).hexdigest()[:12]


class _Scaled:
    """Reads batches and scales them for the networks.

    One sample at a time, so that it stays in the processor's cache, and into reused memory, because new memory from the kernel
    takes longer than all the rest.
    """

    def __init__(self, index: Index, shape: tuple[int, ...], low: float, high: float) -> None:
        self._index, self._shape = index, shape
        self._low, self._factor = np.float32(low), np.float32(2 / (high - low))
        self._stored, self._row = np.empty(shape[1:], index.dtype), np.empty(shape[1:], np.float32)
        pieces = (torch.from_numpy(array).view(-1).split(_ALONE) for array in (self._row, self._stored))
        self._pieces = list(zip(*pieces, strict=True))
        self._memory: list[np.ndarray] = []
        self._users: list[weakref.ref[np.ndarray]] = []

    def read(self, numbers: np.ndarray) -> torch.Tensor:
        """Read a batch, float32 (batch, 2, channels, mels, frames), with the same bits as `to_network`."""
        batch = self._unused()
        stored = itertools.repeat(self._stored, len(numbers))
        for place, _ in enumerate(self._index.read_into(stored, numbers)):
            for converted, piece in self._pieces:
                converted.copy_(piece)
            np.subtract(self._row, self._low, out=self._row)
            np.multiply(self._row, self._factor, out=self._row)
            np.subtract(self._row, np.float32(1), out=batch[place])
        return torch.from_numpy(batch)

    def _unused(self) -> np.ndarray:
        """Return an array for a batch: one of two that no tensor uses any more, else a new one.

        It is a new view each time; the view exists as long as a tensor that uses it.
        """
        place = next((n for n, user in enumerate(self._users) if user() is None), len(self._users))
        if place == 2:
            return np.empty(self._shape, np.float32)
        if place == len(self._memory):
            self._memory.append(np.empty(self._shape, np.float32))
        view = self._memory[place].view()
        self._users[place:] = [weakref.ref(view), *self._users[place + 1 :]]
        return view


def to_network(db: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Scale dB from `low` .. `high` to -1 .. 1, the range of the networks. For the thesis (-80 .. 0) this is x / 40 + 1."""
    return (db - low) * (2 / (high - low)) - 1


def from_network(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Invert `to_network`."""
    return (values + 1) * ((high - low) / 2) + low
