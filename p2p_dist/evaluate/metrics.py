"""Measures of generated sound beside the true stem. Always shown with copy the input, silence and the ceiling.

Mix log-mel L1 and plain onset F1 are reported, never a gate: silence can win the one, density the other.
"""

from __future__ import annotations

import mir_eval.onset
import numpy as np
import scipy.ndimage

from p2p_dist.audio.spectrogram import mel_power, power_to_db
from p2p_dist.audio.stems import mono

RATE = 22050
_ONSET_N_FFT, _ONSET_HOP, _ONSET_MELS, _ONSET_LOWEST = 1024, 512, 64, 30.0
_L1_N_FFT, _L1_HOP, _L1_MELS = 2048, 512, 128
_RANGE = 80.0  # dB below the truth's maximum that count in the L1
_ONSET_RANGE = 60.0

MEASURES = {
    "stem_l1": "stem log-mel L1, dB",
    "mix_l1": "mix log-mel L1, dB",
    "onset_f1": "onset F1 (50 ms)",
}
"""Name -> what a table calls it."""

HIGHER_IS_BETTER = {"onset_f1"}

BASELINES = {
    "copy the input": "the input itself, played as the stem",
    "silence": "no stem: the mix is the untouched input",
    "ceiling": "the true stem through spectrogram and back: no model can do better",
}
"""Name -> what it is, beside every figure."""


def log_mel_l1(output: np.ndarray, truth: np.ndarray) -> float | None:
    """Mean absolute difference of log-mel spectrograms, dB: 128 mels, n_fft 2048, hop 512, floor 80 dB under the truth's peak.

    Args:
        output, truth: mono float32 (samples,) at 22 050 Hz.

    Returns:
        None where the truth is silent: there is no peak to measure from.
    """
    if not truth.any():
        return None
    wanted = power_to_db(mel_power(truth, RATE, _L1_N_FFT, _L1_HOP, _L1_MELS))
    got = power_to_db(mel_power(output, RATE, _L1_N_FFT, _L1_HOP, _L1_MELS))
    floor = wanted.max() - _RANGE
    return float(np.abs(np.maximum(got, floor) - np.maximum(wanted, floor)).mean())


def onset_envelope(signal: np.ndarray) -> np.ndarray:
    """Mean over 64 mels of the rise in dB from frame to frame, floored 60 dB under the peak; (frames,), first 0."""
    db = power_to_db(mel_power(signal, RATE, _ONSET_N_FFT, _ONSET_HOP, _ONSET_MELS, _ONSET_LOWEST))
    db = np.maximum(db, db.max() - _ONSET_RANGE)
    rise = np.maximum(np.diff(db, axis=1), 0).mean(axis=0)
    return np.concatenate(([0.0], rise))


def onset_times(signal: np.ndarray) -> np.ndarray:
    """Seconds of the onsets: peaks over 3 frames that exceed the mean over 9 by a tenth of the range, 2 frames apart."""
    envelope = onset_envelope(signal)
    if envelope.max() <= 0:
        return np.empty(0)
    envelope = (envelope - envelope.min()) / (envelope.max() - envelope.min())
    peaks = (envelope == scipy.ndimage.maximum_filter1d(envelope, 3)) & (
        envelope > scipy.ndimage.uniform_filter1d(envelope, 9) + 0.1
    )
    frames: list[int] = []
    for frame in np.flatnonzero(peaks):
        if not frames or frame - frames[-1] >= 2:
            frames.append(int(frame))
    return np.array(frames) * _ONSET_HOP / RATE


def onset_f1(output: np.ndarray, truth: np.ndarray) -> float | None:
    """mir_eval's onset F-measure at its default of 50 ms; None where the truth has no onset."""
    wanted = onset_times(truth)
    if not len(wanted):
        return None
    found = onset_times(output)
    return float(mir_eval.onset.f_measure(wanted, found)[0]) if len(found) else 0.0


def measure(stem: np.ndarray, true_stem: np.ndarray, input: np.ndarray, rate: int) -> dict[str, float | None]:
    """All measures of one stem for one song; None where a measure has no meaning for it.

    Args:
        stem, true_stem, input: (samples, channels) at `rate`, of one length.
    """
    made, true, heard = (mono(sound, rate, RATE) for sound in (stem, true_stem, input))
    return {
        "stem_l1": log_mel_l1(made, true),
        "mix_l1": log_mel_l1(heard + made, heard + true),
        "onset_f1": onset_f1(made, true),
    }


def mean(rows: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Means over songs of what could be measured; None where nothing could."""
    result: dict[str, float | None] = {}
    for name in MEASURES:
        values = [value for row in rows if (value := row[name]) is not None]
        result[name] = float(np.mean(values)) if values else None
    return result
