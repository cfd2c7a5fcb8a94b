"""Means over songs and generations, and how sure they are: a bootstrap over songs (over windows where there is one song)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from p2p_dist.evaluate import descriptors
from p2p_dist.evaluate.metrics import MEASURES, Measured, Row, combine

RESAMPLES = 400
_SHARE = (0.025, 0.975)
_SEED = 20


@dataclass(frozen=True)
class Average:
    """Means over songs of what could be measured, intervals that hold 95 % of the resamples, and why others are absent."""

    mean: Row
    interval: dict[str, tuple[float, float]]
    absent: dict[str, str]


def of_generations(measured: list[Measured]) -> tuple[Row, dict[str, str]]:
    """One song's row over several generations: of each measure the mean of what could be measured."""
    row: Row = {}
    absent: dict[str, str] = {}
    for name in MEASURES:
        values = [value for one in measured if (value := one.row[name]) is not None]
        row[name] = float(np.mean(values)) if values else None
        if not values and name in measured[0].absent:
            absent[name] = measured[0].absent[name]
    return row, absent


def average(songs: list[list[Measured]], real: list[np.ndarray]) -> Average:
    """The mean over songs.

    Args:
        songs: of each song, its generations. real: descriptors of the true stem of each song, (windows, 41).
    """
    rows = [of_generations(generations) for generations in songs]
    mean: Row = {}
    interval: dict[str, tuple[float, float]] = {}
    absent: dict[str, str] = {}
    for name in MEASURES:
        values = [value for row, _ in rows if (value := row[name]) is not None]
        mean[name] = float(np.mean(values)) if values else None
        if not values:
            absent[name] = next((why[name] for _, why in rows if name in why), "there is no song")
        elif len(values) > 1:
            drawn = np.random.default_rng(_SEED).integers(len(values), size=(RESAMPLES, len(values)))
            interval[name] = _interval(list(np.array(values)[drawn].mean(axis=1)))
    distances = [_Distance([song[n] for song in songs], real) for n in range(min(len(song) for song in songs))]
    if distances and (why := distances[0].absent) is None:
        mean["mmd"] = float(np.mean([distance.value for distance in distances]))
        absent.pop("mmd", None)
        drawn_values = [np.mean(values) for values in zip(*(distance.resampled() for distance in distances), strict=True)]
        if len(drawn_values) > 1:
            interval["mmd"] = _interval([float(value) for value in drawn_values])
    elif distances and "mmd" not in songs[0][0].absent:
        absent["mmd"] = why or ""
    if len(songs) == 1:
        interval |= over_windows(songs[0])
    return Average(mean, interval, absent)


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, _SHARE)
    return float(low), float(high)


def over_windows(generations: list[Measured]) -> dict[str, tuple[float, float]]:
    """The intervals of a single song's measures, from its windows; none where there is only one."""
    count = len(generations[0].parts)
    if count < 2:
        return {}
    random = np.random.default_rng(_SEED)
    found: dict[str, list[float]] = {}
    for _ in range(RESAMPLES // 2):
        chosen = random.integers(count, size=count)
        rows = [combine([one.parts[window] for window in chosen]) for one in generations]
        for name in rows[0]:
            values = [value for row in rows if (value := row[name]) is not None]
            if values:
                found.setdefault(name, []).append(float(np.mean(values)))
    return {name: _interval(values) for name, values in found.items()}


class _Distance:
    """The distance of one generation of all songs to the real stems, and its resamples."""

    def __init__(self, songs: list[Measured], real: list[np.ndarray]) -> None:
        made = [[described for described in song.described if described is not None] for song in songs]
        self.made = [len(part) for part in made]
        self.real = [len(part) for part in real]
        self.absent = descriptors.too_few(sum(self.made), sum(self.real))
        if self.absent is None:
            self.kernels = descriptors.kernels(np.array([d for part in made for d in part]), np.concatenate(real))
            self.value = descriptors.estimate(self.kernels, np.arange(sum(self.made)), np.arange(sum(self.real)))

    def resampled(self) -> Iterator[float]:
        """The distance of songs drawn with replacement, made and real alike; of windows where there is one song."""
        random = np.random.default_rng(_SEED)
        groups = [_groups(self.made), _groups(self.real)]
        for _ in range(RESAMPLES // 2):
            if len(self.made) > 1:
                songs = random.integers(len(self.made), size=len(self.made))
                chosen = [np.concatenate([of[song] for song in songs]) for of in groups]
            else:
                chosen = [random.choice(of[0], len(of[0])) for of in groups]
            if min(len(np.unique(c)) for c in chosen) > 1:
                yield descriptors.estimate(self.kernels, *chosen)


def _groups(counts: list[int]) -> list[np.ndarray]:
    ends = np.cumsum(counts)
    return [np.arange(end - count, end) for count, end in zip(counts, ends, strict=True)]
