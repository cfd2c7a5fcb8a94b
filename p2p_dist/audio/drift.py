"""Follow the tempo of a song that was not played to a click: the map of its time to one in which its tempo is constant.

The song is cut into stretches of four beats. In each, the attacks tell how well every tempo near the song's fits with every
place in the beat. Viterbi's algorithm finds the best path through all stretches, where a change of tempo from one to the next
costs its square; a smooth line through the attacks near the path's quarters of a beat then replaces its steps.

A path is taken only if no constant tempo has most of its beats, too, and if it meets far more attacks: in songs with a click
instruments speak late by turns, and the path follows them by some ms. The constants were chosen with songs with a click, and
the same with their time bent; `tests/benchmarks/beats.py --drift` measures them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.ndimage

_STRETCH = 4  # beats
_PLACES = 48  # in a beat
_STEPS, _JUMP = 16, 4  # tempos to each side, each a place in a stretch apart (0.5 %), and how far one may jump at once
_COST = 0.3  # of a jump by one tempo, in strengths of a mean attack
_WIDTH = 0.014  # seconds: width of what counts as on a division of the beat
_DIVISIONS = (1, 2, 4)  # of a beat
_NEAR, _STIFF, _ROUNDS = 0.012, 1.0, 4  # seconds; weight of the bends beside the attacks; fits of the smooth line
_SHARP, _BESIDE = 0.008, 0.0015  # seconds, share of a tempo: as in audio/beats.py
_ON, _ALIKE, _BETTER = 25, 0.8, 1.3  # ms; share of the beats that a constant tempo has, too; times the attacks that it meets
_CHANCE = 2.0  # times the attacks that would be met if they were at random
_FEWEST = 4  # stretches, and attacks in a stretch


@dataclass(frozen=True)
class Straight:
    """Piecewise linear map between a song's time and one in which its tempo is constant, both in seconds, rising.

    Outside of the knots it goes on as at the nearest end.
    """

    song: np.ndarray
    steady: np.ndarray

    def to_steady(self, times: np.ndarray) -> np.ndarray:
        """Convert times of the song."""
        return line(times, self.song, self.steady)

    def to_song(self, times: np.ndarray) -> np.ndarray:
        """Convert times of the steady one."""
        return line(times, self.steady, self.song)


def line(x: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Interpolate linearly between values at rising places, and go on as at the nearest end."""
    part = np.clip(np.searchsorted(at, x, "right") - 1, 0, len(at) - 2)
    return np.asarray(values[part] + (x - at[part]) * (values[part + 1] - values[part]) / (at[part + 1] - at[part]))


def straightened(attack: tuple[np.ndarray, np.ndarray], bpm: float, seconds: float) -> Straight | None:
    """Return the map that makes a song's tempo constant; None where it is constant, as far as is heard.

    Args:
        attack: times and strengths of the attacks. bpm: the song's tempo, found as if it were constant. seconds: its length.
    """
    times, strengths = attack
    period = 60 / bpm
    count = int(np.ceil(seconds / (_STRETCH * period)))
    if count < _FEWEST or len(times) < _FEWEST * count:
        return None
    knots = np.arange(count + 1) * (_STRETCH * period)
    weights = strengths / strengths.mean()
    ahead = _smooth(times, weights, period, knots, _path(times, weights, period, count))
    song_beats = np.arange(0, seconds, period)
    if _together(song_beats, np.interp(song_beats, knots, ahead) * period, period, seconds) > _ALIKE:
        return None
    steady = knots + ahead * period
    if not (np.diff(steady) > 0).all():
        return None
    mean = (steady[-1] - steady[0]) / knots[-1]
    found = Straight(knots, (steady - steady[0]) / mean)
    least = max(_BETTER * _met(times, strengths, bpm, seconds), _CHANCE)
    return found if _met(found.to_steady(times), strengths, bpm * mean, seconds) >= least else None


def _together(times: np.ndarray, ahead: np.ndarray, period: float, seconds: float) -> float:
    """Return the largest share of a song's beats that are on the quarters of one constant tempo.

    Args:
        times: of the beats of a constant tempo. ahead: seconds by which the song is ahead of each.
    """
    quarter = period / 4
    bins = round(1000 * quarter)  # of a millisecond
    most, mean = 0.0, float(np.polynomial.Polynomial.fit(times, ahead, 1).convert().coef[1])
    for slope in (*_beside(seconds), *(mean + _beside(seconds))):
        place = (ahead - slope * times) % quarter / quarter * bins
        count = np.bincount(place.astype(np.int64) % bins, minlength=bins)
        most = max(most, float(scipy.ndimage.uniform_filter1d(count.astype(float), 2 * _ON + 1, mode="wrap").max()))
    return most * (2 * _ON + 1) / len(times)


def _beside(seconds: float) -> np.ndarray:
    """Return by which shares other tempos of a song may lie beside one, a few ms at its end apart."""
    return np.arange(-_BESIDE, _BESIDE, 0.01 / seconds)


def _path(times: np.ndarray, weights: np.ndarray, period: float, count: int) -> np.ndarray:
    """Return by how many beats the song is ahead of a constant tempo at the knots, (count + 1,)."""
    tempos = np.arange(-_STEPS, _STEPS + 1)
    scores = _scores(times, weights, period, count, tempos)
    best, jumps = np.zeros(scores.shape[1:]), np.zeros(scores.shape, np.int8)
    places = np.arange(_PLACES)
    ends = (places + tempos[:, None]) % _PLACES
    for number in range(count):
        total = best.copy()
        for jump in range(1, _JUMP + 1):
            cost = _COST * jump**2
            for sign in (1, -1):
                come = np.full_like(best, -np.inf)  # from the tempo `jump` above or below
                if sign > 0:
                    come[:-jump] = best[jump:] - cost
                else:
                    come[jump:] = best[:-jump] - cost
                better = come > total
                total[better], jumps[number][better] = come[better], sign * jump
        total += scores[number]
        best = np.empty_like(total)
        np.put_along_axis(best, ends, total, axis=1)
    tempo, place = (int(one) for one in np.unravel_index(best.argmax(), best.shape))
    path = []
    for number in range(count - 1, -1, -1):
        path.append(int(tempos[tempo]))
        place = (place - path[-1]) % _PLACES
        tempo += int(jumps[number][tempo, place])
    return (place + np.concatenate([[0], np.cumsum(path[::-1])])) / _PLACES


def _scores(times: np.ndarray, weights: np.ndarray, period: float, count: int, tempos: np.ndarray) -> np.ndarray:
    """Return how well the attacks of each stretch fit, (stretches, tempos, places at the stretch's begin)."""
    places = np.arange(_PLACES) / _PLACES
    near = np.zeros(_PLACES)
    for division in _DIVISIONS:
        off = ((places + 0.5 / division) % (1 / division) - 0.5 / division) * period
        near += np.exp(-0.5 * (off / _WIDTH) ** 2) / len(_DIVISIONS)
    kernel = np.fft.rfft(near)
    stretch = np.minimum((times / (_STRETCH * period)).astype(np.int64), count - 1)
    inside = times / (_STRETCH * period) - stretch
    scores = np.empty((count, len(tempos), _PLACES))
    for number, tempo in enumerate(tempos):
        at = _PLACES * times / period + tempo * inside
        whole = np.floor(at).astype(np.int64)
        part = at - whole
        held = np.bincount(stretch * _PLACES + whole % _PLACES, weights * (1 - part), count * _PLACES)
        held += np.bincount(stretch * _PLACES + (whole + 1) % _PLACES, weights * part, count * _PLACES)
        spectrum = np.fft.rfft(held.reshape(count, _PLACES), axis=1)
        scores[:, number] = np.fft.irfft(spectrum.conj() * kernel, _PLACES, axis=1)
    return scores


def _smooth(times: np.ndarray, weights: np.ndarray, period: float, knots: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Return a smooth line near the path: least squares of what the attacks are off the quarters, and of its bends."""
    part = np.clip(np.searchsorted(knots, times, "right") - 1, 0, len(knots) - 2)
    right = (times - knots[part]) / (knots[1] - knots[0])
    left = 1 - right
    bends = np.zeros((3, len(knots)))  # lower diagonals of the squared second differences
    for shift, one in enumerate((1, -2, 1)):
        for further, other in enumerate((1, -2, 1)[shift:]):
            bends[further, shift : len(knots) - 2 + shift] += _STIFF * one * other
    unit = _NEAR / period
    for _ in range(_ROUNDS):
        there = ahead[part] * left + ahead[part + 1] * right
        off = (times / period + there + 1 / 8) % (1 / 4) - 1 / 8
        weight = weights * np.exp(-0.5 * (off / unit) ** 2)
        wanted = there - off
        system = bends.copy()
        np.add.at(system[0], part, weight * left**2)
        np.add.at(system[0], part + 1, weight * right**2)
        np.add.at(system[1], part, weight * left * right)
        system[0] += 1e-6  # a song that ends in silence
        side = 1e-6 * ahead
        np.add.at(side, part, weight * left * wanted)
        np.add.at(side, part + 1, weight * right * wanted)
        ahead = scipy.linalg.solveh_banded(system, side, lower=True)
    return ahead


def _met(times: np.ndarray, strengths: np.ndarray, bpm: float, seconds: float) -> float:
    """Return the strength of the attacks that a constant tempo meets at its best, with its quarters anywhere.

    1 is that of as many attacks at random.
    """
    most = 0.0
    for tempo in bpm * (1 + _beside(seconds)):
        bins = round(15000 / tempo)  # of a millisecond
        count = np.bincount((times * tempo / 15 % 1 * bins).astype(np.int64) % bins, strengths, bins)
        most = max(most, float(scipy.ndimage.gaussian_filter1d(count, 1000 * _SHARP, mode="wrap").max()) * bins)
    return most / float(strengths.sum())
