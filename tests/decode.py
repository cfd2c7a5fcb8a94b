"""Decode a song to its single stems, to compare with: the package itself keeps sums of stems only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from p2p_dist.audio.layouts import Source
from p2p_dist.audio.stems import load_sums
from p2p_dist.settings.config import STEMS


@dataclass(frozen=True)
class Song:
    """One song, decoded.

    stems: name -> float32 of shape (samples, channels), all of one length, rate and channel count; full scale is 1.
    """

    name: str
    sample_rate: int
    stems: dict[str, np.ndarray]

    def sum_of(self, names: Iterable[str]) -> np.ndarray:
        """The mix of the named stems, (samples, channels)."""
        parts = [self.stems[name] for name in names]
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        return total


def load(source: Source, stems: Iterable[str] = STEMS) -> Song:
    """Decode the named stems of one song, each by itself.

    Raises:
        ValueError: see `load_sums`.
    """
    wanted = set(stems)
    names = [stem for stem in STEMS if stem in wanted]
    rate, sums = load_sums(source, [(name,) for name in names])
    return Song(source.name, rate, {name: found.sound for name, found in zip(names, sums, strict=True)})
