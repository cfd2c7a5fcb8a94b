"""Means over songs and generations, and their confidence intervals: a jackknife over songs, or over windows of one song.

The level is the median over songs, because one song whose stem is missing would decide a mean. The jackknife is not valid for
a median (Miller 1974), so its interval is that of the sign test, which lies between two songs; it needs six songs.

A bootstrap over songs draws some of them twice. The distance then compares songs with themselves, so its resamples are not
centred on it, and it can lie outside their quantiles. Leaving out one song at a time avoids this, and for
means over songs it gives Student's interval, which is right for few songs too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special

from p2p_dist.evaluate.measures.kinds import OfSongs, Row
from p2p_dist.evaluate.measures.measure import Measured, combine
from p2p_dist.evaluate.measures.table import MEASURES, why_absent

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Average:
    """Means over songs, their 95 % confidence intervals, and the reasons for missing ones."""

    mean: Row
    interval: dict[str, tuple[float, float]]
    absent: dict[str, str]


def of_generations(measured: list[Measured]) -> tuple[Row, dict[str, str]]:
    """Average one song's rows over several generations; values that are None are ignored."""
    row: Row = {}
    absent: dict[str, str] = {}
    for name in MEASURES:
        values = [value for one in measured if (value := one.row.get(name)) is not None]
        row[name] = float(np.mean(values)) if values else None
        if not values and (name in measured[0].absent or name not in measured[0].row):
            absent[name] = why_absent(name, measured[0].row, measured[0].absent)
    return row, absent


def over_songs(name: str, values: Sequence[float]) -> float | None:
    """Return the mean over songs, or their median for a measure with `median`; None if there is no value."""
    if not values:
        return None
    return float(np.median(values) if MEASURES[name].median else np.mean(values))


def average(songs: list[list[Measured]], real: list[np.ndarray]) -> Average:
    """Average over songs.

    Args:
        songs: the generations of each song. real: descriptors of the whole true stem of each song, (windows, 41).
    """
    rows = [of_generations(generations) for generations in songs]
    generations = [[song[n] for song in songs] for n in range(min((len(song) for song in songs), default=0))]
    mean: Row = {}
    interval: dict[str, tuple[float, float]] = {}
    absent: dict[str, str] = {}
    for name, measure in MEASURES.items():
        values = [value for row, _ in rows if (value := row[name]) is not None]
        mean[name] = over_songs(name, values)
        if not values:
            absent[name] = next((why[name] for _, why in rows if name in why), "there is no song")
        elif measure.median:
            if (between := sign_test(values)) is not None:
                interval[name] = between
        elif len(values) > 1:
            without = [np.mean(np.delete(values, n)) for n in range(len(values))]
            interval[name] = jackknife(float(np.mean(values)), without, measure.limits)
        if isinstance(measure.computed, OfSongs) and generations:
            each = [measure.computed.compute([song.described for song in one], real) for one in generations]
            if not isinstance(each[0], str):
                known = [one for one in each if not isinstance(one, str)]
                mean[name] = value = float(np.mean([whole for whole, _ in known]))
                absent.pop(name, None)
                # For a single song, windows are left out; a generation that is silent in some has fewer.
                if len({len(left) for _, left in known}) == 1 and len(known[0][1]) > 1:
                    over_generations = [np.mean(values) for values in zip(*(left for _, left in known), strict=True)]
                    interval[name] = jackknife(value, over_generations, measure.limits)
            elif name not in songs[0][0].absent:
                absent[name] = each[0]
    if len(songs) == 1:
        interval |= over_windows(songs[0])
    return Average(mean, interval, absent)


def sign_test(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the confidence interval of a median, which lies between two of the values; None for fewer than six of them.

    It is from the value of a place in their order to that of the same place from the end: fewer heads than the place, in as
    many throws of a coin, are less likely than half of what the confidence leaves (scipy.stats.quantile_test).
    """
    fewer = scipy.special.bdtr(np.arange(len(values)), len(values), 0.5)
    place = int(np.searchsorted(fewer, (1 - CONFIDENCE) / 2))
    ordered = sorted(values)
    return (ordered[place - 1], ordered[-place]) if place else None


def jackknife(
    value: float, without: Sequence[float | np.floating], limits: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float]:
    """Return the 95 % confidence interval of a value, from the values with one song, or window, left out.

    It is centred on the value; its width follows from the jackknife's standard error and Student's t (Efron and Tibshirani
    1993, eq. 11.5). For a mean this is Student's interval. It is clipped to the limits of the measure.
    """
    count = len(without)
    error = np.sqrt((count - 1) * np.var(np.array(without)))
    half = float(scipy.special.stdtrit(count - 1, 0.5 + CONFIDENCE / 2) * error)
    return max(value - half, limits[0]), min(value + half, limits[1])


def over_windows(generations: list[Measured]) -> dict[str, tuple[float, float]]:
    """Return the intervals of a single song's measures, from its windows; empty for a single window."""
    count = len(generations[0].windows)
    if count < 2:
        return {}

    def mean_of(chosen: list[int]) -> Row:
        rows = [combine([one.windows[window] for window in chosen]) for one in generations]
        values = {name: [value for row in rows if (value := row[name]) is not None] for name in rows[0]}
        return {name: float(np.mean(of)) if of else None for name, of in values.items()}

    whole = mean_of(list(range(count)))
    without = [mean_of([n for n in range(count) if n != left_out]) for left_out in range(count)]
    intervals = {}
    for name, value in whole.items():
        values = [v for row in without if (v := row[name]) is not None]
        if value is not None and len(values) == count:
            intervals[name] = jackknife(value, values, MEASURES[name].limits)
    return intervals
