"""Measures of a generated stem, in three families that are only ever shown together, beside baselines and ceiling.

In time? The share of its onset energy on the song's eighth notes, its onsets against the true ones beyond chance, the
correlation of the envelopes. Drums at all? The distance of descriptors. The right amount? Level, sharpness, density.
Each by itself can be won by something that is no music: the errors of stem and mix by silence, onset F1 by many hits, the
grid by a metronome, the distance by drums of another song. Those that mislead most are reported and decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mir_eval.onset
import numpy as np

from p2p_dist.audio.beats import Beats
from p2p_dist.audio.spectrogram import mel_power, power_to_db
from p2p_dist.audio.stems import mono
from p2p_dist.evaluate import descriptors, onsets

RATE = onsets.RATE
_L1_N_FFT, _L1_HOP, _L1_MELS = 2048, 512, 128
_RANGE = 80.0  # dB below the truth's maximum that count in the L1


@dataclass(frozen=True)
class Measure:
    """What a table says of a measure. best: the value to aim for, as high or low as can be, or 1."""

    label: str
    best: Literal["high", "low", "one"]
    family: str
    meaning: str


MEASURES = {
    "lock8": Measure(
        "grid", "one", "in time?", "hits on the song's eighth notes: 0 anywhere, 1 as the true stem, over 1.2 a metronome"
    ),
    "f1t_beyond_chance": Measure(
        "F1 23 ms", "high", "in time?", "onsets met within 23 ms, beyond what as many would meet by chance"
    ),
    "f1_beyond_chance": Measure("F1 46 ms", "high", "in time?", "the same within 46 ms"),
    "ec1": Measure("envelope", "high", "in time?", "correlation of the onset envelopes"),
    "mmd": Measure(
        "distance",
        "low",
        "the real thing?",
        "from real stems, by sound and habit: 0 real, 40 a sound font, over 200 noise or mush",
    ),
    "level_error": Measure("level dB", "low", "the right amount?", "how much too loud or too quiet"),
    "flux_ratio": Measure("sharpness", "one", "the right amount?", "rise of the hits, relative to the true stem's"),
    "density_ratio": Measure("density", "one", "the right amount?", "number of onsets, relative to the true stem's"),
    "stem_l1": Measure("stem L1 dB", "low", "reported only", "error of the stem's log-mel spectrogram"),
    "mix_l1": Measure("mix L1 dB", "low", "reported only", "error of the mix's log-mel spectrogram: silence can win it"),
    "onset_f1": Measure("onset F1", "high", "reported only", "onsets met within 50 ms: many hits can win it"),
}
"""Name -> what it is, in the order of a table."""

BASELINES = {
    "copy the input": "the input itself, played as the stem",
    "silence": "no stem: the mix is the untouched input",
    "ceiling": "the true stem through spectrogram and back: no model can do better",
}
"""Name -> what it is, beside every figure."""

Row = dict[str, float | None]


@dataclass(frozen=True)
class Measured:
    """Of one stem for one song: its measures but `mmd`, None where one has no meaning; and (windows, 41) descriptors."""

    row: Row
    described: np.ndarray


def measure(stem: np.ndarray, true_stem: np.ndarray, input: np.ndarray, rate: int, beats: Beats | None) -> Measured:
    """All measures of one stem for one song.

    Args:
        stem, true_stem, input: (samples, channels) at `rate`, of one length.
        beats: of the true stem, in seconds from the beginning of these; None where it has none.
    """
    made, true, heard = (mono(sound, rate, RATE) for sound in (stem, true_stem, input))
    row: Row = dict.fromkeys(MEASURES)
    row["stem_l1"] = log_mel_l1(made, true)
    row["mix_l1"] = log_mel_l1(heard + made, heard + true)
    row["onset_f1"] = onset_f1(made, true)
    windows = _windows(made, true, heard)
    described = np.array([descriptors.describe(w.made) for w in windows if w.made.max() > 0]).reshape(-1, 41)
    if windows:
        grid = beats.times(len(true) / RATE, per_beat=2) if beats else np.empty(0)
        row |= _of_windows(windows, grid)
    return Measured(row, described)


@dataclass(frozen=True)
class _Window:
    """Mel power (64, frames) of the stem made and the true one, and where the window begins, frames."""

    made: np.ndarray
    true: np.ndarray
    begin: int


def _windows(made: np.ndarray, true: np.ndarray, heard: np.ndarray) -> list[_Window]:
    """The windows that count: enough true stem beside the input, an input that is there, at least 4 true onsets."""
    powers = [onsets.mel(signal) for signal in (made, true, heard)]
    frames = powers[0].shape[1]
    width = min(onsets.WINDOW, frames)
    found = []
    for begin in range(0, frames - width + 1, width):
        m, t, _ = (power[:, begin : begin + width] for power in powers)
        place = slice(begin * onsets.HOP, (begin + width) * onsets.HOP)
        loud = (true[place] ** 2).sum() > 0.02 * (heard[place] ** 2).sum() and np.abs(heard[place]).max() > 1e-3
        if loud and len(onsets.peaks(onsets.envelope(t))) >= 4:
            found.append(_Window(m, t, begin))
    return found


def _of_windows(windows: list[_Window], grid: np.ndarray) -> Row:
    """Means over the windows of one song (level: the median, lock8: a ratio of means)."""
    rows: dict[str, list[float]] = {name: [] for name in MEASURES}
    locked: list[tuple[float | None, float | None]] = []
    for window in windows:
        made, true = onsets.envelope(window.made), onsets.envelope(window.true)
        found, wanted = onsets.peaks(made), onsets.peaks(true)
        at = np.rint(grid / onsets.FRAME).astype(np.int64) - window.begin
        locked.append((onsets.on_grid(made, at), onsets.on_grid(true, at)))
        values = {
            "f1t_beyond_chance": onsets.beyond_chance(wanted, found, 1, len(true)),
            "f1_beyond_chance": onsets.beyond_chance(wanted, found, 2, len(true)),
            "ec1": onsets.correlation(made, true),
            "flux_ratio": made.mean() / true.mean(),
            "density_ratio": len(found) / len(wanted),
        }
        if window.made.max() > 0:
            values["level_error"] = 10 * np.log10(window.made.sum() / window.true.sum())
        for name, value in values.items():
            if value is not None:
                rows[name].append(float(value))
    result: Row = {name: float(np.mean(values)) for name, values in rows.items() if values}
    if rows["level_error"]:
        result["level_error"] = float(abs(np.median(rows["level_error"])))
    known = [(a if a is not None else 1.0, b) for a, b in locked if b is not None]
    if known and (true_lock := float(np.mean([b for _, b in known])) - 1) > 0.05:
        result["lock8"] = (float(np.mean([a for a, _ in known])) - 1) / true_lock
    return result


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


def onset_times(signal: np.ndarray) -> np.ndarray:
    """Seconds of the onsets of mono sound at 22 050 Hz, as `onsets.peaks` finds them."""
    return onsets.peaks(onsets.envelope(onsets.mel(signal))) * onsets.FRAME


def onset_f1(output: np.ndarray, truth: np.ndarray) -> float | None:
    """mir_eval's onset F-measure at its default of 50 ms; None where the truth has no onset."""
    wanted, found = onset_times(truth), onset_times(output)
    if not len(wanted):
        return None
    return float(mir_eval.onset.f_measure(wanted, found)[0]) if len(found) else 0.0


def mean(measured: list[Measured], real: list[np.ndarray]) -> Row:
    """Means over songs of what could be measured, None where nothing could; and `mmd`, which is of all songs together.

    Args:
        measured: of each song. real: descriptors of the true stem of each song, (windows, 41).
    """
    result: Row = dict.fromkeys(MEASURES)
    for name in MEASURES:
        values = [value for one in measured if (value := one.row[name]) is not None]
        result[name] = float(np.mean(values)) if values else None
    result["mmd"] = descriptors.distance(np.concatenate([one.described for one in measured]), np.concatenate(real))
    return result
