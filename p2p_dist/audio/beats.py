"""Estimate the tempo of a whole song and the positions of its beats.

The tempo is found with a comb filter on the spectrum of an onset envelope: for each tempo, the strength at its beat frequency
and simple multiples. Where sections of a song differ, the comb's peak may lie a tenth of a beat a minute beside its tempo: the
attacks decide, and a whole number of beats a minute is preferred. Phase and tempo are then fitted to the attacks on the
quarters of a beat. Some instruments sound up to 30 ms after the beat and none before it, so a beat is placed at the earliest of
them.

The tempo is assumed constant, unless another explains the attacks far better (audio/drift.py): then all this is done in a time
in which it is, and the beats are taken back to the song's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage

from p2p_dist.audio.attacks import FINE, RATE, attack_times
from p2p_dist.audio.drift import Straight, line, straightened

_TEMPOS = np.arange(60, 200, 0.005)  # beats a minute
_TEETH = {1.0: 1.0, 2.0: 0.6, 4.0: 0.4, 0.5: 0.3, 3.0: -0.3}  # multiple of the beat frequency -> weight
_USUAL, _WIDTH = 120.0, 0.9  # beats a minute, octaves: a log-normal prior
_COMMON, _RARE = (80.0, 180.0), 0.6  # beats a minute of most songs; what the strength of other tempos counts
_LENGTH = 1 << 21  # samples of the padded spectrum: 0.0012 beats a minute apart at 43 frames a second
_OCTAVES, _NEAR, _TYPED = (0.5, 1.0, 2.0), 0.03, 0.005
_PEAKS, _APART = 6, 0.01
_RATIOS = (3 / 4, 4 / 3, 2.0, 0.5)
_SEARCH = 0.25  # frames from one phase to the next
_SPREAD, _BACK = 45, 40  # ms around the beat in which attacks are counted, and that the first instrument may be before the most
_WIDTH_MS, _SHARE = 4.0, 0.35  # ms: smoothing of the count; share of the highest count that the first instrument has
_ON, _FITS, _FEWEST = 0.012, 2, 8  # seconds around the beat of what is fitted; fits; attacks that a fit needs
_BESIDE, _FINE = 0.0015, 0.025  # share by which a tempo may lie beside the comb's; beats in the whole song from one to the next
_SHARP = 0.008  # seconds, width of what counts as on the quarters of a beat, or as the same place after them
_WHOLE, _AS_GOOD = 0.06, 0.95  # seconds in the whole song by which a whole tempo may be off; share of the attacks it must meet


def drums_late(window: float) -> float:
    """Return by how many seconds the attacks of drums are found late, with a window of so many seconds."""
    return 0.005 - 0.3 * window


DRUMS_LATE = drums_late(FINE.n_fft / RATE)
MUSIC_LATE = DRUMS_LATE + 0.003
"""Seconds by which the attacks of drums, and of music without drums, are found late. Learnt on training songs, where composed
songs have exact times of the drums; tests/benchmarks/beats.py prints them."""

SLOWEST, FASTEST = 30.0, 300.0
"""Beats a minute that may be asked for."""


@dataclass(frozen=True)
class Beats:
    """The beats of a song. bpm: beats per minute. first: time of the first beat, seconds, less than one beat.

    others: what else the beats may be, the likeliest first: half a beat on, and other tempos.
    at: of a song whose tempo drifts, the times of consecutive beats, from before its start to behind its end; the tempo between
        two is constant, and `bpm` the mean. Empty where the tempo is constant.
    """

    bpm: float
    first: float
    others: tuple[Beats, ...] = field(default=(), compare=False, repr=False)
    at: tuple[float, ...] = field(default=(), repr=False)

    def times(self, seconds: float, per_beat: int = 1) -> np.ndarray:
        """Return the times of all beats before `seconds`, each divided into `per_beat` equal steps (2: eighth notes)."""
        if self.at:
            begin, end = self._numbers(np.array([0.0, seconds])) * per_beat
            found = self._at(np.arange(np.floor(begin), np.ceil(end) + 1) / per_beat)
            return found[(found >= 0) & (found < seconds)]
        step = 60 / self.bpm / per_beat
        begin = self.first - step * np.floor(self.first / step)
        return np.arange(begin, seconds, step)

    def lengths(self, times: np.ndarray) -> np.ndarray:
        """Return how long the beats are that begin at these times, seconds."""
        return self._at(self._numbers(times) + 1) - times if self.at else np.full(len(times), 60 / self.bpm)

    def moved(self, beats: float) -> Beats:
        """Return the same tempo with the first beat this number of beats later."""
        if self.at:
            return drifting(self.bpm, self._at(np.arange(-1, len(self.at)) + beats % 1))
        beat = 60 / self.bpm
        return Beats(self.bpm, (self.first + beats * beat) % beat)

    def since(self, seconds: float) -> Beats:
        """Return the same beats, in seconds from a later start."""
        if self.at:
            return drifting(self.bpm, np.array(self.at) - seconds)
        return Beats(self.bpm, (self.first - seconds) % (60 / self.bpm))

    def tempos(self) -> tuple[float, float]:
        """Return the slowest and the fastest tempo, beats a minute."""
        if self.at:
            tempos = 60 / np.diff(self.at)
            return float(tempos.min()), float(tempos.max())
        return self.bpm, self.bpm

    def _numbers(self, times: np.ndarray) -> np.ndarray:
        """Return the number of beats from the first of `at` to each time."""
        return line(times, np.array(self.at), np.arange(float(len(self.at))))

    def _at(self, numbers: np.ndarray) -> np.ndarray:
        return line(numbers, np.arange(float(len(self.at))), np.array(self.at))


def drifting(bpm: float, at: np.ndarray) -> Beats:
    """Return beats at these times, see `Beats.at`."""
    beats = Beats(bpm, 0.0, at=tuple(at.tolist()))
    behind = max(at[-1], 0) + 2 * (at[-1] - at[-2])  # of a song that begins behind the last of them, too
    return replace(beats, first=float(beats.times(behind)[0]))


def track_beats(
    rise: np.ndarray,
    frame: float,
    *,
    attack: tuple[np.ndarray, np.ndarray] | None = None,
    late: float = MUSIC_LATE,
    region: float | None = None,
    bpm: float | None = None,
    first: float | None = None,
    half_beat: bool = False,
) -> Beats | None:
    """Estimate tempo and beats from an onset envelope of a whole song.

    Args:
        rise: (frames,); frame k is the rise from k - 1 to k. frame: seconds per frame.
        attack: times and strengths of attacks, from finer frames; from `rise` if not given.
        late: seconds by which attacks are found late.
        region: a tempo that the song has up to 3 % and the octave (`audio/tempo.py`), which chooses among those of the comb.
        bpm: the tempo, if it is known; the nearest that the song has, within half a percent.
        first: the time of any beat, if it is known, in seconds.
        half_beat: move the beats by half a beat, where what was found is the off-beat.

    Returns:
        None if there are no onsets and no tempo is given.

    Raises:
        ValueError: `bpm` or `first` can't be.
    """
    if bpm is not None and not SLOWEST <= bpm <= FASTEST:
        raise ValueError(f"a tempo of {bpm:g} beats a minute: give one from {SLOWEST:g} to {FASTEST:g}")
    if first is not None and not 0 <= first < np.inf:
        raise ValueError(f"a beat at {first:g} s: give the time of one from the song's start, 0 or more")
    score = _score(rise, frame)
    if score is None:
        return None if bpm is None else Beats(bpm, 0.0 if first is None else first).moved(0.5 * half_beat)
    if attack is None:
        attack = attack_times(rise, frame)
    seconds = len(rise) * frame
    # Whether a song drifts is decided by what is heard, whatever is said of its beats.
    heard = _settled(rise, frame, attack, _choose(score, region), late)
    straight = straightened(attack, heard.bpm, seconds)
    if straight is None:
        return _steady(rise, frame, score, attack, late, region, bpm, first, half_beat)
    rise = _straight_rise(rise, frame, straight)
    score = _score(rise, frame)
    assert score is not None, "a song with onsets"
    attack = straight.to_steady(attack[0]), attack[1]
    if first is not None:
        first = float(straight.to_steady(np.array([first]))[0])
    found = _steady(rise, frame, score, attack, late, region, bpm, first, half_beat)
    return replace(_back(found, straight), others=tuple(_back(other, straight) for other in found.others))


def _straight_rise(rise: np.ndarray, frame: float, straight: Straight) -> np.ndarray:
    """Return the onset envelope of a song in its steady time."""
    frames = round(float(straight.to_steady(np.array([len(rise) * frame]))[0]) / frame)
    return np.interp(straight.to_song(np.arange(frames) * frame) / frame, np.arange(len(rise)), rise)


def _back(beats: Beats, straight: Straight) -> Beats:
    """Return beats of the steady time at their times in the song."""
    beat = 60 / beats.bpm
    count = int((straight.steady[-1] - beats.first) / beat)
    return drifting(beats.bpm, straight.to_song(beats.first + np.arange(-1, count + 2) * beat))


def _steady(
    rise: np.ndarray,
    frame: float,
    score: np.ndarray,
    attack: tuple[np.ndarray, np.ndarray],
    late: float,
    region: float | None,
    bpm: float | None,
    first: float | None,
    half_beat: bool,
) -> Beats:
    """Return the beats of a song of constant tempo, and what else they may be. Args: see `track_beats` and `_score`."""
    chosen = _choose(score, region) if bpm is None else _nearest(score, bpm, _TYPED)
    found = _settled(rise, frame, attack, chosen, late)
    if first is not None:
        found = Beats(found.bpm, first).moved(0)
    if half_beat:
        found = found.moved(0.5)
    seconds, others = len(rise) * frame, [found.moved(0.5)]
    for tempo in _alternatives(score, chosen, seconds):
        other = _settled(rise, frame, attack, tempo, late)
        if _is_another(other.bpm, [one.bpm for one in others], seconds):
            others.append(other)
    return Beats(found.bpm, found.first, tuple(others))


def options(beats: Beats, *, half_beat: bool = False) -> list[str]:
    """Return what to type for each of the other beats, in the same order: `--half-beat`, `--bpm 99.01`.

    Args:
        half_beat: the beats were moved by half a beat already.
    """
    back = "--no-half-beat" if half_beat else "--half-beat"
    return [back if abs(other.bpm / beats.bpm - 1) < _APART / 2 else f"--bpm {other.bpm:.2f}" for other in beats.others]


def told_tempo(tempo: Mapping[str, Any]) -> str:
    """Describe a tempo in SONG.json, see `schemas.GENERATED`: `120.0 beats a minute`, or the range of one that drifts."""
    if "range" not in tempo:
        return f"{tempo['bpm']:.1f} beats a minute"
    slowest, fastest = tempo["range"]
    return f"{slowest:.1f} to {fastest:.1f} beats a minute: it drifts, and is followed"


def words(beats: Beats, begin: float = 0.0, *, half_beat: bool = False) -> str:
    """Describe beats and alternatives in one line.

    Args:
        begin: seconds of the song from which the beats are counted. half_beat: see `options`.
    """
    slowest, fastest = beats.tempos()
    tempo = f"{slowest:.2f} to {fastest:.2f}" if beats.at else f"{beats.bpm:.2f}"
    told = f"{tempo} beats a minute, a beat at {begin + beats.first:.3f} s"
    if not beats.others:
        return told
    half, *tempos = options(beats, half_beat=half_beat)
    other = f"; at another tempo: {', '.join(tempos)}" if tempos else ""
    return f"{told}; if the song's beats are between these: {half}{other}"


def _score(rise: np.ndarray, frame: float) -> np.ndarray | None:
    """Return how well each of `_TEMPOS` fits; None if there are no onsets."""
    flat = rise - scipy.ndimage.uniform_filter1d(rise, 43) if len(rise) else np.zeros(1)
    if flat.std() < 1e-9:
        return None
    flat = np.clip(flat, -2 * flat.std(), 4 * flat.std())
    strength = np.abs(scipy.fft.rfft(flat, max(_LENGTH, scipy.fft.next_fast_len(len(flat)))))
    per_hertz = (2 * len(strength) - 2) * frame
    score = np.zeros(len(_TEMPOS))
    for multiple, weight in _TEETH.items():
        score += weight * strength[np.rint(_TEMPOS / 60 * multiple * per_hertz).astype(np.int64)]
    score *= np.exp(-0.5 * (np.log2(_TEMPOS / _USUAL) / _WIDTH) ** 2)
    low, high = _COMMON
    score[np.clip(_TEMPOS, low, high) != _TEMPOS] *= _RARE
    return score


def _choose(score: np.ndarray, region: float | None) -> float:
    """Return the tempo that fits best, of those within 3 % of `region`, its half or its double if there are any."""
    near = np.zeros(len(_TEMPOS), bool)
    if region is not None:
        for octave in _OCTAVES:
            near |= abs(_TEMPOS / (region * octave) - 1) < _NEAR
    if not near.any():
        near[:] = True
    return float(_TEMPOS[near][score[near].argmax()])


def _nearest(score: np.ndarray, bpm: float, share: float) -> float:
    """Return the tempo that fits best within a share of `bpm`, if it is a peak there; else `bpm`."""
    near = np.flatnonzero(abs(_TEMPOS / bpm - 1) <= share)
    if not len(near):
        return bpm
    best = int(near[score[near].argmax()])
    return float(_TEMPOS[best]) if near[0] < best < near[-1] else bpm


def _is_another(bpm: float, others: list[float], seconds: float) -> bool:
    """Whether a tempo differs from all others by 1 %, and by a beat in a song of so many seconds."""
    apart = max(_APART, 60 / (bpm * seconds))
    return all(abs(bpm / other - 1) >= apart for other in others)


def _alternatives(score: np.ndarray, chosen: float, seconds: float) -> list[float]:
    """Return other tempos: the comb's highest peaks, then simple ratios of the chosen one; see `_is_another`.

    Of a short song the comb is a few broad peaks, whose sides are no other tempos.
    """
    found = [chosen]
    width = max(_APART * chosen, 60 / seconds) / (_TEMPOS[1] - _TEMPOS[0])
    tops = np.flatnonzero(score == scipy.ndimage.maximum_filter1d(score, 2 * round(width / 2) + 1))
    for tempo in _TEMPOS[tops[np.argsort(-score[tops], kind="stable")]].tolist():
        if len(found) <= _PEAKS and _is_another(tempo, found, seconds):
            found.append(tempo)
    for ratio in _RATIOS:
        tempo = chosen * ratio
        if _TEMPOS[0] <= tempo <= _TEMPOS[-1] and _is_another(tempo, found, seconds):
            found.append(_nearest(score, tempo, _TYPED))
    return found[1:]


def _settled(rise: np.ndarray, frame: float, attack: tuple[np.ndarray, np.ndarray], bpm: float, late: float) -> Beats:
    """Return the beats beside a tempo of the comb on whose quarters most attacks are, preferably at a whole tempo.

    Of 57 songs and excerpts 49 have a whole number of beats a minute, as sequencers have unless told otherwise.
    """
    seconds = len(rise) * frame

    def met(beats: Beats) -> float:
        step = 15 / beats.bpm
        off = (attack[0] - beats.first - late + step / 2) % step - step / 2
        return float((attack[1] * np.exp(-0.5 * (off / _SHARP) ** 2)).sum())

    def met_anywhere(beats: Beats) -> float:
        bins = round(15000 / beats.bpm)  # of a millisecond
        count = np.bincount((attack[0] * beats.bpm / 15 % 1 * bins).astype(np.int64), attack[1], bins)
        return float(scipy.ndimage.gaussian_filter1d(count, 1000 * _SHARP, mode="wrap").max())

    tempos = (bpm, _coherent(attack, bpm, seconds))
    best = max((_placed(rise, frame, attack, tempo, late) for tempo in tempos), key=met)
    whole = float(round(best.bpm))
    if abs(whole / best.bpm - 1) * seconds < _WHOLE:
        placed = _placed(rise, frame, attack, whole, late, fits=0)
        # Most attacks may be those of an instrument that speaks late, to which a fit is drawn and a whole tempo is not.
        if met_anywhere(placed) >= _AS_GOOD * met_anywhere(best):
            return placed
    return best


def _coherent(attack: tuple[np.ndarray, np.ndarray], bpm: float, seconds: float) -> float:
    """Return the tempo beside `bpm` with which attacks repeat best: on beats, half beats and quarters, wherever these begin."""
    tempos = bpm * (1 + np.arange(-_BESIDE, _BESIDE, _FINE * 60 / bpm / seconds))
    times, strengths = attack
    total = np.zeros(len(tempos))
    for multiple in (1, 2, 4):
        turns = 2j * np.pi * multiple / 60 * times
        total += [abs((strengths * np.exp(tempo * turns)).sum()) for tempo in tempos]
    return float(tempos[total.argmax()])


def _placed(
    rise: np.ndarray, frame: float, attack: tuple[np.ndarray, np.ndarray], bpm: float, late: float, fits: int = _FITS
) -> Beats:
    """Return the beats of a tempo: those with the strongest envelope, fitted to the attacks near them.

    Args:
        fits: times that the tempo is fitted, too.
    """
    smooth = scipy.ndimage.gaussian_filter1d(rise.astype(np.float64), 1.0)
    beat = 60 / bpm / frame  # frames
    candidates = np.arange(0, beat, _SEARCH)
    beats = np.arange(int(len(rise) / beat))
    sums = np.interp(candidates[:, None] + beats * beat, np.arange(len(smooth)), smooth).sum(axis=1)
    first, period = (float(candidates[int(sums.argmax())]) - 0.5) * frame, 60 / bpm
    times, strengths = attack
    for _ in range(fits):
        first += _earliest_attack(times - first, strengths, period)
        off = (times - first + period / 8) % (period / 4) - period / 8
        on = abs(off) < _ON
        if on.sum() < _FEWEST:
            break
        middle = float(np.average(times[on], weights=strengths[on]))
        count = round((middle - first) / period)
        held = first + count * period  # the beat in the middle stays where it is
        period *= 1 + _slope(times[on] - middle, off[on], strengths[on])
        first = held - count * period
    first += _earliest_attack(times - first, strengths, period)
    return Beats(60 / period, (first - late) % period)


def _earliest_attack(times: np.ndarray, strengths: np.ndarray, period: float) -> float:
    """Return how long after a beat's quarter the first instrument that plays much sounds, in seconds.

    Args:
        times, strengths: of attacks, from any beat. period: seconds of a beat.
    """
    off = ((times + period / 8) % (period / 4) - period / 8) * 1000
    edges = np.arange(-_SPREAD - 0.5, _SPREAD + 1)
    count = scipy.ndimage.gaussian_filter1d(np.histogram(off, edges, weights=strengths)[0], _WIDTH_MS, mode="constant")
    most = int(count.argmax())
    if count[most] <= 0:
        return 0.0
    tops = np.flatnonzero((count[1:-1] >= count[:-2]) & (count[1:-1] > count[2:]) & (count[1:-1] >= _SHARE * count[most])) + 1
    tops = tops[(tops >= most - _BACK) & (tops <= most)]
    return float((tops[0] if len(tops) else most) - _SPREAD) / 1000


def _slope(times: np.ndarray, off: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted regression of what the attacks are off on time, seconds per second."""
    spread = float((weights * times**2).sum())
    return float((weights * times * (off - np.average(off, weights=weights))).sum()) / spread if spread > 0 else 0.0
