"""Measures of whole spectrograms. They are reported but do not count in the ranking, except for pitch.

All use mono audio at 22 050 Hz. A spectrogram error is the distance to one true stem. Silence can have a lower error than
a good stem that was played differently.
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.fft

from p2p_dist.audio.spectrogram import frames_of, hann, mel_filters, power_to_db

RATE, N_FFT, HOP, MELS = 22050, 2048, 512, 128
RANGE = 80.0
"""Dynamic range below the maximum of the true stem, dB, for errors of log-mel spectrograms."""

RESOLUTIONS = (512, 1024, 2048)
"""FFT sizes of the multi-resolution distance; the hop is a quarter of each."""

_AUDIBLE = 60.0
_UNTOUCHED = 0.1  # dB by which the true mix may differ from the input in a bin without the stem
_PIECE = 256  # frames in which checkerboard artifacts are measured
_PERIODS = (2, 4, 8)  # frames: periods of artifacts of transposed convolutions of stride 2


def power(signal: np.ndarray) -> np.ndarray:
    """Power spectrogram (1025, frames): n_fft 2048, hop 512, Hann, centred frames, zero padding: librosa's."""
    spectrum = scipy.fft.rfft(frames_of(signal, N_FFT, HOP) * hann(N_FFT), axis=1).T
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


def log_mel(bins: np.ndarray) -> np.ndarray:
    """A power spectrogram as dB of 128 mel bands, (128, frames)."""
    return power_to_db(mel_filters(RATE, N_FFT, MELS) @ bins)


def log_mel_l1(got: np.ndarray, wanted: np.ndarray) -> float:
    """Mean absolute difference of two log-mel spectrograms, dB, floored 80 dB below the peak of the true one."""
    floor = wanted.max() - RANGE
    return float(np.abs(np.maximum(got, floor) - np.maximum(wanted, floor)).mean())


def best_gain(got: np.ndarray, wanted: np.ndarray) -> float:
    """Return the gain, dB, with a median error of 0 over the bins within 60 dB of the peak of the true log-mel spectrogram."""
    return float(np.median((wanted - got)[wanted > wanted.max() - _AUDIBLE]))


def magnitudes(signal: np.ndarray) -> list[np.ndarray]:
    """Magnitudes (frames, bins) at each resolution, at least 1e-4, as in auraloss, but with zero padding."""
    found = []
    for n_fft in RESOLUTIONS:
        spectrum = scipy.fft.rfft(frames_of(signal, n_fft, n_fft // 4) * hann(n_fft), axis=1)
        found.append(np.sqrt(np.maximum(spectrum.real**2 + spectrum.imag**2, np.float32(1e-8))))
    return found


def multi_resolution(got: list[np.ndarray], wanted: list[np.ndarray]) -> tuple[float, float]:
    """Return spectral convergence and mean absolute difference of natural logarithms, each averaged over the resolutions.

    Yamamoto, Song, Kim: Parallel WaveGAN (2020), eq. 4 and 5; `auraloss.freq.MultiResolutionSTFTLoss` gives their sum.
    """
    convergence = [np.linalg.norm(w - g) / np.linalg.norm(w) for g, w in zip(got, wanted, strict=True)]
    logarithms = [np.abs(np.log(g) - np.log(w)).mean() for g, w in zip(got, wanted, strict=True)]
    return float(np.mean(convergence)), float(np.mean(logarithms))


@functools.cache
def _pitch_classes() -> np.ndarray:
    """Weights of the bins for each pitch class, (12, 1025), C first, tuned to 440 Hz, as in `librosa.filters.chroma`."""
    hertz = np.arange(1, N_FFT) * RATE / N_FFT
    octaves = 12 * np.log2(hertz / (440.0 / 16))
    octaves = np.concatenate(([octaves[0] - 18], octaves))  # bin 0 has no pitch: use 1.5 octaves below bin 1
    widths = np.concatenate((np.maximum(np.diff(octaves), 1.0), [1.0]))
    away = np.subtract.outer(octaves, np.arange(12)).T
    away = np.remainder(away + 6 + 120, 12) - 6
    classes = np.exp(-0.5 * (2 * away / widths) ** 2)
    classes /= np.sqrt((classes**2).sum(axis=0))
    classes *= np.exp(-0.5 * ((octaves / 12 - 5) / 2) ** 2)  # highest weight within two octaves of the fifth
    return np.asarray(np.roll(classes, -3, axis=0)[:, : N_FFT // 2 + 1], np.float32)  # starting at A


def chroma(bins: np.ndarray) -> np.ndarray:
    """Pitch classes of a power spectrogram, (12, frames), scaled to a maximum of 1 per frame: librosa's `chroma_stft`."""
    found = _pitch_classes() @ bins
    peak = found.max(axis=0)
    return np.asarray(found / np.where(peak > 1e-30, peak, 1))


def audible(bins: np.ndarray) -> np.ndarray:
    """Mask of the frames of a power spectrogram that are within 60 dB of the loudest, bool (frames,)."""
    loud = bins.sum(axis=0)
    return np.asarray(loud > max(loud.max(), 1e-30) * 10 ** (-_AUDIBLE / 10))


def chroma_likeness(got: np.ndarray, wanted: np.ndarray, frames: np.ndarray) -> tuple[float | None, float | None]:
    """Mean cosine of the pitch classes frame by frame, and their correlation over all of these frames.

    Args:
        got, wanted: chroma (12, frames). frames: the frames to use.

    Returns:
        None if one of them is constant.
    """
    a, b = got[:, frames], wanted[:, frames]
    if not a.size or a.std() < 1e-9 or b.std() < 1e-9:
        return None, None
    lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    cosine = (a * b).sum(axis=0) / np.where(lengths > 0, lengths, 1)
    return float(cosine.mean()), float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def checkerboard(got: np.ndarray, wanted: np.ndarray) -> float | None:
    """Measure periodic artifacts of 2, 4 or 8 frames relative to the true stem: about 1 is none, over 2 a clear artifact.

    For each period: the power along time relative to neighbouring periods, divided by that of the true stem. Returns the
    largest of the three. The true stem is the reference, because quantised music has such periods itself. Source: Odena,
    Dumoulin, Olah: Deconvolution and checkerboard artifacts (2016).

    Args:
        got, wanted: dB (mels, frames) with the frames of the network's spectrograms.

    Returns:
        None if one of them is silent or constant (but for its last frames, which no piece has), or if they are shorter than 64
        frames.
    """
    floor = wanted.max() - RANGE
    both = [_at_periods(np.maximum(db, floor)) for db in (got, wanted)]
    if both[0] is None or both[1] is None or not (both[1] > 0).all():
        return None
    return float((both[0] / both[1]).max())


def _at_periods(db: np.ndarray) -> np.ndarray | None:
    """Power of a spectrogram along time at each period, relative to neighbouring periods; (3,)."""
    size = min(_PIECE, db.shape[1] // 8 * 8)
    if size < 64 or np.ptp(db) < 1e-3:
        return None
    pieces = np.lib.stride_tricks.sliding_window_view(db, size, axis=1)[:, :: size // 2]
    spectrum = np.abs(scipy.fft.rfft((pieces - pieces.mean(axis=2, keepdims=True)) * hann(size), axis=2)) ** 2
    strength = spectrum.mean(axis=(0, 1))
    ratios = []
    for period in _PERIODS:
        at = size // period
        beside = [k for k in range(at - 8, at + 9) if abs(k - at) >= 2 and 0 < k < len(strength)]
        ratios.append(strength[at] / max(float(np.median(strength[beside])), 1e-12))
    return np.array(ratios)


def untouched_change(mix: np.ndarray, true_mix: np.ndarray, heard: np.ndarray) -> float | None:
    """Mean change, dB, of the input's audible bins in which the true stem is absent. 0: they are unchanged.

    Args:
        mix, true_mix, heard: dB (mels, frames), of the generated mix, the true mix and the input.

    Returns:
        None if there are no such bins.
    """
    alone = (np.abs(true_mix - heard) < _UNTOUCHED) & (heard > heard.max() - _AUDIBLE)
    return float(np.abs(mix - heard)[alone].mean()) if alone.any() else None
