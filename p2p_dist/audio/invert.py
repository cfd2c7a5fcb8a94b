"""Convert a mel power spectrogram to audio, and fit that audio to a song's sample rate and channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.fft

from p2p_dist.audio.spectrogram import frames_of, hann, mel_filters
from p2p_dist.audio.stems import resample

MOMENTUM = 0.99  # Perraudin, Balazs, Soendergaard: A fast Griffin-Lim algorithm (2013), and librosa's default
_BLOCK = 2048


def mel_to_magnitude(mel: np.ndarray, sample_rate: int, n_fft: int) -> np.ndarray:
    """Return non-negative linear magnitudes whose mel power spectrogram is closest to `mel`.

    Multiplicative updates (Lee and Seung 2001) of the non-negative least squares problem: no line search, and the
    sparse filter bank makes 60 of them cheaper than one frame-by-frame solver.

    Args:
        mel: power, float32 (mels, frames).

    Returns:
        float32 (n_fft // 2 + 1, frames).
    """
    filters = mel_filters(sample_rate, n_fft, len(mel))
    # Filters narrower than a bin are empty, so their power can't be represented.
    overlap = (filters.T @ filters).tocsr()
    result = np.empty((n_fft // 2 + 1, mel.shape[1]), np.float32)
    for start in range(0, mel.shape[1], _BLOCK):
        answer = filters.T @ mel[:, start : start + _BLOCK]
        power = answer.copy()
        for _ in range(60):
            power *= answer / np.maximum(overlap @ power, 1e-20)
        result[:, start : start + _BLOCK] = np.sqrt(power)
    return result


def stft(signal: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """Centred short-time Fourier transform, complex64 (frames, n_fft // 2 + 1)."""
    return scipy.fft.rfft(frames_of(signal, n_fft, hop_length) * hann(n_fft), axis=1)


def istft(spectrum: np.ndarray, n_fft: int, hop_length: int, samples: int) -> np.ndarray:
    """Return the signal whose STFT is closest to `spectrum` (frames, n_fft // 2 + 1), cut to `samples`; float32."""
    frames = scipy.fft.irfft(spectrum, n_fft, axis=1) * hann(n_fft)
    square = hann(n_fft) ** 2
    signal, weight = (np.zeros(n_fft + hop_length * (len(frames) - 1), np.float32) for _ in range(2))
    for start in range(0, n_fft, hop_length):  # all frames at once, one hop of each
        place = slice(start, start + hop_length * len(frames))
        signal[place] += frames[:, start : start + hop_length].reshape(-1)
        weight[place] += np.tile(square[start : start + hop_length], len(frames))
    signal /= np.maximum(weight, 1e-8)
    signal = signal[n_fft // 2 : n_fft // 2 + samples]
    return np.pad(signal, (0, samples - len(signal)))


def random_phase(frames: int, bins: int, seed: int, first: int = 0) -> np.ndarray:
    """Return the initial phase of `griffin_lim`, complex64 (frames, bins).

    Args:
        first: position of the first frame in the whole song. The phase of a frame depends only on its position.
    """
    random = np.random.PCG64(seed)
    random.advance(first * bins)  # a number for each bin of each frame
    return np.exp(2j * np.pi * np.random.Generator(random).random((frames, bins))).astype(np.complex64)


def griffin_lim(
    magnitude: np.ndarray,
    n_fft: int,
    hop_length: int,
    samples: int,
    iterations: int,
    seed: int = 0,
    first: int = 0,
    is_over: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Return a signal whose STFT has about this magnitude: Griffin and Lim (1984) with momentum, from a seeded random phase.

    Args:
        magnitude: float32 (n_fft // 2 + 1, frames), of the whole excerpt: separate windows would leave audible seams.
        first: see `random_phase`; for blocks that overlap.
        is_over: called before each iteration; if true, the result is no longer needed, and the function returns early.

    Returns:
        float32 (samples,).
    """
    target = np.ascontiguousarray(magnitude.T, np.float32)
    phase = random_phase(len(target), target.shape[1], seed, first)
    previous = np.zeros_like(phase)
    for _ in range(iterations):
        if is_over():
            break
        rebuilt = stft(istft(target * phase, n_fft, hop_length, samples), n_fft, hop_length)
        rebuilt = rebuilt[: len(target)]
        ahead = rebuilt - MOMENTUM / (1 + MOMENTUM) * previous[: len(rebuilt)]
        phase = np.zeros_like(phase)
        phase[: len(ahead)] = ahead / np.maximum(np.abs(ahead), 1e-12)
        previous = np.zeros_like(phase)
        previous[: len(rebuilt)] = rebuilt
    return istft(target * phase, n_fft, hop_length, samples)


def mel_to_audio(mel: np.ndarray, sample_rate: int, n_fft: int, hop_length: int, samples: int, iterations: int) -> np.ndarray:
    """Return a mono signal, float32 (samples,), whose mel power spectrogram is about `mel` (mels, frames)."""
    return griffin_lim(mel_to_magnitude(mel, sample_rate, n_fft), n_fft, hop_length, samples, iterations)


def stem_for(song: np.ndarray, rate: int, stem: np.ndarray, stem_rate: int) -> np.ndarray:
    """Convert a mono stem to the rate, length and channels of `song`, so that it can be added to it.

    Args:
        song: (samples, channels) at `rate`. stem: (samples,) at `stem_rate`.

    Returns:
        float32 (samples, channels) at `rate`.
    """
    stem = resample(stem, stem_rate, rate)[: len(song)]
    stem = np.pad(stem, (0, len(song) - len(stem)))
    return np.repeat(stem[:, None], song.shape[1], axis=1).astype(np.float32)
