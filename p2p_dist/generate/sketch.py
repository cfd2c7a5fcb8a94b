"""Sketch a drum stem: choose strokes from predicted activations, and lay real strokes at their times.

The generator paints the stem from the sketch; the sketch alone is already a stem.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.ndimage

from p2p_dist.audio.drum_classes import CLASSES, REST, Onset
from p2p_dist.audio.pattern_features import FRAME
from p2p_dist.audio.stems import resample
from p2p_dist.audio.strokes import BEFORE, RATE, WINDOW, Kit, Stroke, playing_level
from p2p_dist.data.augment import random_for

DENSITY = 0.9
"""Strokes, relative to the median of the training songs."""

_APART = 5  # frames, between two strokes of a class: 58 ms
_ONE_TIME = 0.025  # seconds within which strokes of several classes start together
_NEAREST = 4  # strokes of like strength, of which one is drawn
_GAIN = 6.0  # dB by which the strength of a stroke is changed at most
_CHOKE = 0.03  # seconds in which a stroke ends where the next of its class begins
_PAUSES = 0.5  # probability of a rest over which nothing is played


def pick(activations: np.ndarray, rates: Sequence[float] | np.ndarray, density: float = DENSITY) -> list[Onset]:
    """Choose strokes at the highest peaks of activations, in order of time. Times are finer than a frame.

    Args:
        activations: of `model.pattern.predict`, (len(CLASSES) + 1, frames) with frames of `pattern_features.FRAME` seconds.
        rates: strokes a second of each class, `Bank.rates`. density: factor of these.
    """
    plays = activations[REST] < _PAUSES
    seconds = float(plays.sum()) * FRAME
    found: list[Onset] = []
    for kind, curve, rate in zip(CLASSES, activations, rates, strict=False):
        curve = np.where(plays, curve, 0)
        peaks = np.flatnonzero((curve == scipy.ndimage.maximum_filter1d(curve, _APART)) & (curve > 0))
        peaks = peaks[(peaks > 0) & (peaks < len(curve) - 1)]
        chosen = peaks[np.argsort(-curve[peaks], kind="stable")][: round(density * rate * seconds)]
        top = float(np.percentile(curve[chosen], 95)) if len(chosen) else 1.0
        for frame in chosen:
            left, mid, right = (float(v) for v in curve[frame - 1 : frame + 2])
            bend = left - 2 * mid + right
            shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
            found.append(Onset((frame + shift) * FRAME, kind, min(mid / top, 1.0)))
    return together(sorted(found, key=lambda onset: (onset.time, onset.kind)))


def together(onsets: Sequence[Onset]) -> list[Onset]:
    """Give strokes of several classes that are at most 25 ms apart one time, the mean weighted by strength."""
    groups: list[list[Onset]] = []
    for onset in onsets:
        if groups and onset.time - groups[-1][0].time <= _ONE_TIME and onset.kind not in {o.kind for o in groups[-1]}:
            groups[-1].append(onset)
        else:
            groups.append([onset])
    found = []
    for group in groups:
        time = float(np.average([o.time for o in group], weights=[o.strength + 1e-6 for o in group]))
        found += [Onset(time, o.kind, o.strength) for o in group]
    return found


class Sketch:
    """A stem of strokes, of which any part can be made; parts do not depend on where they are cut.

    Args:
        onsets: in order of time. kit: whose strokes are played; a class without strokes is left out. rate: samples a second.
        level: of the stem where it plays, dB relative to full scale: `strokes.input_level` of the input plus `Bank.offset`.
        seed: decides which strokes of like strength are played.
    """

    def __init__(self, onsets: Sequence[Onset], kit: Kit, rate: int, level: float, seed: int = 0) -> None:
        self.rate = rate
        random = random_for("sketch", seed)
        sounds: dict[str, list[np.ndarray]] = {
            kind: [resample(stroke.sound, RATE, rate) for stroke in strokes] for kind, strokes in kit.strokes.items()
        }
        orders = {kind: np.argsort([-s.strength for s in strokes], kind="stable") for kind, strokes in kit.strokes.items()}
        places: list[tuple[int, np.ndarray, float, int]] = []  # first sample, sound, gain, sample at which it is choked
        for kind in CLASSES:
            strokes = kit.strokes.get(kind, [])
            played = [onset for onset in onsets if onset.kind == kind]
            if not strokes or not played:
                continue
            ranks = np.argsort(np.argsort([-onset.strength for onset in played], kind="stable"), kind="stable")
            begins = [round((onset.time - BEFORE) * rate) for onset in played]
            for n, onset in enumerate(played):
                number = _choose(strokes, orders[kind], ranks[n] / len(played), random)
                gain = _gain(onset.strength, strokes[number].strength)
                end = begins[n + 1] if n + 1 < len(played) else begins[n] + (1 << 40)
                places.append((begins[n], sounds[kind][number], gain, end))
        places.sort(key=lambda place: place[0])
        self.places = places
        self.longest = max((len(sound) for _, sound, _, _ in places), default=0)
        self.begins = np.array([place[0] for place in places], np.int64)
        self.gain = 10 ** ((level - self._level()) / 20) if places else 0.0

    def _level(self) -> float:
        """Level of the strokes, as if none hid another, dB."""
        size = round(WINDOW * self.rate)
        energies = np.array([float((sound**2).sum()) * gain**2 for _, sound, gain, _ in self.places])
        powers = np.bincount(np.maximum(self.begins, 0) // size, energies) / size
        return playing_level(powers)

    def part(self, begin: int, end: int) -> np.ndarray:
        """Return the samples from `begin` to before `end`, float32 (end - begin,)."""
        result = np.zeros(end - begin, np.float32)
        first, last = np.searchsorted(self.begins, (begin - self.longest, end))
        fade = round(_CHOKE * self.rate)
        for start, sound, gain, choked in self.places[first:last]:
            if choked - start + fade < len(sound):
                sound = sound[: choked - start + fade].copy()
                sound[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
            a, b = max(start, begin), min(start + len(sound), end)
            if a < b:
                result[a - begin : b - begin] += np.float32(gain * self.gain) * sound[a - start : b - start]
        return result


def _choose(strokes: Sequence[Stroke], order: np.ndarray, rank: float, random: np.random.Generator) -> int:
    """Return the number of a stroke of about the same rank in strength, 0 (loudest) to 1."""
    begin = int(np.clip(round(rank * len(strokes) - _NEAREST / 2), 0, max(len(strokes) - _NEAREST, 0)))
    return int(random.choice(order[begin : begin + _NEAREST]))


def _gain(wanted: float, there: float) -> float:
    limit = 10 ** (_GAIN / 20)
    return float(np.clip(wanted / max(there, 1e-3), 1 / limit, limit))


def lay(onsets: Sequence[Onset], kit: Kit, samples: int, rate: int, level: float, seed: int = 0) -> np.ndarray:
    """Return a whole sketch, float32 (samples,), mono. See `Sketch`, whose parts need less memory."""
    return Sketch(onsets, kit, rate, level, seed).part(0, samples)
