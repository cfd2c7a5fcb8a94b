"""Find the strokes of a drum stem, each with its class, and turn them into curves for a network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from p2p_dist.audio.spectrogram import mel_filters, mel_power
from p2p_dist.audio.stems import resample

CLASSES = ("kick", "snare", "hat", "other")
"""Classes of strokes, in the order of activations. `other`: toms, and percussion with a pitch."""

REST = len(CLASSES)
"""The row of activations that is 1 while nothing plays."""

RATE, N_FFT, HOP, MELS, LOWEST = 22050, 512, 128, 64, 30.0
FRAME = HOP / RATE
"""Seconds of a frame of the analysis: 5.8 ms."""

_EDGES = (0.0, 150.0, 200.0, 1200.0, 1200.0, 4500.0, 5500.0, np.inf)
"""Hz, begin and end of the bands: low (the body of a kick), middle (of a snare or tom), noise (its wires), high (cymbals)."""
_RANGE = 60.0  # dB below the loudest frame of 6 s; what is quieter is silence. Of these below the loudest of the song, too
_RISE = 4  # frames over which a stroke rises: 23 ms
_SPACE = 11  # frames around an onset without a stronger one: 64 ms in all
_LEAST, _SHARE, _OVER = 1.5, 0.1, 1.25  # an onset's mean rise: dB, of the strongest in the song, and times that around it
_AROUND, _NEAR = 69, 1033  # frames: 0.4 s, 6 s
_BUMP, _LATE = 9.0, 6.0  # dB that a band rises in a stroke of its class; of a tail above what was before
_QUIET = 30.0  # dB below the loudest strokes of a band: quieter ones are of another class
_SILENT = 50.0  # dB below the loudest strokes of the song: quieter sounds are noise of the recording
_TAIL = (7, 14)  # frames after an onset in which wires still sound and the click of a kick does not
_FALL = 14.0  # dB by which wires fall until then
_BODY = 8.0  # dB by which the low band of a kick may lie under its middle
_BRIGHT = 6.0  # dB by which the high band of a cymbal lies over the noise of a snare, or more
_WIDTH = 0.02  # seconds, standard deviation of the bump of a stroke
_PAUSE = 2.0  # seconds without a stroke that are a rest
_EDGE = 0.5  # seconds of a rest that still belong to the stroke before or after it
_SEARCH, _STEP = 0.02, 22  # seconds around a stroke, and samples at RATE, in which its attack is looked for


@dataclass(frozen=True)
class Onset:
    """The beginning of a stroke. time: seconds. kind: one of `CLASSES`. strength: amplitude, 1 for the loudest of its kind.
    soft: it is played much softer than the others."""

    time: float
    kind: str
    strength: float
    soft: bool = False


def onsets(drums: np.ndarray, rate: int) -> list[Onset]:
    """Find the strokes of a drum stem, in order of time.

    Strokes of different classes can start together. Times are those of the attacks, to a few milliseconds.

    Args:
        drums: float32 (samples,), mono.
    """
    sound = resample(drums, rate, RATE)
    power = mel_power(sound, RATE, N_FFT, HOP, MELS, LOWEST)
    if power.shape[1] < _AROUND or not power.any():
        return []
    # The level of a song may change: quiet strokes count where loud ones are far.
    loudest = scipy.ndimage.maximum_filter1d(power.max(axis=0), _NEAR)
    floor = np.maximum(loudest, power.max() * 10 ** (-_RANGE / 10)) * 10 ** (-_RANGE / 10)
    frames = _peaks(_rise(10 * np.log10(np.maximum(power, floor))))
    centres = mel_filters(RATE, N_FFT, MELS, LOWEST).toarray().argmax(axis=1) * RATE / N_FFT
    parts = [power[(centres >= a) & (centres < b)].sum(axis=0) for a, b in zip(_EDGES[::2], _EDGES[1::2], strict=True)]
    bands = 10 * np.log10(np.maximum(np.stack(parts), floor))
    loud = _around(bands, frames, 0, 6, np.max).max(axis=0, initial=-np.inf)
    frames = frames[loud > 10 * np.log10(power.max()) - _SILENT]
    before, peak, tail = (_around(bands, frames, a, b, f) for a, b, f in ((-6, -1, np.min), (0, 6, np.max), (*_TAIL, np.mean)))
    up = peak - before > _BUMP
    tops = [np.percentile(one[which], 95) if which.any() else one.max(initial=0) for one, which in zip(peak, up, strict=True)]
    rises = up & (peak > np.array(tops)[:, None] - _QUIET)
    _, middle, noise, high = peak
    # The pitch of a kick may fall to its body from far above.
    body = _around(bands, frames, 0, _TAIL[1], np.max)[0]
    kick = (body - before[0] > _BUMP) & (body > tops[0] - _QUIET) & (tail[0] > tail[1] - _BODY)
    wires = (tail[2] - before[2] > _LATE) & (peak[2] - tail[2] < _FALL) & (tail[2] > tail[3] - _BRIGHT)
    snare = rises[2] & rises[1] & wires
    hat = rises[3] & ~snare & ((high > noise) | (tail[3] - before[3] > _LATE) & (peak[3] - tail[3] < _FALL))
    rest = ~kick & ~snare & ~hat
    hat |= rest & (high > middle)
    other = rest & ~hat
    attack = _steepness(sound)
    found = []
    for n, frame in enumerate(frames):
        time = _attack(attack, (frame + 1) * FRAME)
        for kind, is_it, band in zip(CLASSES, (kick, snare, hat, other), (0, 2, 3, 1), strict=True):
            if is_it[n]:
                found.append(Onset(time, kind, float(np.clip(10 ** ((peak[band, n] - tops[band]) / 20), 0.03, 1))))
    return found


def _rise(db: np.ndarray) -> np.ndarray:
    """Mean over the bands of the rise in dB, (frames,), from each frame to the fourth after it."""
    rise = np.zeros(db.shape[1])
    rise[:-_RISE] = np.maximum(db[:, _RISE:] - db[:, :-_RISE], 0).mean(axis=0)
    return scipy.ndimage.gaussian_filter1d(rise, 1.0)


def _peaks(rise: np.ndarray) -> np.ndarray:
    """Frames of the onsets."""
    usual = scipy.ndimage.uniform_filter1d(rise, _AROUND)
    strongest = np.percentile(rise[rise > _LEAST], 98) if (rise > _LEAST).any() else 0.0
    peaks = (rise == scipy.ndimage.maximum_filter1d(rise, _SPACE)) & (rise > max(_LEAST, _SHARE * strongest))
    return np.flatnonzero(peaks & (rise > _OVER * usual)) + 1


def _around(bands: np.ndarray, frames: np.ndarray, begin: int, end: int, of: Callable[..., np.ndarray]) -> np.ndarray:
    """Level of each band in the frames from `begin` to before `end` after each onset, (bands, onsets)."""
    at = np.clip(frames[:, None] + np.arange(begin, end), 0, bands.shape[1] - 1)
    return of(bands[:, at], axis=2)


def _steepness(sound: np.ndarray) -> np.ndarray:
    """Rise in dB of each millisecond's energy over the three before it, of low and high frequencies alike."""
    total = np.zeros(len(sound) // _STEP)
    for part in (sound, np.diff(sound, prepend=0)):
        energy = (part[: len(total) * _STEP].astype(np.float64).reshape(-1, _STEP) ** 2).sum(axis=1)
        db = 10 * np.log10(energy + 1e-6 * energy.max(initial=0) + 1e-12)
        before = np.full_like(db, db.min(initial=0))
        before[2:] = scipy.ndimage.maximum_filter1d(db, 3)[:-2]  # of the milliseconds 1 to 3 before
        total += np.maximum(db - before, 0)
    return total


def _attack(steepness: np.ndarray, seconds: float) -> float:
    """Return the time of the steepest rise near a stroke."""
    begin = max(round((seconds - _SEARCH) * RATE / _STEP), 0)
    near = steepness[begin : begin + round(2 * _SEARCH * RATE / _STEP)]
    return seconds if not len(near) else (begin + int(near.argmax())) * _STEP / RATE


def rests(onsets: Sequence[Onset], seconds: float) -> list[tuple[float, float]]:
    """Return begin and end, in seconds, of the stretches of a song in which no stroke sounds."""
    times = [-_EDGE, *(onset.time for onset in onsets), seconds + _EDGE]
    return [(before + _EDGE, after - _EDGE) for before, after in itertools.pairwise(times) if after - before > _PAUSE]


def activations(onsets: Sequence[Onset], frames: int, frame_seconds: float) -> np.ndarray:
    """Draw strokes as curves: a bump of the height of its strength for each, and 1 in the last row where nothing plays.

    Returns:
        float32 (len(CLASSES) + 1, frames). Frame k is at k * frame_seconds.
    """
    curves = np.zeros((len(CLASSES) + 1, frames), np.float32)
    reach = int(np.ceil(4 * _WIDTH / frame_seconds))
    for onset in onsets:
        centre = onset.time / frame_seconds
        at = np.arange(max(round(centre) - reach, 0), min(round(centre) + reach + 1, frames))
        bump = onset.strength * np.exp(-0.5 * ((at - centre) * frame_seconds / _WIDTH) ** 2)
        row = curves[CLASSES.index(onset.kind)]
        row[at] = np.maximum(row[at], bump)
    for begin, end in rests(onsets, frames * frame_seconds):
        curves[REST, max(round(begin / frame_seconds), 0) : round(end / frame_seconds)] = 1
    return curves


def check_finite(curves: np.ndarray) -> None:
    """Check activations that a network predicts, (len(CLASSES) + 1, frames).

    Raises:
        ValueError: they, or sums of them, are not finite. Weights that are finite but far too large can do this.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        together = curves.sum(axis=0)
    if not np.isfinite(together).all():
        raise ValueError(
            "the pattern network's output is not finite (NaN or infinite values), as with weights that are far too large: use "
            "another model, or train another network: in a new run, with another --train.seed"
        )
