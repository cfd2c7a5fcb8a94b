"""Detect onsets of a stem and measure their timing against the true stem, and against chance at the same density.

Everything is over windows of 256 frames of a power mel spectrogram: 22 050 Hz mono, n_fft 1024, hop 512 (23.2 ms a frame),
64 mels from 30 Hz. Frames are centred, so frame k is at k x 23.2 ms exactly: librosa's onset functions, given a
spectrogram of n_fft 1024 by `S=` and left with their default n_fft of 2048, answer two frames (46 ms) late.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage

from p2p_dist.audio.spectrogram import mel_filters, mel_power

RATE, N_FFT, HOP, MELS, LOWEST = 22050, 1024, 512, 64, 30.0
FRAME = HOP / RATE
"""Seconds of a frame."""
WINDOW = 256
"""Frames of a window, 5.94 s."""

SHIFTS = (-29, -17, -11, -7, 7, 11, 17, 29)
"""Frames by which a prediction is moved round its window to see what it would score by chance: none a beat or a bar."""

_RANGE = 60.0
_BANDS = {"low": (0.0, 150.0), "mid": (200.0, 2500.0), "high": (5000.0, np.inf)}


def mel(signal: np.ndarray) -> np.ndarray:
    """Power mel spectrogram of mono sound at 22 050 Hz, float32 (64, frames)."""
    return mel_power(signal, RATE, N_FFT, HOP, MELS, LOWEST)


def decibels(power: np.ndarray) -> np.ndarray:
    """10 log10 of power, not below -120."""
    return 10 * np.log10(np.maximum(power, 1e-12))


def centres() -> np.ndarray:
    """Frequency of the peak of each mel band, Hz, (64,)."""
    filters = mel_filters(RATE, N_FFT, MELS, LOWEST).toarray()
    return filters.argmax(axis=1) * RATE / N_FFT


def bands() -> dict[str, np.ndarray]:
    """Which mels are low (kick), mid (snare) and high (cymbals): name -> bool (64,)."""
    at = centres()
    return {name: (at >= low) & (at < high) for name, (low, high) in _BANDS.items()}


def envelope(power: np.ndarray, mels: np.ndarray | None = None) -> np.ndarray:
    """Onset envelope of a window: mean over mels of the rise in dB from frame to frame, floored 60 dB under its peak.

    Args:
        power: (64, frames). mels: those that count, bool (64,), or all.

    Returns:
        (frames,), in dB a frame; the first is 0.
    """
    db = decibels(power)
    db = np.maximum(db, db.max() - _RANGE)
    if mels is not None:
        db = db[mels]
    return np.concatenate(([0.0], np.maximum(np.diff(db, axis=1), 0).mean(axis=0)))


def peaks(rise: np.ndarray) -> np.ndarray:
    """Frames of the onsets in an envelope: the peaks of 3 frames that exceed the mean of 9 by a tenth of the range.

    Onsets are at least 2 frames apart.
    """
    low, high = rise.min(), rise.max()
    if high <= low:
        return np.empty(0, np.int64)
    scaled = (rise - low) / (high - low)
    highest, usual = scipy.ndimage.maximum_filter1d(scaled, 3), scipy.ndimage.uniform_filter1d(scaled, 9)
    chosen: list[int] = []
    for frame in np.flatnonzero((scaled == highest) & (scaled > usual + 0.1)):
        if not chosen or frame - chosen[-1] >= 2:
            chosen.append(int(frame))
    return np.array(chosen, np.int64)


def f_score(true: np.ndarray, found: np.ndarray, tolerance: int) -> float:
    """2 hits / (true + found), onsets matched in order, greedily, within `tolerance` frames. 0 where neither has any."""
    hits = at = 0
    for frame in found:
        while at < len(true) and true[at] < frame - tolerance:
            at += 1
        if at < len(true) and true[at] <= frame + tolerance:
            hits += 1
            at += 1
    return 2 * hits / max(len(true) + len(found), 1)


def beyond_chance(true: np.ndarray, found: np.ndarray, tolerance: int, frames: int) -> float | None:
    """(F - S) / (1 - S), where S is what the same onsets score on average when moved round the window.

    0: chance at its own density, 1: perfect. None where chance is perfect.
    """
    moved = [f_score(true, np.sort((found + shift) % frames), tolerance) for shift in SHIFTS]
    chance = float(np.mean(moved))
    return None if chance >= 1 else (f_score(true, found, tolerance) - chance) / (1 - chance)


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation of two envelopes; None where one is flat."""
    if a.std() < 1e-12 or b.std() < 1e-12:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def on_grid(rise: np.ndarray, grid: np.ndarray) -> float | None:
    """Onset energy on the frames of `grid` relative to its mean over the window: 1 = no better than anywhere.

    The envelope is taken at its maximum over 3 frames. None where there is no onset energy or no grid in the window.
    """
    wide = scipy.ndimage.maximum_filter1d(rise, 3)
    grid = grid[(grid >= 0) & (grid < len(rise))]
    if not len(grid) or wide.mean() <= 0:
        return None
    return float(wide[grid].mean() / wide.mean())
