"""Compute log-mel spectrograms with scipy's float32 FFT and a sparse filter bank: librosa's values in a third of its time.

Definitions are librosa's (`librosa.feature.melspectrogram`, `librosa.power_to_db`): Hann window, centred frames, zero
padding, Slaney's mel scale and area normalisation. librosa itself is used in the tests only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.sparse

from p2p_dist.audio.mixer import mean_of

QUIETEST = 1e-10
"""Power below which everything is -100 dB, as librosa's `amin`."""

_BLOCK = 64  # frames transformed at once: stays in the cache (2048 take twice the time, and give the same bits)


def frame_count(samples: int, hop_length: int) -> int:
    """Centred frames of a signal of so many samples."""
    return 1 + samples // hop_length


@functools.cache
def hann(n_fft: int) -> np.ndarray:
    """Periodic Hann window, float32 (n_fft,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def _hz_to_mel(frequency: np.ndarray | float) -> np.ndarray:
    """Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1 kHz, then logarithmic."""
    frequency = np.asarray(frequency, dtype=np.float64)
    linear = frequency * 3 / 200
    return np.where(frequency < 1000, linear, 15 + 27 * np.log(np.maximum(frequency, 1e-9) / 1000) / np.log(6.4))


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


@functools.cache
def mel_filters(sample_rate: int, n_fft: int, mels: int, lowest: float = 0.0) -> scipy.sparse.csr_array:
    """Triangular filters of equal area on Slaney's scale from `lowest` Hz to half the rate, sparse (mels, n_fft // 2 + 1)."""
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    edges = _mel_to_hz(np.linspace(_hz_to_mel(lowest), _hz_to_mel(sample_rate / 2), mels + 2))
    widths = np.diff(edges)
    rising = (bins[None, :] - edges[:-2, None]) / widths[:-1, None]
    falling = (edges[2:, None] - bins[None, :]) / widths[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return scipy.sparse.csr_array(filters.astype(np.float32))


def band_of(frequency: float, sample_rate: int, mels: int) -> float:
    """Convert a frequency in Hz to a (fractional) mel band index; bands begin at 0 Hz."""
    return float(_hz_to_mel(frequency) / _hz_to_mel(sample_rate / 2) * (mels + 1) - 1)


def frames_of(signal: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """Centred frames of a zero-padded signal, a view of shape (frames, n_fft)."""
    padded = np.pad(signal, n_fft // 2)
    return np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]


def mel_power(
    signal: np.ndarray,
    sample_rate: int,
    n_fft: int,
    hop_length: int,
    mels: int,
    lowest: float = 0.0,
    *,
    one_of: Callable[[np.ndarray], np.ndarray] = mean_of,
) -> np.ndarray:
    """Mel power spectrogram of a signal, or of the mean of its channels.

    Args:
        signal: float32 (samples,) or (samples, channels), full scale 1.
        sample_rate: Hz. n_fft, hop_length: samples. lowest: lower edge of the first band, Hz.
        one_of: what of several channels, (channels, samples) to (samples,).

    Returns:
        float32 (mels, 1 + samples // hop_length).
    """
    count = frame_count(len(signal), hop_length)
    result = np.empty((mels, count), np.float32)
    for start in range(0, count, _BLOCK):
        # Only this block's part of the signal, padded where it reaches beyond: a copy of a long song is 100 MB.
        begin = start * hop_length - n_fft // 2
        end = begin + (min(_BLOCK, count - start) - 1) * hop_length + n_fft
        part = signal[max(begin, 0) : max(end, 0)].astype(np.float32, copy=False)
        if signal.ndim == 2:
            part = one_of(part.T)
        if len(part) < end - begin:
            part = np.pad(part, (max(-begin, 0), max(end - len(signal), 0)))
        result[:, start : start + _BLOCK] = mel_power_of_part(part, sample_rate, n_fft, hop_length, mels, lowest)
    return result


def mel_power_of_part(
    part: np.ndarray, sample_rate: int, n_fft: int, hop_length: int, mels: int, lowest: float = 0.0
) -> np.ndarray:
    """Mel power of the frames that lie wholly in a part of a signal, float32 (samples,), the first at its first sample."""
    frames = np.lib.stride_tricks.sliding_window_view(part, n_fft)[::hop_length]
    # Frames beside each other: scipy's FFT takes several at once, and the filters find each bin as a run of memory.
    spectrum = scipy.fft.rfft((frames * hann(n_fft)).T, axis=0)
    parts = spectrum.view(np.float32)  # real and imaginary by turns
    parts *= parts
    found: np.ndarray = mel_filters(sample_rate, n_fft, mels, lowest) @ (parts[:, ::2] + parts[:, 1::2])
    return found


def power_to_db(power: np.ndarray, reference: float = 1.0) -> np.ndarray:
    """10 log10(power / reference), never below -100 dB of power 1; float32."""
    db = np.maximum(power, QUIETEST)
    np.log10(db, out=db)
    db *= 10
    if reference != 1:
        db = db - 10 * np.log10(max(reference, QUIETEST))  # in float64
    return db.astype(np.float32, copy=False)


def db_to_power(db: np.ndarray, reference: float = 1.0) -> np.ndarray:
    """The inverse of `power_to_db`; float32."""
    return (reference * 10 ** (np.asarray(db, np.float64) / 10)).astype(np.float32)
