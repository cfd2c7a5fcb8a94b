"""Estimate the region of a song's tempo with a small network, block by block; the comb of beats.py decides octave and value.

The network sees a tempogram on a logarithmic axis of tempo: for each rate, how strongly the rises of bands and pitches repeat
with it. A change of tempo is then a shift, so that some tens of songs suffice to train it (train/tempo_network.py), and its
convolutions reach an octave and a fifth. Here it runs in numpy; its weights are beside this file.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.sparse
import scipy.special

from p2p_dist.audio.spectrogram import hann, mel_power_of_part

RATE, HOP, LOWEST = 22050, 441, 30.0
FRAMES_A_SECOND = RATE / HOP
MELS, MEL_FFT, PITCH_FFT = 40, 1024, 4096
PITCHES = np.arange(28, 88)
"""MIDI numbers of the semitones heard, from E1."""

BANDS = ((0, 4), (4, 8), (8, 13), (13, 20), (20, 29), (29, 40))
"""Mels of the six bands."""

PER_OCTAVE = 36
RATES = 15 * 2 ** (np.arange(int(6.2 * PER_OCTAVE)) / PER_OCTAVE)
"""Beats a minute of the tempogram, 15 to 1100."""
CLASSES = slice(int(np.ceil(np.log2(50 / 15) * PER_OCTAVE)), int(np.log2(260 / 15) * PER_OCTAVE))
"""Of `RATES`: those that are tempos, 50 to 260."""
CHANNELS = 2 * (len(BANDS) + 3)

DILATIONS = ((3, 1), (3, 2), (3, 4), (3, 9), (3, 18), (3, PER_OCTAVE), (5, PER_OCTAVE), (3, 21))
"""Taps and dilation of each layer."""

WEIGHTS = Path(__file__).parent / "tempo.safetensors"
_WINDOW, _STEP, _LEAST = 1200, 400, 200  # frames: of a window, from one to the next, and of the shortest song
_PADDED = 1 << 15


@functools.cache
def _pitch_filters() -> scipy.sparse.csr_array:
    """Triangular filters of a semitone, wider in the bass, sparse (pitches, bins)."""
    bins = 69 + 12 * np.log2(np.maximum(np.fft.rfftfreq(PITCH_FFT, 1 / RATE), 1) / 440)
    width = np.where(PITCHES > 45, 0.6, 1.0)
    return scipy.sparse.csr_array(np.maximum(0, 1 - abs(bins - PITCHES[:, None]) / width[:, None]).astype(np.float32))


def _pitch_power(part: np.ndarray) -> np.ndarray:
    """Power in `PITCHES` of the frames that lie wholly in a part of a signal, float32 (pitches, frames)."""
    frames = np.lib.stride_tricks.sliding_window_view(part, PITCH_FFT)[::HOP]
    spectrum = scipy.fft.rfft((frames * hann(PITCH_FFT)).T, axis=0)
    found: np.ndarray = _pitch_filters() @ (spectrum.real**2 + spectrum.imag**2)
    return found


class Powers:
    """Power in mels and in pitches, 50 frames a second, of audio that comes in blocks."""

    def __init__(self) -> None:
        self.held = np.zeros(PITCH_FFT // 2, np.float32)

    def add(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add the next samples, float32 (samples,) at `RATE`; return the new frames, (mels, frames) and (pitches, frames)."""
        self.held = np.concatenate([self.held, block])
        frames = max((len(self.held) - PITCH_FFT) // HOP + 1, 0)
        mel, pitch = np.empty((MELS, frames), np.float32), np.empty((len(PITCHES), frames), np.float32)
        inside = (PITCH_FFT - MEL_FFT) // 2  # the frames of both have the same middle
        for first in range(0, frames, 64):
            last = min(first + 64, frames) - 1
            part = self.held[first * HOP : last * HOP + PITCH_FFT]
            pitch[:, first : last + 1] = _pitch_power(part)
            middle = part[inside : inside + (last - first) * HOP + MEL_FFT]
            mel[:, first : last + 1] = mel_power_of_part(middle, RATE, MEL_FFT, HOP, MELS, LOWEST)
        self.held = self.held[frames * HOP :].copy()
        return mel, pitch

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames at the end of the audio; call it after the last `add`."""
        return self.add(np.zeros(PITCH_FFT // 2, np.float32))


def rises(mel: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Return what the tempogram is made of: (9, frames), each of unit deviation.

    The rises of six bands, of all mels, and over 120 ms of all pitches and of the lowest 16.

    Args:
        mel, pitch: power, (mels, frames) and (pitches, frames).
    """
    db, semitones = _db(mel, 60), _db(pitch, 50)
    rise = np.maximum(np.diff(db, axis=1, prepend=db[:, :1]), 0)
    change = np.pad(np.maximum(semitones[:, 6:] - semitones[:, :-6], 0), ((0, 0), (3, 3)))
    curves = np.stack([*(rise[a:b].mean(axis=0) for a, b in BANDS), rise.mean(0), change.mean(0), change[:16].mean(0)])
    curves -= scipy.ndimage.uniform_filter1d(curves, int(FRAMES_A_SECOND), axis=1)
    deviation = curves.std(axis=1, keepdims=True) + 1e-3
    return np.asarray(np.clip(curves, -2 * deviation, 4 * deviation) / deviation)


def _db(power: np.ndarray, span: float) -> np.ndarray:
    """dB, of not less than `span` under the loud frames."""
    db = 10 * np.log10(power + 1e-9)
    return np.asarray(np.maximum(db, np.percentile(db.max(axis=0), 99) - span))


def tempogram(curves: np.ndarray, faster: float = 1.0) -> np.ndarray:
    """Return how strongly `rises` repeat with each of `RATES`, float32 (18, rates), as if they were played faster.

    Nine channels of the logarithm of the Fourier transform's magnitude, nine of the autocorrelation at a beat's period.
    """
    spectrum = np.abs(scipy.fft.rfft(curves * np.hanning(curves.shape[1]), _PADDED, axis=1))
    spectrum /= np.sqrt((np.hanning(curves.shape[1]) ** 2).sum())
    correlation = scipy.fft.irfft(spectrum**2, axis=1)[:, : _PADDED // 2]
    correlation /= correlation[:, :1] + 1e-9
    rates = RATES / faster
    frequency = _between(spectrum, rates / 60 / FRAMES_A_SECOND * _PADDED)
    return np.concatenate([np.log1p(frequency), _between(correlation, 60 / rates * FRAMES_A_SECOND)]).astype(np.float32)


def _between(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Interpolate the columns of a table linearly at fractional indices."""
    places = np.minimum(places, table.shape[1] - 1.001)
    whole = places.astype(int)
    part = places - whole
    return np.asarray(table[:, whole] * (1 - part) + table[:, whole + 1] * part)


def network(weights: Mapping[str, np.ndarray], pictures: np.ndarray) -> np.ndarray:
    """Return the network's probabilities of the tempos, (batch, classes), from tempograms, (batch, 18, rates).

    Args:
        weights: by name, as torch stores those of `train.tempo_network.TempoNetwork`.
    """
    x = _convolved(pictures, weights, "enter", 1)
    for number, (_, dilation) in enumerate(DILATIONS):
        centred = x - x.mean(axis=1, keepdims=True)
        y = _convolved(centred / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5), weights, f"layers.{number}", dilation)
        x = x + np.where(y > 0, y, np.expm1(np.minimum(y, 0)))
    return np.asarray(scipy.special.softmax(_convolved(x, weights, "leave", 1)[:, 0, CLASSES], axis=1))


def _convolved(x: np.ndarray, weights: Mapping[str, np.ndarray], name: str, dilation: int) -> np.ndarray:
    """A convolution along the last axis, padded with zeros to the same length."""
    kernel, bias = (weights[f"{name}.{part}"].astype(np.float32) for part in ("weight", "bias"))
    length, reach = x.shape[2], kernel.shape[2] // 2 * dilation
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach)))
    taps = (kernel[:, :, tap] @ padded[:, :, tap * dilation : tap * dilation + length] for tap in range(kernel.shape[2]))
    return np.asarray(sum(taps, bias[:, None]))


@functools.cache
def trained() -> dict[str, np.ndarray]:
    """Return the weights that come with the package."""
    from safetensors.numpy import load_file

    return dict(load_file(WEIGHTS))


class Tempo:
    """The region of the tempo of audio that arrives in blocks: the mean over windows of 24 s. It keeps one window.

    Args:
        weights: of the network; None for those of the package.
    """

    def __init__(self, weights: Mapping[str, np.ndarray] | None = None) -> None:
        self.weights = trained() if weights is None else weights
        self.powers = Powers()
        self.mel, self.pitch = np.empty((MELS, 0), np.float32), np.empty((len(PITCHES), 0), np.float32)
        self.sum = np.zeros(len(RATES[CLASSES]))

    def add(self, block: np.ndarray) -> None:
        """Add the next samples, float32 (samples,) at `RATE`."""
        self._take(*self.powers.add(block))

    def finish(self) -> None:
        """Process the end of the audio; call it after the last `add`."""
        self._take(*self.powers.finish())
        if not self.sum.any() and self.mel.shape[1] >= _LEAST:
            self._hear(self.mel, self.pitch)

    def region(self) -> float | None:
        """Return the tempo, beats a minute, right up to some 3 % and the octave; None if the audio is too short."""
        return float(RATES[CLASSES][np.convolve(self.sum, np.ones(3), "same").argmax()]) if self.sum.any() else None

    def _take(self, mel: np.ndarray, pitch: np.ndarray) -> None:
        self.mel, self.pitch = np.concatenate([self.mel, mel], axis=1), np.concatenate([self.pitch, pitch], axis=1)
        while self.mel.shape[1] >= _WINDOW:
            self._hear(self.mel[:, :_WINDOW], self.pitch[:, :_WINDOW])
            self.mel, self.pitch = self.mel[:, _STEP:], self.pitch[:, _STEP:]

    def _hear(self, mel: np.ndarray, pitch: np.ndarray) -> None:
        if mel.any():
            self.sum += network(self.weights, tempogram(rises(mel, pitch))[None])[0]
