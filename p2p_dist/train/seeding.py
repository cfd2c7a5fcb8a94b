"""Derive all random numbers of a training from the seed and the step, so no random state needs to be saved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from p2p_dist.data.copies import Copies
from p2p_dist.data.prefetch import Prefetcher
from p2p_dist.data.stream import Stream


def number_from(*parts: int | str) -> int:
    """Derive a 63-bit seed from any number of values. Similar values give unrelated seeds."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def noise_at(positions: np.ndarray, seed: int, shape: tuple[int, ...], out: torch.Tensor | None = None) -> torch.Tensor:
    """Draw the noise of the samples at these positions of the stream, N(0, 1), (batch, *shape), on the host.

    It depends on the position only, so it is the same for any world size and after any resume. It is drawn on the host,
    because GPUs of different vendors draw different numbers from the same seed.

    Args:
        out: memory to write it to.
    """
    noise = torch.empty((len(positions), *shape)) if out is None else out
    random = torch.Generator()
    for row, position in zip(noise, positions, strict=True):
        random.manual_seed(number_from("noise", seed, int(position)))
        torch.randn(shape, generator=random, out=row)
    return noise


class Noise:
    """The noise for the batches of a stream. A thread draws the noise of the next batch in advance.

    Args:
        shape: (noise_channels, mels, frames). With 0 channels there is no noise.
    """

    def __init__(self, stream: Stream, seed: int, shape: tuple[int, ...]) -> None:
        self.stream, self.seed, self.shape = stream, seed, shape
        self._prefetcher: Prefetcher[torch.Tensor] = Prefetcher()
        self._copies = None
        if shape[0] and stream.device.type == "cuda":
            self._copies = Copies((len(stream.positions(0)), *shape), torch.float32, stream.device)

    def batch(self, step: int) -> torch.Tensor | None:
        """Return the noise for this rank's share of global batch `step`, (batch, *shape), on the device, or None."""
        if self.shape[0] == 0:
            return None
        drawn = self._prefetcher.result(step, self._drawing(step))
        noise = drawn.to(self.stream.device) if self._copies is None else self._copies.received(drawn)
        self._prefetcher.start(step + 1, self._drawing(step + 1))
        return noise

    def _drawing(self, step: int) -> Callable[[], torch.Tensor]:
        positions, copies = self.stream.positions(step), self._copies
        if copies is None:
            return lambda: noise_at(positions, self.seed, self.shape)

        def draw(pinned: torch.Tensor) -> None:
            noise_at(positions, self.seed, self.shape, pinned)

        return lambda: copies.send(draw)
