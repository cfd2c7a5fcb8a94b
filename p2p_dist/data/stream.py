"""The sequence of training batches: a pure function of (manifest, seed, step).

The stream is one seeded permutation of all samples after another (data/order.py), cut into global batches; an epoch is one
permutation, and a batch may lie across the border of two. Rank r of W takes its share of each global batch; shares differ by
at most one sample. So resume is arithmetic, the shuffle is perfect, every sample comes once an epoch whatever the batch size,
the world size may change between starts, and no rank can run dry.

The next batch is read, checked and scaled by a thread while the caller works with the one it has. The
memory is that of two batches.
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
from p2p_dist.data.ahead import Ahead
from p2p_dist.data.index import Index
from p2p_dist.data.pairs import CEILING, FLOOR
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
"""Elements up to which torch converts in one thread. More it shares out among threads, which here would be further ones beside
those of the training."""


class Stream:
    """The batches of one rank. One thread at a time may use it.

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
        share = len(positions(0, global_batch_size, rank, world_size))
        self.weight = share * world_size / global_batch_size
        """This rank's share relative to an even one. Gradients and losses are weighted by it before they are averaged."""
        self.index, self.seed, self.global_batch_size = index, seed, global_batch_size
        self.rank, self.world_size, self.device = rank, world_size, torch.device(device)
        self.low, self.high = FLOOR, CEILING[data.representation]
        self._sorted = functools.lru_cache(maxsize=2)(order.sorted_order)  # two, for a batch across their border
        self._ahead: Ahead[torch.Tensor] = Ahead()
        self.resident = None
        if data.stage == "device":
            self.resident = torch.from_numpy(index.read(np.arange(len(index)))).to(self.device)
        shape = (share, 2, *index.shape)
        self._pinned = _Pinned(index, shape, self.device) if self.device.type == "cuda" and self.resident is None else None
        self._scaled = _Scaled(index, shape, self.low, self.high)

    def samples(self, places: np.ndarray) -> np.ndarray:
        """Return the sample numbers at these positions of the stream."""
        epochs, within = np.divmod(places, len(self.index))
        numbers = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            if self.index.order == "feistel":
                numbers[here] = order.feistel(self.seed, epoch, len(self.index), within[here])
            else:
                numbers[here] = self._sorted(self.seed, epoch, len(self.index))[within[here]]
        return numbers

    def places(self, step: int) -> np.ndarray:
        """Places in the stream of this rank's share of global batch `step`: what per-sample randomness is drawn from."""
        return positions(step, self.global_batch_size, self.rank, self.world_size)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Read this rank's share of global batch `step`.

        Returns:
            input and target, float32 (batch, channels, mels, frames) from -1 (floor) to 1 (ceiling), on the device.
        """
        if self.resident is not None:
            numbers = torch.from_numpy(self.samples(self.places(step)))
            if self.device.type == "cuda":  # else the host would wait for the device, to copy the numbers
                numbers = numbers.pin_memory().to(self.device, non_blocking=True)
            scaled = to_network(self.resident.index_select(0, numbers).float(), self.low, self.high)
        elif self._pinned is not None:
            pairs = self._pinned.on_device(self._ahead.take(step, self._reading(step)))
            self._ahead.begin(step + 1, self._reading(step + 1))
            scaled = to_network(pairs.float(), self.low, self.high)
        else:
            scaled = self._ahead.take(step, self._reading(step)).to(self.device)
            self._ahead.begin(step + 1, self._reading(step + 1))
        return scaled[:, 0], scaled[:, 1]

    def _reading(self, step: int) -> Callable[[], torch.Tensor]:
        def read() -> torch.Tensor:
            numbers = self.samples(self.places(step))
            return self._scaled.read(numbers) if self._pinned is None else self._pinned.read(numbers)

        return read

    def keys_digest(self, step: int) -> str:
        """Digest of the global batch, 12 hexadecimal digits: the same samples in the same order, for any world size."""
        numbers = self.samples(positions(step, self.global_batch_size))
        keys = "\n".join(map(self.index.samples.key, numbers.tolist()))
        return hashlib.sha256(keys.encode()).hexdigest()[:12]


class _Scaled:
    """Reads batches that are scaled for the networks.

    One sample at a time, so that most of its way is in the processor's cache; into memory that is used again, since to get new
    memory from the kernel takes longer than all the rest.
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
        """float32 (batch, 2, channels, mels, frames), the same bits as those of `to_network`."""
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
        """An array for a batch: one of two whose batch nobody has any more, else a new one.

        Each time it is another view of the same memory, which lives as long as a tensor of it is anywhere.
        """
        place = next((n for n, user in enumerate(self._users) if user() is None), len(self._users))
        if place == 2:
            return np.empty(self._shape, np.float32)
        if place == len(self._memory):
            self._memory.append(np.empty(self._shape, np.float32))
        view = self._memory[place].view()
        self._users[place:] = [weakref.ref(view), *self._users[place + 1 :]]
        return view


class _Pinned:
    """Reads batches as they are stored into pinned memory, from which a GPU copies by itself."""

    def __init__(self, index: Index, shape: tuple[int, ...], device: torch.device) -> None:
        self._index, self._device, self._turn = index, device, 0
        dtype = torch.from_numpy(np.empty(0, index.dtype)).dtype
        self._memory = [torch.empty(shape, dtype=dtype, pin_memory=True) for _ in range(2)]
        self._copied = [torch.cuda.Event() for _ in range(2)]

    def read(self, numbers: np.ndarray) -> torch.Tensor:
        """(batch, 2, channels, mels, frames), one of two, taken in turns; waits until the device has copied what was in it."""
        self._turn = 1 - self._turn
        with torch.cuda.device(self._device):  # that of this thread would be the first one
            self._copied[self._turn].synchronize()
        for _ in self._index.read_into(self._memory[self._turn].numpy(), numbers):
            pass
        return self._memory[self._turn]

    def on_device(self, batch: torch.Tensor) -> torch.Tensor:
        """What was read last, on the device."""
        copied = batch.to(self._device, non_blocking=True)
        self._copied[self._turn].record(torch.cuda.current_stream(self._device))
        return copied


def to_network(db: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Scale dB from `low` .. `high` to -1 .. 1, the range of the networks. For the thesis's -80 .. 0 this is x / 40 + 1."""
    return (db - low) * (2 / (high - low)) - 1


def from_network(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """The inverse of `to_network`."""
    return (values + 1) * ((high - low) / 2) + low
