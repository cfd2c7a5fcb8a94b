"""Sketch a drum stem: choose strokes from predicted activations, and lay real strokes at their times.

The generator paints the stem from the sketch; the sketch alone is already a stem.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import scipy.ndimage

from p2p_dist.audio.beats import Beats
from p2p_dist.audio.drum_classes import CLASSES, REST, Onset, check_finite
from p2p_dist.audio.pattern_features import FRAME, beat_positions
from p2p_dist.audio.stems import resample
from p2p_dist.audio.strokes import (
    BEFORE,
    RATE,
    WINDOW,
    Kit,
    Stroke,
    frame_powers,
    level_of_windows,
    strokes_of_windows,
)
from p2p_dist.data.augment import random_for
from p2p_dist.settings.config import Model

DENSITY = 0.95
"""Strokes, relative to the median of the training songs."""

LOUDEST = 0.25
"""Share of a kit's strokes, the loudest, that play predicted onsets: the network predicts mainly clear strokes."""

SOFT_DB = 18.0
"""Soft hats are this many dB quieter than the other strokes."""

_SOFT = 0.35  # soft hats, relative to the number of other times
_REPEATS, _BAR, _OTHER_BEATS = 32, 4, 0.25  # beats on either side; beats in a bar; weight of beats not whole bars away
_SECTION = 4  # stretches of six seconds: shares of classes in shorter ones were less like those of real drums
_APART = 5  # frames around a peak without a higher one: 58 ms in all
_SLACK = 2  # frames by which the peak of a class may be beside that of all
_STRAIGHT, _SWUNG = (3, 9), (2, 4, 8, 10)  # twelfths of a beat that sixteenths have alone, and triplets
_TWICE = 2.0  # times as high as those of sixteenths that the activations of triplets are in a song of triplets
_LATE = 0.003  # seconds behind the steps of their beats at which `drum_classes.onsets` finds strokes, also those of a bank
_SOFTEST = 0.1  # strength
_NEAREST = 4  # strokes of like strength, of which one is drawn
_CHOKE = 0.03  # seconds in which a stroke ends where the next of its class begins
_HAT = CLASSES.index("hat")
_REST = 0.5  # probability of a rest over which nothing is played


def choose_strokes(
    activations: np.ndarray,
    rates: Sequence[float] | np.ndarray,
    beats: Beats | None,
    model: Model,
    density: float = DENSITY,
) -> list[Onset]:
    """Choose the strokes to play, with the settings of a model, see `repeated` and `pick`.

    Args:
        activations: of `model.pattern.predict`, (len(CLASSES) + 1, frames). rates: `Bank.rates`. density: factor of these.
        beats: beats of the song, None if there are none.

    Returns:
        strokes in order of time.
    """
    if model.repeat_pattern and beats is not None:
        activations = repeated(activations, beats)
    steps = beats if model.on_steps else None
    return pick(activations, rates, density, steps, even_classes=model.even_classes, soft_hats=model.soft_hats)


def repeated(activations: np.ndarray, beats: Beats) -> np.ndarray:
    """Average the activations of each beat with those of the 32 beats on either side, mainly those whole bars of four away.

    Drums repeat, and a network that hears a beat with the music in it knows less of it than of all such beats together. Rests
    stay where they are, and count for no other beat.

    Args:
        activations: of `model.pattern.predict`, (len(CLASSES) + 1, frames).

    Returns:
        the same shape.
    """
    check_finite(activations)
    times = np.arange(activations.shape[1]) * FRAME
    places = beat_positions(beats, times)
    awake = (activations[REST] < _REST).astype(activations.dtype)
    curves = np.stack([*activations[:REST] * awake, awake])
    sums = np.zeros_like(curves)
    for away in range(-_REPEATS, _REPEATS + 1):
        weight = 1.0 if away % _BAR == 0 else _OTHER_BEATS
        there = np.interp(places + away, places, times, left=np.nan, right=np.nan)
        sums += weight * np.stack([np.nan_to_num(np.interp(there, times, curve)) for curve in curves])
    averages = sums[:REST] / np.maximum(sums[REST], 1e-9)
    return np.concatenate([averages, activations[REST:]])


def pick(
    activations: np.ndarray,
    rates: Sequence[float] | np.ndarray,
    density: float = DENSITY,
    beats: Beats | None = None,
    *,
    even_classes: bool = True,
    soft_hats: bool = False,
) -> list[Onset]:
    """Choose the times of strokes where all activations together are highest, then the classes that play at each.

    Times are finer than a frame. In each stretch of six seconds as many are chosen as give the rate of the training songs,
    less where there are rests: a network that is surer of one section than of another must not leave the other empty.

    Args:
        activations: of `model.pattern.predict`, (len(CLASSES) + 1, frames) with frames of `pattern_features.FRAME` seconds.
        rates: `Bank.rates`. density: factor of these.
        beats: strokes are on their steps, see `_steps`; None: at any peak of the activations.
        even_classes: each class has its share of the strokes in every 24 seconds; False: only in the whole song, so that a
            section may have no kick.
        soft_hats: add soft hats, a third as many as the other times, where the activations are next highest.

    Returns:
        strokes in order of time.

    Raises:
        ValueError: see `drum_classes.check_finite`.
    """
    check_finite(activations)
    awake = activations[REST] < _REST
    curves = activations[:REST] * awake
    total = curves.sum(axis=0)
    (frames, times), size = _peaks(total) if beats is None else _steps(total, beats), round(WINDOW / FRAME)
    picked: list[int] = []
    softly: list[int] = []
    begins: list[int] = []  # of the sections among those picked
    for n, begin in enumerate(range(0, len(total), size)):
        if n % _SECTION == 0:
            begins.append(len(picked))
        number = round(density * rates[-1] * FRAME * int(awake[begin : begin + size].sum()))
        here = np.flatnonzero((frames >= begin) & (frames < begin + size))
        picked += sorted(here[:number], key=times.__getitem__)
        softly += here[number : number + round(_SOFT * number)].tolist() if soft_hats else []
    if not picked:
        return []
    heights = scipy.ndimage.maximum_filter1d(curves, 2 * _SLACK + 1, axis=1)
    near = heights[:, frames[picked]]
    parts = np.split(near, begins[1:], axis=1) if even_classes else [near]
    plays = np.concatenate([_classes(part, rates) for part in parts if part.shape[1]], axis=1)
    tops = np.maximum(np.percentile(near, 95, axis=1), 1e-6)
    found: list[Onset] = []
    for column, time in enumerate(times[picked].tolist()):
        for row in np.flatnonzero(plays[:, column]):
            strength = float(np.clip(near[row, column] / tops[row], _SOFTEST, 1))
            found.append(Onset(time, CLASSES[row], strength))
    hats = np.clip(heights[_HAT, frames[softly]] / tops[_HAT], _SOFTEST, 1)
    found += [
        Onset(time, CLASSES[_HAT], height, True) for time, height in zip(times[softly].tolist(), hats.tolist(), strict=True)
    ]
    return sorted(found, key=lambda onset: onset.time)


def _classes(near: np.ndarray, rates: Sequence[float] | np.ndarray) -> np.ndarray:
    """Choose which classes play at each time, bool (len(CLASSES), times): one at least, each as often as in training songs.

    If a class is to play n times, its activations are divided by the n-th highest of them. The times with the highest results
    come first: at each, the class with the highest result plays, unless it has played n times already. Then further classes
    play with them, the highest results first, until there are as many strokes as in training songs.

    Args:
        near: activations at these times, (len(CLASSES), times). rates: `Bank.rates`.
    """
    times = near.shape[1]
    often = np.clip(times * np.asarray(rates[:-1]) / max(rates[-1], 1e-9), 0, times)
    last = np.maximum(np.rint(often).astype(int), 1) - 1
    share = near / np.maximum(-np.sort(-near, axis=1)[np.arange(REST), last], 1e-9)[:, None] * (often > 0)[:, None]
    left = often * max(times / max(often.sum(), 1e-9), 1)
    plays = np.zeros(share.shape, bool)
    for column in np.argsort(-share.max(axis=0), kind="stable"):
        best = int(np.where(left > 0, share[:, column], -1).argmax())
        plays[best, column] = True
        left[best] -= 1
    together = round(float(often.sum())) - times
    if together > 0:
        others = np.where(plays, 0, share)
        plays |= others >= max(np.sort(others, axis=None)[-together], 1e-9)
    return plays


def _peaks(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames of the peaks of a curve, the highest first, and their times in seconds; each (peaks,)."""
    peaks = np.flatnonzero((curve == scipy.ndimage.maximum_filter1d(curve, _APART)) & (curve > 0))
    peaks = peaks[(peaks > 0) & (peaks < len(curve) - 1)]
    peaks = peaks[np.argsort(-curve[peaks], kind="stable")]
    return peaks, np.array([(peak + _between(*curve[peak - 1 : peak + 2])) * FRAME for peak in peaks])


def _steps(curve: np.ndarray, beats: Beats) -> tuple[np.ndarray, np.ndarray]:
    """Frames of the steps of a song's beats, those where a curve is highest first, and times of strokes there; each (steps,).

    Steps are sixteenth notes, or those of triplets of eighth notes where the curve is far higher at these.
    """
    if not curve.any():
        return np.empty(0, np.int64), np.empty(0)
    seconds = np.arange(len(curve)) * FRAME
    on = beats.times(len(curve) * FRAME)
    twelfth = beats.lengths(on) / 12
    straight, swung = (
        max(float(np.interp(on + place * twelfth, seconds, curve).sum()) for place in places) for places in (_STRAIGHT, _SWUNG)
    )
    times = beats.times(len(curve) * FRAME, 6 if swung > _TWICE * straight else 4)
    frames = np.rint(times / FRAME).astype(np.int64)
    times, frames = times[frames < len(curve)], frames[frames < len(curve)]
    heights = scipy.ndimage.maximum_filter1d(curve, 2 * _SLACK + 1)[frames]
    order = np.argsort(-heights, kind="stable")[: int((heights > 0).sum())]
    return frames[order], times[order] + _LATE


def _between(left: float, middle: float, right: float) -> float:
    """Frames from a peak to the vertex of the parabola through it and its neighbours."""
    bend = left - 2 * middle + right
    return float(0.5 * (left - right) / bend) if bend < 0 else 0.0


class Sketch:
    """A stem of strokes, of which any part can be made; parts do not depend on where they are cut.

    Args:
        onsets: in order of time. kit: whose strokes are played; a class without strokes is left out, as are soft strokes of it.
            rate: samples a second.
        level: of the stem where it plays, dB: `strokes.input_level` of the input plus `Bank.offset`.
        seed: decides which strokes of like strength are played. among: share of the kit's strokes to choose from, the
            loudest; soft strokes use all.
    """

    def __init__(self, onsets: Sequence[Onset], kit: Kit, rate: int, level: float, seed: int = 0, among: float = 1.0) -> None:
        self.rate = rate
        random = random_for("sketch", seed)
        sounds: dict[str, list[np.ndarray]] = {
            kind: [resample(stroke.sound, RATE, rate) for stroke in strokes] for kind, strokes in kit.strokes.items()
        }
        orders = {kind: np.argsort([-s.strength for s in strokes], kind="stable") for kind, strokes in kit.strokes.items()}
        energies = {kind: [float(frame_powers(s.sound, RATE).sum()) for s in strokes] for kind, strokes in kit.strokes.items()}
        places: list[tuple[int, np.ndarray, int]] = []  # first sample, sound, sample at which it is choked
        starts: list[float] = []  # of the strokes that set the level: soft ones do not
        windows = np.zeros(1 + int(max((onset.time for onset in onsets), default=0) // WINDOW))
        softly = np.float32(10 ** (-SOFT_DB / 20))
        for soft, kind in itertools.product((False, True), CLASSES):  # soft ones last: they change nothing for the others
            strokes = kit.strokes.get(kind, [])
            played = [onset for onset in onsets if onset.kind == kind and onset.soft == soft]
            if not strokes or not played:
                continue
            ranks = np.argsort(np.argsort([-onset.strength for onset in played], kind="stable"), kind="stable")
            begins = [round((onset.time - BEFORE) * rate) for onset in played]
            for n, onset in enumerate(played):
                number = _choose(strokes, orders[kind], (1.0 if soft else among) * ranks[n] / len(played), random)
                sound = sounds[kind][number]
                end = begins[n + 1] if n + 1 < len(played) else begins[n] + len(sound)
                places.append((begins[n], softly * sound if soft else sound, end))
                if not soft:
                    windows[int(max(onset.time, 0) // WINDOW)] += energies[kind][number]
                    starts.append(begins[n] / rate)
        times = np.unique(starts)
        places.sort(key=lambda place: place[0])
        self.places = places
        self.longest = max((len(sound) for _, sound, _ in places), default=0)
        self.begins = np.array([place[0] for place in places], np.int64)
        # The level of the strokes as if none hid another.
        self.gain = np.float32(
            10 ** ((level - level_of_windows(windows / (WINDOW / FRAME), strokes_of_windows(times))) / 20) if places else 0.0
        )

    def part(self, begin: int, end: int) -> np.ndarray:
        """Return the samples from `begin` to before `end`, float32 (end - begin,)."""
        result = np.zeros(end - begin, np.float32)
        first, last = np.searchsorted(self.begins, (begin - self.longest, end))
        fade = round(_CHOKE * self.rate)
        for start, sound, choked in self.places[first:last]:
            if choked - start + fade < len(sound):
                sound = sound[: choked - start + fade].copy()
                sound[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
            a, b = max(start, begin), min(start + len(sound), end)
            if a < b:
                result[a - begin : b - begin] += self.gain * sound[a - start : b - start]
        return result


def _choose(strokes: Sequence[Stroke], order: np.ndarray, rank: float, random: np.random.Generator) -> int:
    """Return the number of a stroke of about the same rank in strength, 0 (loudest) to 1."""
    begin = int(np.clip(round(rank * len(strokes) - _NEAREST / 2), 0, max(len(strokes) - _NEAREST, 0)))
    return int(random.choice(order[begin : begin + _NEAREST]))


def lay(
    onsets: Sequence[Onset], kit: Kit, samples: int, rate: int, level: float, seed: int = 0, among: float = 1.0
) -> np.ndarray:
    """Return a whole sketch, float32 (samples,), mono. See `Sketch`, whose parts need less memory."""
    return Sketch(onsets, kit, rate, level, seed, among).part(0, samples)
