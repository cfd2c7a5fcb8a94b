"""Estimate the tempo of a whole song, assumed constant, and the positions of its beats.

A comb over the spectrum of an onset envelope: for each tempo the strength at its beat frequency and simple multiples. It
finds the tempo of music recorded to a click within 0.01 BPM. It does not follow a tempo that changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.ndimage

_TEMPOS = np.arange(80, 180, 0.005)  # beats a minute
_TEETH = {1.0: 1.0, 2.0: 0.6, 4.0: 0.4, 0.5: 0.3, 3.0: -0.3}  # multiple of the beat frequency -> weight
_USUAL, _WIDTH = 120.0, 0.9  # beats a minute, octaves: a log-normal prior
_LENGTH = 1 << 21  # samples of the padded spectrum: 0.003 beats a minute apart at 43 frames a second


@dataclass(frozen=True)
class Beats:
    """A steady pulse. bpm: beats a minute. first: seconds of the first beat, less than one beat."""

    bpm: float
    first: float

    def times(self, seconds: float, per_beat: int = 1) -> np.ndarray:
        """Seconds of all beats before `seconds`, each cut into `per_beat` equal parts (2: eighth notes)."""
        step = 60 / self.bpm / per_beat
        begin = self.first - step * np.floor(self.first / step)
        return np.arange(begin, seconds, step)


def track_beats(rise: np.ndarray, frame: float) -> Beats | None:
    """Tempo and beats of an onset envelope of a whole song.

    Args:
        rise: (frames,). frame: seconds of one.

    Returns:
        None where nothing rises.
    """
    flat = rise - scipy.ndimage.uniform_filter1d(rise, 43)
    if flat.std() < 1e-9:
        return None
    flat = np.clip(flat, -2 * flat.std(), 4 * flat.std())
    strength = np.abs(scipy.fft.rfft(flat, max(_LENGTH, scipy.fft.next_fast_len(len(flat)))))
    per_hertz = (2 * len(strength) - 2) * frame
    score = np.zeros(len(_TEMPOS))
    for multiple, weight in _TEETH.items():
        score += weight * strength[np.rint(_TEMPOS / 60 * multiple * per_hertz).astype(np.int64)]
    score *= np.exp(-0.5 * (np.log2(_TEMPOS / _USUAL) / _WIDTH) ** 2)
    bpm = float(_TEMPOS[score.argmax()])
    return Beats(bpm, _phase(rise, frame, bpm))


def _phase(rise: np.ndarray, frame: float, bpm: float) -> float:
    """Seconds of the first beat for which the smoothed envelope on the beats is largest."""
    smooth = scipy.ndimage.gaussian_filter1d(rise.astype(np.float64), 1.0)
    beat = 60 / bpm / frame  # frames
    candidates = np.arange(0, beat, 0.25)
    beats = np.arange(int(len(rise) / beat))
    sums = [np.interp(first + beats * beat, np.arange(len(smooth)), smooth).sum() for first in candidates]
    return float(candidates[int(np.argmax(sums))] * frame)
