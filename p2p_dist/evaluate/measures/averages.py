"""Means over songs and generations, and how sure they are: a jackknife over songs (over windows where there is one song).

A bootstrap over songs draws some of them twice. The distance then compares songs with themselves, so its resamples are not
centred on it, and it can lie outside of their quantiles. To leave out one song at a time does not have this fault, and for
means over songs it gives Student's interval, which is right for few songs too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from p2p_dist.evaluate.measures import descriptors
from p2p_dist.evaluate.measures.metrics import MEASURES, Measured, Row, combine

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Average:
    """Means over songs of what could be measured, their 95 % confidence intervals, and why others are absent."""

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
            without = [np.mean(np.delete(values, n)) for n in range(len(values))]
            interval[name] = jackknife(float(np.mean(values)), without, MEASURES[name].limits)
    generations = [[song[n] for song in songs] for n in range(min((len(song) for song in songs), default=0))]
    distances = [distance([song.described for song in one], real) for one in generations]
    if distances and not isinstance(distances[0], str):
        found = [one for one in distances if not isinstance(one, str)]
        mean["mmd"] = value = float(np.mean([whole for whole, _ in found]))
        absent.pop("mmd", None)
        if all(len(without) > 1 for _, without in found):
            interval["mmd"] = jackknife(value, [np.mean(values) for values in zip(*(w for _, w in found), strict=True)])
    elif distances and "mmd" not in songs[0][0].absent:
        absent["mmd"] = str(distances[0])
    if len(songs) == 1:
        interval |= over_windows(songs[0])
    return Average(mean, interval, absent)


def jackknife(
    value: float, without: Sequence[float | np.floating], limits: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float]:
    """The 95 % confidence interval of a value from the values without each one of its songs, or windows.

    Its middle is the value, its width that of the jackknife's standard error under Student's t (Efron and Tibshirani 1993,
    eq. 11.5). Where the value is a mean, it is Student's interval. What lies outside of the limits is cut off.
    """
    count = len(without)
    error = np.sqrt((count - 1) * np.var(np.array(without)))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1) * error)
    return max(value - half, limits[0]), min(value + half, limits[1])


def over_windows(generations: list[Measured]) -> dict[str, tuple[float, float]]:
    """The intervals of a single song's measures, from its windows; none where there is only one.

    None of the level either: it is a median, of which a jackknife tells nothing (Miller 1974).
    """
    count = len(generations[0].parts)
    if count < 2:
        return {}

    def mean_of(chosen: list[int]) -> Row:
        rows = [combine([one.parts[window] for window in chosen]) for one in generations]
        values = {name: [value for row in rows if (value := row[name]) is not None] for name in rows[0]}
        return {name: float(np.mean(of)) if of else None for name, of in values.items()}

    whole = mean_of(list(range(count)))
    without = [mean_of([n for n in range(count) if n != left_out]) for left_out in range(count)]
    found = {}
    for name, value in whole.items():
        values = [v for row in without if (v := row[name]) is not None]
        if name != "level_error" and value is not None and len(values) == count:
            found[name] = jackknife(value, values, MEASURES[name].limits)
    return found


def distance(made: Sequence[Sequence[np.ndarray | None]], real: list[np.ndarray]) -> tuple[float, list[float]] | str:
    """The distance of one generation of all songs to the real stems, and the same without each song; or why there is none.

    Of one song it is without each window instead. What would leave fewer than two windows is no distance: then the list is
    empty, and so where there is nothing to leave out.

    Args:
        made: of each song the descriptors of each window, None where the stem is silent. real: of each song (windows, 41).
    """
    counted = [[described for described in song if described is not None] for song in made]
    if (why := descriptors.too_few(sum(map(len, counted)), sum(map(len, real)))) is not None:
        return why
    kernels = descriptors.kernels(np.array([d for song in counted for d in song]), np.concatenate(real))
    # Which song, or window of one song, each row belongs to.
    if len(counted) > 1:
        of_made = np.repeat(np.arange(len(counted)), [len(song) for song in counted])
        of_real = np.repeat(np.arange(len(real)), [len(song) for song in real])
    else:
        of_made = np.array([n for n, described in enumerate(made[0]) if described is not None])
        of_real = np.arange(len(real[0]))

    def estimate(left_out: int | None) -> float | None:
        rows = np.flatnonzero(of_made != left_out), np.flatnonzero(of_real != left_out)
        return None if min(map(len, rows)) < 2 else descriptors.estimate(kernels, *rows)

    value = estimate(None)
    assert value is not None
    without = [estimate(n) for n in np.union1d(of_made, of_real)]
    known = [one for one in without if one is not None]
    return value, known if len(known) == len(without) else []
