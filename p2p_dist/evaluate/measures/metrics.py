"""Measures of a generated stem, in three families that are only ever shown together, beside baselines and ceiling.

In time? The share of its onset energy on the song's eighth notes, its onsets against the true ones beyond chance, the
correlation of the envelopes. Drums at all? The distance of descriptors. The right amount? Level, sharpness, density.
Each by itself can be won by something that is no music: the errors of stem and mix by silence, onset F1 by many hits, the
grid by a metronome, the distance by drums of another song. Those that mislead most are reported and decide nothing.

What can't be measured is None, with its reason beside it; it is never a 0 in a mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from p2p_dist.audio.beats import Beats
from p2p_dist.audio.spectrogram import power_to_db
from p2p_dist.audio.stems import mono
from p2p_dist.data.pairs import mel_of
from p2p_dist.evaluate.measures import descriptors, onsets, spectral
from p2p_dist.settings.config import Data, parse_task

RATE = onsets.RATE

TIME, REAL, AMOUNT, REPORTED = "in time?", "the real thing?", "the right amount?", "reported only"
"""The families; those of the last decide nothing."""


@dataclass(frozen=True)
class Measure:
    """What a table says of a measure. best: the value to aim for, as high or low as can be, or 1. limits: of its mean."""

    label: str
    best: Literal["high", "low", "one"]
    family: str
    meaning: str
    limits: tuple[float, float] = (-math.inf, math.inf)


_POSITIVE, _SHARE, _COSINE = (0.0, math.inf), (0.0, 1.0), (-1.0, 1.0)

BELOW_ZERO = (
    "A distance below 0 counts as 0: it is an unbiased estimate, which scatters around the true distance, and that of stems "
    "like the real ones is 0."
)
"""What is said where one is shown."""

MEASURES = {
    "lock8": Measure(
        "grid", "one", TIME, "hits on the song's eighth notes: 0 anywhere, 1 as the true stem, over 1.2 a metronome"
    ),
    "f1t_beyond_chance": Measure(
        "F1 23 ms", "high", TIME, "onsets met within 23 ms, beyond what as many would meet by chance", (-math.inf, 1.0)
    ),
    "f1_beyond_chance": Measure("F1 46 ms", "high", TIME, "the same within 46 ms", (-math.inf, 1.0)),
    "ec1": Measure("envelope", "high", TIME, "correlation of the onset envelopes", _COSINE),
    "mmd": Measure(
        "distance", "low", REAL, "from real stems, by sound and habit: 0 real, 40 a sound font, over 200 noise or mush"
    ),
    "level_error": Measure("level dB", "low", AMOUNT, "how much too loud or too quiet", _POSITIVE),
    "flux_ratio": Measure("sharpness", "one", AMOUNT, "rise of the hits, relative to the true stem's", _POSITIVE),
    "density_ratio": Measure("density", "one", AMOUNT, "number of onsets, relative to the true stem's", _POSITIVE),
    "chroma_correlation": Measure(
        "pitch", "high", AMOUNT, "correlation of the pitch classes with those of the true stem", _COSINE
    ),
    "f1t": Measure("plain F1 23 ms", "high", REPORTED, "onsets met within 23 ms: many hits can win it", _SHARE),
    "f1": Measure("plain F1 46 ms", "high", REPORTED, "onsets met within 46 ms: many hits can win it", _SHARE),
    "onset_f1": Measure("onset F1", "high", REPORTED, "mir_eval's, onsets met within 50 ms: many hits can win it", _SHARE),
    "stem_l1": Measure("stem L1 dB", "low", REPORTED, "error of the stem's log-mel spectrogram", _POSITIVE),
    "mix_l1": Measure("mix L1 dB", "low", REPORTED, "error of the mix's log-mel spectrogram: silence can win it", _POSITIVE),
    "mr_convergence": Measure(
        "MR-SC", "low", REPORTED, "spectral convergence at three resolutions, relative to the truth", _POSITIVE
    ),
    "mr_log": Measure("MR-log", "low", REPORTED, "error of the logarithm of the magnitudes at three resolutions", _POSITIVE),
    "chroma": Measure("chroma", "high", REPORTED, "cosine of the pitch classes, frame by frame", _SHARE),
    "checkerboard": Measure(
        "checker",
        "one",
        REPORTED,
        "what repeats every 2, 4 or 8 frames of the pictures, relative to the true stem's",
        _POSITIVE,
    ),
    "untouched": Measure("untouched dB", "low", REPORTED, "change of what the true stem leaves alone", _POSITIVE),
}
"""Name -> what it is, in the order of a table. `chroma_correlation` is for stems that have a pitch."""

_OF_WINDOWS = ("f1t_beyond_chance", "f1_beyond_chance", "ec1", "flux_ratio", "density_ratio", "f1t", "f1")

NO_WINDOW = "the true stem has no 6 seconds with 4 onsets that are loud enough beside the input"
NO_BEAT = "the song has no steady beat"
STEM_SILENT = "the stem is silent"
TRUTH_SILENT = "the true stem is silent"
MIXES = "the files hold mixes, in which the stem is not known"

Row = dict[str, float | None]
Part = dict[str, float | None]
"""What was measured of one window: as in a row, and `grid`, `true_grid` (onset energy there), `level` (dB, signed)."""


def is_pitched(task: str) -> bool:
    """Whether the stem that a task makes has a pitch: anything but drums alone."""
    return parse_task(task)[1] != ("drums",)


def shown(*, pitched: bool, family: str | None = None) -> list[str]:
    """The names of the measures of a table, in its order."""
    names = [name for name in MEASURES if pitched or name != "chroma_correlation"]
    return [name for name in names if family is None or MEASURES[name].family == family]


@dataclass(frozen=True)
class Measured:
    """Of one stem for one song.

    row: its measures but `mmd`, None where there is none. absent: the reason of each None.
    parts: the same of each window that counts. described: the 41 descriptors of each, None where the stem is silent.
    """

    row: Row
    absent: dict[str, str] = field(default_factory=dict)
    parts: Sequence[Part] = ()
    described: Sequence[np.ndarray | None] = ()


@dataclass(frozen=True)
class _Window:
    """The true stem in one window that counts: where it begins, frames; its onset envelope, onsets and mel energy."""

    begin: int
    true: np.ndarray
    wanted: np.ndarray
    energy: float


class Truth:
    """What the stems of one song are measured against, prepared once for all of them.

    Args:
        true, heard: true stem and input, (samples, channels) at `rate`, of one length.
        beats: of the true stem, in seconds from the beginning of these; None where it has none.
        data: how the network's pictures are made, for what such pictures leave in a sound.
        mixes: `true`, and what is measured, hold the input too: only measures of whole sounds have a meaning.
    """

    def __init__(
        self, true: np.ndarray, heard: np.ndarray, rate: int, beats: Beats | None, data: Data, *, mixes: bool = False
    ) -> None:
        self.rate, self.data, self.mixes, self.beats = rate, data, mixes, beats
        self.true, self.heard = mono(true, rate, RATE), mono(heard, rate, RATE)
        self.silent = not self.true.any()
        self.bins = spectral.power(self.true)
        self.stem_mel = spectral.log_mel(self.bins)
        mix = self.true if mixes else self.heard + self.true
        self.mix_mel, self.heard_mel = (spectral.log_mel(spectral.power(signal)) for signal in (mix, self.heard))
        self.magnitudes = spectral.magnitudes(self.true)
        self.chroma, self.audible = spectral.chroma(self.bins), spectral.audible(self.bins)
        self.picture = power_to_db(mel_of(true, rate, data))
        self.grid = np.rint((beats.times(len(self.true) / RATE, per_beat=2) if beats else np.empty(0)) / onsets.FRAME)
        self.onset_times = onset_times(self.true)
        self.windows = [] if mixes else list(self._windows())
        self.real = [] if mixes else [descriptors.describe(part) for part in self._cut(onsets.mel(self.true))]

    def _windows(self):  # type: ignore[no-untyped-def]
        """The windows that count: enough true stem beside the input, an input that is there, at least 4 true onsets."""
        power = onsets.mel(self.true)
        width = min(onsets.WINDOW, power.shape[1])
        for begin in range(0, power.shape[1] - width + 1, width):
            place = slice(begin * onsets.HOP, (begin + width) * onsets.HOP)
            loud = (self.true[place] ** 2).sum() > 0.02 * (self.heard[place] ** 2).sum()
            if loud and np.abs(self.heard[place]).max() > 1e-3:
                true = power[:, begin : begin + width]
                rise = onsets.envelope(true)
                if len(wanted := onsets.peaks(rise)) >= 4:
                    yield _Window(begin, rise, wanted, float(true.sum()))

    def _cut(self, power: np.ndarray) -> list[np.ndarray]:
        """The windows that count of a mel spectrogram."""
        return [power[:, window.begin : window.begin + len(window.true)] for window in self.windows]


def measure(stem: np.ndarray, truth: Truth) -> Measured:
    """All measures of one stem, float32 (samples, channels) at the song's rate, as long as the true one."""
    made = mono(stem, truth.rate, RATE)
    row: Row = dict.fromkeys(MEASURES)
    absent: dict[str, str] = {}
    _of_spectra(row, absent, stem, made, truth)
    if truth.mixes:
        for name in ("lock8", "mmd", "level_error", "stem_l1", "onset_f1", *_OF_WINDOWS):
            absent[name] = MIXES
        return Measured(row, absent)
    row["onset_f1"] = onset_f1(onset_times(made), truth.onset_times)
    if row["onset_f1"] is None:
        absent["onset_f1"] = "the true stem has no onset"
    powers = truth._cut(onsets.mel(made))
    parts = [_part(window, power, truth) for window, power in zip(truth.windows, powers, strict=True)]
    described = [descriptors.describe(power) if power.max() > 0 else None for power in powers]
    row |= combine(parts)
    for name in ("lock8", "level_error", *_OF_WINDOWS):
        if row[name] is None:
            absent[name] = _why(name, parts, truth)
    return Measured(row, absent, parts, described)


def _of_spectra(row: Row, absent: dict[str, str], stem: np.ndarray, made: np.ndarray, truth: Truth) -> None:
    """The measures of whole spectrograms."""
    bins = spectral.power(made)
    mel = spectral.log_mel(bins)
    mix = mel if truth.mixes else spectral.log_mel(spectral.power(truth.heard + made))
    if truth.mix_mel.max() > -100:
        row["mix_l1"] = spectral.log_mel_l1(mix, truth.mix_mel)
    else:
        absent["mix_l1"] = "input and true stem are silent"
    row["untouched"] = spectral.untouched_change(mix, truth.mix_mel, truth.heard_mel)
    if row["untouched"] is None:
        absent["untouched"] = "the true stem leaves nothing of the input alone"
    if truth.silent:
        for name in ("stem_l1", "mr_convergence", "mr_log", "chroma", "chroma_correlation", "checkerboard"):
            absent[name] = TRUTH_SILENT
        return
    if not truth.mixes:
        row["stem_l1"] = spectral.log_mel_l1(mel, truth.stem_mel)
    row["mr_convergence"], row["mr_log"] = spectral.multi_resolution(spectral.magnitudes(made), truth.magnitudes)
    row["chroma"], row["chroma_correlation"] = spectral.chroma_likeness(spectral.chroma(bins), truth.chroma, truth.audible)
    if row["chroma"] is None:
        absent["chroma"] = absent["chroma_correlation"] = STEM_SILENT if not made.any() else "no pitch stands out"
    row["checkerboard"] = spectral.checkerboard(power_to_db(mel_of(stem, truth.rate, truth.data)), truth.picture)
    if row["checkerboard"] is None:
        absent["checkerboard"] = STEM_SILENT if not made.any() else "shorter than 64 frames of the pictures"


def _part(window: _Window, power: np.ndarray, truth: Truth) -> Part:
    """One window of a stem, mel power (64, frames)."""
    made, true, wanted = onsets.envelope(power), window.true, window.wanted
    found = onsets.peaks(made)
    at = truth.grid.astype(np.int64) - window.begin
    loud = float(power.sum())
    return {
        "f1t_beyond_chance": onsets.beyond_chance(wanted, found, 1, len(true)),
        "f1_beyond_chance": onsets.beyond_chance(wanted, found, 2, len(true)),
        "ec1": onsets.correlation(made, true),
        "flux_ratio": float(made.mean() / true.mean()),
        "density_ratio": len(found) / len(wanted),
        "f1t": onsets.f_score(wanted, found, 1),
        "f1": onsets.f_score(wanted, found, 2),
        "level": 10 * float(np.log10(loud / window.energy)) if loud > 0 else None,
        "grid": onsets.on_grid(made, at),
        "true_grid": onsets.on_grid(true, at),
    }


def combine(parts: Sequence[Part]) -> Row:
    """Windows of one song to its measures: means, but of the level the median and of the grid a ratio of means."""
    row: Row = {}
    for name in _OF_WINDOWS:
        values = [value for part in parts if (value := part[name]) is not None]
        row[name] = float(np.mean(values)) if values else None
    levels = [value for part in parts if (value := part["level"]) is not None]
    row["level_error"] = float(abs(np.median(levels))) if levels else None
    # Where a stem has no onset energy, a place on the grid is as good as any other: 1.
    known = [(1.0 if (g := part["grid"]) is None else g, t) for part in parts if (t := part["true_grid"]) is not None]
    lock = float(np.mean([true for _, true in known])) - 1 if known else 0.0
    row["lock8"] = (float(np.mean([made for made, _ in known])) - 1) / lock if lock > 0.05 else None
    return row


def _why(name: str, parts: Sequence[Part], truth: Truth) -> str:
    """Why a measure of windows is absent."""
    if not parts:
        return TRUTH_SILENT if truth.silent else NO_WINDOW
    if name == "lock8":
        return NO_BEAT if truth.beats is None else "the true stem does not keep to eighth notes"
    if name in ("ec1", "level_error"):
        return STEM_SILENT
    return "chance would be perfect"


def onset_times(signal: np.ndarray) -> np.ndarray:
    """Seconds of the onsets of mono sound at 22 050 Hz, as `onsets.peaks` finds them."""
    return onsets.peaks(onsets.envelope(onsets.mel(signal))) * onsets.FRAME


def onset_f1(found: np.ndarray, wanted: np.ndarray) -> float | None:
    """mir_eval's onset F-measure at its default of 50 ms, of onsets in seconds; None where the truth has none."""
    if not len(wanted):
        return None
    import mir_eval.onset  # a third of what the page would import, and it measures nothing

    return float(mir_eval.onset.f_measure(wanted, found)[0]) if len(found) else 0.0
