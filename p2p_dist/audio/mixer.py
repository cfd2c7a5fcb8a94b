"""Add up stems that are read in blocks, and keep only the sums, with what is measured of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from p2p_dist.settings.config import STEMS

FULL_SCALE = 32767 / 32768
"""Samples that reach it count as clipped."""

_FORETOLD = 1 << 28  # values for which a header's word is taken; room for more is made when they come


@dataclass
class Sum:
    """The sum of several stems of a song.

    sound: float32 (samples, channels), a view of memory laid out channel by channel; (samples, 1) where only the mean of
        the channels was asked for. What follows is of all channels.
    peak: the largest absolute value. clipped: samples at full scale or over. power: mean square.
    filled: samples of silence added to its shortest stem. by_position: the file does not name its streams, so MUSDB18's
        order was assumed.
    """

    sound: np.ndarray
    peak: float
    clipped: int
    power: float
    filled: int = 0
    by_position: bool = False


class _Total:
    """A sum that is filled block by block. Each block is measured and stored while it is in the cache."""

    def __init__(self, downmix: bool) -> None:
        self.downmix = downmix
        self.memory = np.empty((0, 0), np.float32)
        self.channels, self.peak, self.clipped, self.power = 0, 0.0, 0, 0.0

    def reserve(self, channels: int, samples: int) -> None:
        """Allocate memory, planar: each channel is contiguous. Pages are used only when they are written."""
        old, self.channels = self.memory, channels
        self.memory = np.empty((1 if self.downmix else channels, samples), np.float32)
        if old.size:
            self.memory[:, : old.shape[1]] = old

    def add(self, sound: np.ndarray) -> None:
        """Measure the next samples, (channels, samples)."""
        for channel in sound:
            self.power += float(np.dot(channel, channel))
        peak = max(float(sound.max()), -float(sound.min()))
        if peak >= FULL_SCALE:
            self.clipped += int((np.abs(sound) >= FULL_SCALE).sum())
        self.peak = max(self.peak, peak)

    def keep(self, sound: np.ndarray, begin: int) -> None:
        """Store the block."""
        self.memory[:, begin : begin + sound.shape[1]] = mean_of(sound) if self.downmix else sound

    def finish(self, samples: int, kept: int) -> Sum:
        return Sum(self.memory[:, :kept].T, self.peak, self.clipped, self.power / (samples * self.channels))


class Mixer:
    """Sums of stems that are read in pieces of different lengths; stems are added in the order of `STEMS`."""

    def __init__(self, sums: Sequence[Sequence[str]], downmix: bool, part: tuple[int, int] | None) -> None:
        self.sums = [[stem for stem in STEMS if stem in set(part)] for part in sums]
        self.totals = [_Total(downmix) for _ in sums]
        self.names = [stem for stem in STEMS if any(stem in part for part in self.sums)]
        self.pending: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        self.lengths = dict.fromkeys(self.names, 0)
        self.channels = self.room = self.mixed = 0
        self.part, self.kept = part, (0, sys.maxsize)

    def expect(self, rate: int, channels: int, samples: int) -> None:
        """Allocate memory for the length in the headers, which may be wrong."""
        if self.part is not None:
            self.kept = (self.part[0] * rate, self.part[1] * rate)
        self._reserve(channels, min(samples, _FORETOLD // channels, self.kept[1] - self.kept[0]))

    def _reserve(self, channels: int, samples: int) -> None:
        self.channels, self.room = channels, samples
        for total in self.totals:
            total.reserve(channels, samples)

    def take(self, name: str, piece: np.ndarray) -> None:
        """Add the next block of a stem, (channels, samples), to the sums as far as all stems have been read."""
        self.pending[name].append(piece)
        self.lengths[name] += piece.shape[1]
        while all(self.pending.values()):
            samples = min(pieces[0].shape[1] for pieces in self.pending.values())
            parts = {}
            for stem, pieces in self.pending.items():
                first = pieces.pop(0)
                parts[stem] = first[:, :samples]
                if first.shape[1] > samples:
                    pieces.insert(0, first[:, samples:])
            self._mix(parts, samples)

    def fill(self, most: int) -> dict[str, int]:
        """Pad stems that are at most so many samples too short with silence; return the added samples by stem."""
        longest = max(self.lengths.values())
        missing = {name: longest - length for name, length in self.lengths.items()}
        if max(missing.values()) > most:
            return dict.fromkeys(self.names, 0)
        for name, samples in missing.items():
            if samples:
                self.take(name, np.zeros((self.channels, samples), np.float32))
        return missing

    def _mix(self, parts: dict[str, np.ndarray], samples: int) -> None:
        begin, end = (min(max(place, self.kept[0]), self.kept[1]) for place in (self.mixed, self.mixed + samples))
        if end - self.kept[0] > self.room:
            self._reserve(self.channels, (end - self.kept[0]) * 9 // 8)
        for total, (first, *others) in zip(self.totals, self.sums, strict=True):
            sound = parts[first]
            for number, name in enumerate(others):
                sound = np.add(sound, parts[name], out=sound if number else None)
            total.add(sound)
            if begin < end:
                total.keep(sound[:, begin - self.mixed : end - self.mixed], begin - self.kept[0])
        self.mixed += samples


def mean_of(sound: np.ndarray) -> np.ndarray:
    """The mean of channels, (channels, samples) to float32 (samples,): the same bits however the memory is laid out."""
    if len(sound) == 1:
        return sound[0]
    total = sound[0] + sound[1]
    for channel in sound[2:]:
        total += channel
    total /= np.float32(len(sound))
    return total


def side_of(sound: np.ndarray) -> np.ndarray:
    """Half the difference of two channels, (2, samples) to float32 (samples,)."""
    half = np.subtract(sound[0], sound[1])
    half *= np.float32(0.5)
    return half
