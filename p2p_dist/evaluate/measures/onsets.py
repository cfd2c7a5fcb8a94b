"""Detect onsets of a stem and measure their timing against the true stem, and against chance at the same density.

All measures use windows of 256 frames of a power mel spectrogram: 22 050 Hz mono, n_fft 1024, hop 512 (23.2 ms per frame),
64 mels from 30 Hz. Frames are centred, so frame k is at k x 23.2 ms exactly: librosa's onset functions, given a
spectrogram of n_fft 1024 as `S=` and their default n_fft of 2048, are two frames (46 ms) late.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage

from p2p_dist.audio.spectrogram import mel_filters, mel_power

RATE, N_FFT, HOP, MELS, LOWEST = 22050, 1024, 512, 64, 30.0
FRAME = HOP / RATE
"""Seconds per frame."""
WINDOW = 256
"""Frames per window, 5.94 s."""

SHIFTS = (-29, -17, -11, -7, 7, 11, 17, 29)
"""Frames by which onsets are rotated in their window to estimate the score by chance; none is near a beat or a bar."""

_RANGE = 60.0
_BANDS = {"low": (0.0, 150.0), "mid": (200.0, 2500.0), "high": (5000.0, np.inf)}


def mel(signal: np.ndarray) -> np.ndarray:
    """Power mel spectrogram of mono sound at 22 050 Hz, float32 (64, frames)."""
    return mel_power(signal, RATE, N_FFT, HOP, MELS, LOWEST)


def decibels(power: np.ndarray) -> np.ndarray:
    """Convert power to dB, at least -120."""
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
        power: (64, frames). mels: the mels to use, bool (64,); None for all.

    Returns:
        (frames,), in dB per frame; the first is 0.
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
    """F1 score: onsets are matched in order, greedily, within `tolerance` frames. 0 if both are empty."""
    hits = at = 0
    for frame in found:
        while at < len(true) and true[at] < frame - tolerance:
            at += 1
        if at < len(true) and true[at] <= frame + tolerance:
            hits += 1
            at += 1
    return 2 * hits / max(len(true) + len(found), 1)


def beyond_chance(true: np.ndarray, found: np.ndarray, tolerance: int, frames: int) -> float | None:
    """(F - S) / (1 - S), where S is the mean score of the same onsets when they are rotated in the window.

    0: chance level at this density, 1: perfect. None if the chance level is perfect.
    """
    moved = [f_score(true, np.sort((found + shift) % frames), tolerance) for shift in SHIFTS]
    chance = float(np.mean(moved))
    return None if chance >= 1 else (f_score(true, found, tolerance) - chance) / (1 - chance)


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation of two envelopes; None if one is constant."""
    if a.std() < 1e-12 or b.std() < 1e-12:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def on_grid(rise: np.ndarray, grid: np.ndarray) -> float | None:
    """Onset energy on the frames of `grid`, relative to its mean over the window. 1: no more than elsewhere.

    The maximum of the envelope over 3 frames is used. None if the window has no onset energy or no grid.
    """
    wide = scipy.ndimage.maximum_filter1d(rise, 3)
    grid = grid[(grid >= 0) & (grid < len(rise))]
    if not len(grid) or wide.mean() <= 0:
        return None
    return float(wide[grid].mean() / wide.mean())
