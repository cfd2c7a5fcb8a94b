"""Hand the generator its guides in training: for each window a part of one of its song's sketches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from p2p_dist.data import guides
from p2p_dist.data.guides import Guides, to_guide
from p2p_dist.data.prefetch import Prefetcher
from p2p_dist.data.stream import Stream
from p2p_dist.settings.config import Config
from p2p_dist.train.seeding import number_from


class Guided:
    """The guides for the batches of a stream. A thread reads those of the next batch in advance.

    Which variant a window gets follows from the seed and its position in the stream: it is the same for any world size and
    after any resume, and another one in the next epoch.
    """

    def __init__(self, guides: Guides, stream: Stream, config: Config) -> None:
        self.guides, self.stream, self.config = guides, stream, config
        self._prefetcher: Prefetcher[torch.Tensor] = Prefetcher()

    def batch(self, step: int) -> torch.Tensor:
        """Return the guides for this rank's share of global batch `step`, (batch, guide_channels, mels, frames)."""
        device = self.stream.device
        guide = self._prefetcher.result(step, self._reading(step)).to(device, non_blocking=device.type == "cuda")
        self._prefetcher.start(step + 1, self._reading(step + 1))
        return guide

    def _reading(self, step: int) -> Callable[[], torch.Tensor]:
        positions = self.stream.positions(step)
        return lambda: self.at(positions, self.stream.samples(positions))

    def at(self, positions: np.ndarray, numbers: np.ndarray) -> torch.Tensor:
        """Return the guides of the samples `numbers` at these positions of the stream, on the host."""
        data, train, found = self.config.data, self.config.train, []
        variants = self.guides.variants if train.predicted_strokes else guides.TRUE  # earlier versions made all
        for position, number in zip(positions.tolist(), numbers.tolist(), strict=True):
            song, _, window = self.stream.index.samples.key(number).rpartition("-")
            variant = number_from("guide", train.seed, position) % variants
            rows = self.guides.read(song, variant, int(window) * data.window_hop, data.frames)
            found.append(to_guide(rows, data.mels, self.config.model))
        guide = torch.from_numpy(np.stack(found))
        return guide.pin_memory() if self.stream.device.type == "cuda" else guide
