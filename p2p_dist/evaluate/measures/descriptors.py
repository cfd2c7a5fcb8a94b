"""Measure how far a set of stems is from real stems, by 41 descriptors of each window.

It ignores which song a window is from, and its timing: about 0 for real drums of the same songs, about 40 for real drums of a
few other songs and for drums of a General MIDI sound font, over 200 for noise.
It complements the measures of timing, on which noise can score well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from p2p_dist.evaluate.measures import onsets

SIZE = 41
"""Numbers that describe a window."""

ENOUGH = 200
"""Windows of the measured stems from which on the distance is certain enough to count in a score."""

_LAGS = (1, 2, 3, 5, 8, 12, 16, 20, 24, 32, 40, 60, 80)  # frames of 23.2 ms
_SCALES = (0.5, 1.0, 2.0, 4.0)
_FLOOR = -60.0
_FEWEST = 8


def describe(power: np.ndarray) -> np.ndarray:
    """Spectrum, attacks, rhythm and dynamics of one window of a stem.

    Args:
        power: mel power (64, frames), as `onsets.mel` gives it.

    Returns:
        (41,): 16 of the mean spectrum in dB under its peak; for the low, mid and high band the spread, number and mean of
        its onsets; 13 of the envelope's autocorrelation; 3 of the frame level.
    """
    spectrum = onsets.decibels(power.mean(axis=1))
    shape = np.maximum(spectrum - spectrum.max(), _FLOOR).reshape(16, -1).mean(axis=1)
    attacks: list[float] = []
    for mels in onsets.bands().values():
        rise = onsets.envelope(power, mels)
        attacks += [rise.std() / max(rise.mean(), 1e-9), len(onsets.peaks(rise)), rise.mean()]
    rise = onsets.envelope(power)
    rise = rise - rise.mean()
    energy = max(float(rise @ rise), 1e-12)
    rhythm = [20 * float(rise[lag:] @ rise[:-lag]) / energy for lag in _LAGS]
    level = onsets.decibels(power.sum(axis=0))
    level = level - level.max()
    dynamics = [20 * float((level < -30).mean()), 20 * float((level < -15).mean()), float(np.maximum(level, _FLOOR).mean())]
    return np.concatenate((shape, attacks, rhythm, dynamics))


Kernels = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Kernel sums: generated with generated, real with real, generated with real."""


def too_few(made: int, real: int) -> str | None:
    """Return why there is no distance if there are too few windows; it would be mostly noise."""
    if min(made, real) >= _FEWEST:
        return None
    return f"too few windows: it needs {_FEWEST}, the stems have {made}, the true stems {real}"


def in_words(about: Mapping[str, Any] | None) -> str:
    """Say what the distance compares, how far true stems of other songs are by it, and whether it counts.

    Args:
        about: see `about_songs`; None: an earlier version measured it.
    """
    if about is None:
        return (
            "The distance was measured by an earlier version, with the true stems of the excerpts alone; it is uncertain, is "
            "marked ≈ and does not count in the score."
        )
    said = (
        f"The distance compares {about['windows']} windows of the stems with the {about['real']} windows of the whole true "
        f"stems of the same {about['songs']} songs"
    )
    said = re.sub(r"\b1 (window|song)s", r"1 \1", said)
    if about.get("others") is not None:
        said += f"; the true stems of one half of these songs are at {about['others']:.2f} from those of the other half"
    elif about.get("floor") is not None:
        said += (
            f"; the true stems in those {about['windows']} windows are at {about['floor']:.2f}, which is some points too low, "
            "because an earlier version compared windows with themselves"
        )
    said += "."
    if is_certain(about):
        return said
    return (
        f"{said} With fewer than {ENOUGH} windows it is uncertain (the standard error is about 20 with 25), is marked ≈ and "
        "does not count in the score; more or longer excerpts make it certain (--evaluate.songs, --evaluate.seconds 0)."
    )


def is_certain(about: Mapping[str, Any] | None) -> bool:
    """Whether the distance is of enough windows to count, see `in_words`."""
    return about is not None and about["windows"] >= ENOUGH


def about_songs(measured: list[np.ndarray], real: list[np.ndarray]) -> dict[str, Any]:
    """Return the numbers of songs, of windows of the measured stems and of the real set, and `others`: how far real music of
    other songs is.

    Args:
        measured, real: for each song the descriptors of its true stem, (windows, 41): in the measured windows, in all.
    """
    return {
        "songs": len(real),
        "windows": sum(map(len, measured)),
        "real": sum(map(len, real)),
        "others": distance_of_others(measured, real),
    }


def distance_of_others(measured: list[np.ndarray], real: list[np.ndarray]) -> float | None:
    """Return the mean distance of the true stems of one half of the songs from those of the other half.

    A window is not compared with itself: not even with its own song, of which a set of stems has the true stem to be compared
    with. So stems that fit their songs can be nearer than this. With an odd number of songs the second half is the larger
    one. All halves of consecutive songs, in a circle, are averaged.

    Returns:
        None if no half has enough windows.
    """
    if len(real) < 2 or not min(sum(map(len, measured)), sum(map(len, real))):
        return None
    between = kernels(np.concatenate(measured), np.concatenate(real))
    of_measured, of_real = (np.repeat(np.arange(len(part)), list(map(len, part))) for part in (measured, real))
    found = []
    for first in range(len(real)):
        half = (first + np.arange(len(real) // 2)) % len(real)
        rows, columns = np.flatnonzero(np.isin(of_measured, half)), np.flatnonzero(~np.isin(of_real, half))
        if too_few(len(rows), len(columns)) is None:
            found.append(estimate(between, rows, columns))
    return float(np.mean(found)) if found else None


def kernels(made: np.ndarray, real: np.ndarray) -> Kernels:
    """Compute the kernel between all windows: the sum of exp(-D / s) for s = 0.5, 1, 2, 4; D is the mean squared difference.

    Descriptors are standardised by the real ones (standard deviation + 0.3).

    Args:
        made, real: (windows, 41).
    """
    mean, spread = real.mean(axis=0), real.std(axis=0) + 0.3
    a, b = (made - mean) / spread, (real - mean) / spread

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        apart = np.maximum((x**2).mean(axis=1)[:, None] + (y**2).mean(axis=1) - 2 * (x @ y.T) / x.shape[1], 0)
        return np.sum([np.exp(-apart / scale) for scale in _SCALES], axis=0)

    return kernel(a, a), kernel(b, b), kernel(a, b)


def estimate(between: Kernels, made: np.ndarray, real: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3), times 100, of the given windows.

    A window is not compared with itself, so the value may be slightly below 0 if the two sets are alike.

    Args:
        made, real: indices of windows without repetition, at least two of each.
    """

    def among(values: np.ndarray, chosen: np.ndarray) -> float:
        return float(values[np.ix_(chosen, chosen)][~np.eye(len(chosen), dtype=bool)].mean())

    within_made, within_real, across = between
    return 100 * (among(within_made, made) + among(within_real, real) - 2 * float(across[np.ix_(made, real)].mean()))


def distance_of_songs(made: Sequence[Sequence[np.ndarray | None]], real: list[np.ndarray]) -> tuple[float, list[float]] | str:
    """Return the distance of one generation of all songs to the real stems, and the list of distances with one song left
    out; or the reason why there is none.

    A song is left out of both sets. For a single song, windows of the generation are left out instead. The list is empty if
    fewer than two windows would be left.

    Args:
        made: for each song, the descriptors of each window, None if the stem is silent. real: for each song, those of all
            windows of its whole true stem, (windows, 41).
    """
    counted = [[described for described in song if described is not None] for song in made]
    if (why := too_few(sum(map(len, counted)), sum(map(len, real)))) is not None:
        return why
    between = kernels(np.array([d for song in counted for d in song]), np.concatenate(real))
    # The song of each row; for a single song, a number for each of its windows.
    one_song = len(counted) == 1
    of_made = np.arange(len(counted[0])) if one_song else np.repeat(np.arange(len(counted)), [len(song) for song in counted])
    of_real = np.full(len(real[0]), -1) if one_song else np.repeat(np.arange(len(real)), [len(song) for song in real])

    def without_one(left_out: int | None) -> float | None:
        rows = np.flatnonzero(of_made != left_out), np.flatnonzero(of_real != left_out)
        return None if min(map(len, rows)) < 2 else estimate(between, *rows)

    value = without_one(None)
    assert value is not None
    without = [without_one(int(n)) for n in (of_made if one_song else np.union1d(of_made, of_real))]
    known = [one for one in without if one is not None]
    return value, known if len(known) == len(without) else []
