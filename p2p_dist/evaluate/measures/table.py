"""The measures of a generated stem. To add a measure, add an entry to `MEASURES`; no other module lists them.

They form three families, which are always shown together, with baselines and ceiling. In time? Onset energy on the song's
eighth notes, onset F1 above chance, correlation of the envelopes. The real thing? The distance of descriptors. The right
amount? Level, sharpness, density.
A single measure can be misleading: silence has low errors of stem and mix, many hits a high onset F1, a metronome a high
grid value, and drums of another song a low distance. The most misleading measures are reported, but not used in the score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from p2p_dist.evaluate.measures import descriptors, onsets, spectral
from p2p_dist.evaluate.measures.kinds import (
    AMOUNT,
    REAL,
    REPORTED,
    TIME,
    Measure,
    OfSongs,
    OfStem,
    OfWindows,
    Quantity,
    Row,
    Score,
    WindowRow,
)
from p2p_dist.evaluate.measures.truth import Stem, StemWindow, TrueWindow, Truth, onset_times
from p2p_dist.settings.config import parse_task

TRUTH_SILENT = "the true stem is silent"
STEM_SILENT = "the stem is silent"
NO_BEAT = "the song has no steady beat"
UNKNOWN = "could not be measured"


def _mean(name: str, windows: Sequence[WindowRow]) -> float | None:
    values = [value for window in windows if (value := window.get(name)) is not None]
    return float(np.mean(values)) if values else None


def _mean_of(name: str, quantity: Quantity, absent: str = "random onsets would score perfectly") -> OfWindows:
    """Average one quantity over windows."""
    return OfWindows({name: quantity}, partial(_mean, name), absent)


def _level(stem: StemWindow, true: TrueWindow) -> float | None:
    """Level of a window relative to the true stem, dB."""
    loud = float(stem.power.sum())
    return 10 * float(np.log10(loud / true.energy)) if loud > 0 else None


def _level_error(windows: Sequence[WindowRow]) -> float | None:
    levels = [value for window in windows if (value := window.get("level")) is not None]
    return float(abs(np.median(levels))) if levels else None


def _lock(windows: Sequence[WindowRow]) -> float | None:
    """Onset energy on the grid above its mean, relative to that of the true stem."""
    # Without onset energy, the grid is no better than any other place: 1.
    known = [(1.0 if (g := w.get("grid")) is None else g, t) for w in windows if (t := w.get("true_grid")) is not None]
    lock = float(np.mean([true for _, true in known])) - 1 if known else 0.0
    return (float(np.mean([stem for stem, _ in known])) - 1) / lock if lock > 0.05 else None


def _why_no_lock(truth: Truth) -> str:
    return NO_BEAT if truth.beats is None else "the true stem does not keep to eighth notes"


def _onset_f1(stem: Stem, truth: Truth) -> float | str:
    f1 = onset_f1(onset_times(stem.signal), truth.onset_times)
    return "the true stem has no onset" if f1 is None else f1


def onset_f1(onsets_of_stem: np.ndarray, true_onsets: np.ndarray) -> float | None:
    """mir_eval's onset F-measure with its default tolerance of 50 ms; None if the true stem has no onsets."""
    if not len(true_onsets):
        return None
    import mir_eval.onset  # here, because the import is slow and the page does not need it

    return float(mir_eval.onset.f_measure(true_onsets, onsets_of_stem)[0]) if len(onsets_of_stem) else 0.0


def _mix_l1(stem: Stem, truth: Truth) -> float | str:
    if truth.mix_mel.max() > -100:
        return spectral.log_mel_l1(stem.mix_mel, truth.mix_mel)
    return "input and true stem are silent"


def _untouched(stem: Stem, truth: Truth) -> float | str:
    change = spectral.untouched_change(stem.mix_mel, truth.mix_mel, truth.heard_mel)
    return "the true stem covers the whole input" if change is None else change


def _chroma(which: int, stem: Stem, truth: Truth) -> float | str:
    likeness = stem.chroma_likeness[which]
    return (STEM_SILENT if stem.silent else "no pitch stands out") if likeness is None else likeness


def _checkerboard(stem: Stem, truth: Truth) -> float | str:
    ratio = spectral.checkerboard(stem.picture, truth.picture)
    return (
        (STEM_SILENT if stem.silent else "shorter than 64 frames of the pictures, or silent but for their end")
        if ratio is None
        else ratio
    )


_POSITIVE, _SHARE, _COSINE = (0.0, math.inf), (0.0, 1.0), (-1.0, 1.0)

_SOUND_FONT = 40.0  # the distance of drums of a General MIDI sound font: half the score of its family

_AS_IT_IS = Score(lambda value: min(max(value, 0.0), 1.0))
_NEAR_ONE = Score(lambda value: max(0.0, min(value, 1 / value if value > 0 else 0.0)), "{} (the smaller of it and its inverse)")
_AMPLITUDE = Score(lambda value: float(10 ** (-value / 20)), "{} (as a ratio of amplitudes)")
_DISTANCE = Score(lambda value: _SOUND_FONT / (_SOUND_FONT + max(value, 0.0)), f"{_SOUND_FONT:g} / ({_SOUND_FONT:g} + {{}})")

MEASURES = {
    "lock8": Measure(
        "grid",
        "one",
        TIME,
        "hits on the song's eighth notes: 0 anywhere, 1 as the true stem, over 1.2 a metronome",
        OfWindows(
            {
                "grid": lambda stem, true: onsets.on_grid(stem.rise, true.grid),
                "true_grid": lambda _, true: onsets.on_grid(true.rise, true.grid),
            },
            _lock,
            _why_no_lock,
        ),
        score=_NEAR_ONE,
        headline=True,
    ),
    "f1t_beyond_chance": Measure(
        "F1 23 ms",
        "high",
        TIME,
        "onsets met within 23 ms, beyond what as many would meet by chance",
        _mean_of("f1t_beyond_chance", lambda stem, true: onsets.beyond_chance(true.onsets, stem.onsets, 1, len(true.rise))),
        (-math.inf, 1.0),
        _AS_IT_IS,
        headline=True,
    ),
    "f1_beyond_chance": Measure(
        "F1 46 ms",
        "high",
        TIME,
        "the same within 46 ms",
        _mean_of("f1_beyond_chance", lambda stem, true: onsets.beyond_chance(true.onsets, stem.onsets, 2, len(true.rise))),
        (-math.inf, 1.0),
    ),
    "ec1": Measure(
        "envelope",
        "high",
        TIME,
        "correlation of the onset envelopes",
        _mean_of("ec1", lambda stem, true: onsets.correlation(stem.rise, true.rise), STEM_SILENT),
        _COSINE,
        _AS_IT_IS,
    ),
    "mmd": Measure(
        "distance",
        "low",
        REAL,
        "from real stems, by sound and habit: 0 real, 40 a sound font, over 200 noise or mush",
        OfSongs(descriptors.distance_of_songs),
        score=_DISTANCE,
        headline=True,
        below_zero="A distance below 0 counts as 0: the estimate scatters around the true distance, and is lower for a stem "
        "like the true stem of its own song, which is among those that it is compared with.",
    ),
    "level_error": Measure(
        "level dB",
        "low",
        AMOUNT,
        "how much too loud or too quiet; of several songs the median",
        # No interval from windows: the jackknife is not valid for a median (Miller 1974).
        OfWindows({"level": _level}, _level_error, STEM_SILENT, jackknife=False),
        _POSITIVE,
        _AMPLITUDE,
        median=True,
        headline=True,
    ),
    "flux_ratio": Measure(
        "sharpness",
        "one",
        AMOUNT,
        "rise of the hits, relative to the true stem's",
        _mean_of("flux_ratio", lambda stem, true: float(stem.rise.mean() / true.rise.mean())),
        _POSITIVE,
        _NEAR_ONE,
    ),
    "density_ratio": Measure(
        "density",
        "one",
        AMOUNT,
        "number of onsets, relative to the true stem's",
        _mean_of("density_ratio", lambda stem, true: len(stem.onsets) / len(true.onsets)),
        _POSITIVE,
        _NEAR_ONE,
    ),
    "chroma_correlation": Measure(
        "pitch",
        "high",
        AMOUNT,
        "correlation of the pitch classes with those of the true stem",
        OfStem(partial(_chroma, 1)),
        _COSINE,
        _AS_IT_IS,
        pitched=True,
        digits=3,
    ),
    "f1t": Measure(
        "plain F1 23 ms",
        "high",
        REPORTED,
        "onsets met within 23 ms: many hits can win it",
        _mean_of("f1t", lambda stem, true: onsets.f_score(true.onsets, stem.onsets, 1)),
        _SHARE,
    ),
    "f1": Measure(
        "plain F1 46 ms",
        "high",
        REPORTED,
        "onsets met within 46 ms: many hits can win it",
        _mean_of("f1", lambda stem, true: onsets.f_score(true.onsets, stem.onsets, 2)),
        _SHARE,
    ),
    "onset_f1": Measure(
        "onset F1",
        "high",
        REPORTED,
        "mir_eval's, onsets met within 50 ms: many hits can win it",
        OfStem(_onset_f1, mixes=False, silent_truth=True),
        _SHARE,
    ),
    "stem_l1": Measure(
        "stem L1 dB",
        "low",
        REPORTED,
        "error of the stem's log-mel spectrogram",
        OfStem(lambda stem, truth: spectral.log_mel_l1(stem.mel, truth.stem_mel), mixes=False),
        _POSITIVE,
    ),
    "mix_l1": Measure(
        "mix L1 dB",
        "low",
        REPORTED,
        "error of the mix's log-mel spectrogram: silence can win it",
        OfStem(_mix_l1, silent_truth=True),
        _POSITIVE,
    ),
    "mr_convergence": Measure(
        "MR-SC",
        "low",
        REPORTED,
        "spectral convergence at three resolutions, relative to the truth",
        OfStem(lambda stem, _: stem.multi_resolution[0]),
        _POSITIVE,
        digits=3,
    ),
    "mr_log": Measure(
        "MR-log",
        "low",
        REPORTED,
        "error of the logarithm of the magnitudes at three resolutions",
        OfStem(lambda stem, _: stem.multi_resolution[1]),
        _POSITIVE,
        digits=3,
    ),
    "chroma": Measure(
        "chroma",
        "high",
        REPORTED,
        "cosine of the pitch classes, frame by frame",
        OfStem(partial(_chroma, 0)),
        _SHARE,
        digits=3,
    ),
    "checkerboard": Measure(
        "checker",
        "one",
        REPORTED,
        "what repeats every 2, 4 or 8 frames of the pictures, relative to the true stem's",
        OfStem(_checkerboard),
        _POSITIVE,
    ),
    "untouched": Measure(
        "untouched dB",
        "low",
        REPORTED,
        "change of what the true stem leaves alone",
        OfStem(_untouched, silent_truth=True),
        _POSITIVE,
    ),
}
"""Name -> measure, in the order of the tables. Rows in JSON use these names."""


def is_pitched(task: str) -> bool:
    """Whether the stem of a task has a pitch: any stem except drums alone."""
    return parse_task(task)[1] != ("drums",)


def columns(*, pitched: bool) -> tuple[list[str], list[str]]:
    """Return the names of the measures in the score, and of those that are only reported, in the order of the tables."""
    names = [name for name, measure in MEASURES.items() if pitched or not measure.pitched]
    return [n for n in names if MEASURES[n].decides], [n for n in names if not MEASURES[n].decides]


def label(name: str) -> str:
    """Return the title of a measure in a table; its name if this version does not know it."""
    return MEASURES[name].label if name in MEASURES else name


def why_absent(name: str, row: Row, absent: Mapping[str, str]) -> str:
    """Return why a row has no value for a measure."""
    return absent.get(name, UNKNOWN if name in row else "not measured by the version that evaluated this")


def remarks(rows: Iterable[Row], distance: Mapping[str, Any] | None) -> list[str]:
    """Return remarks to print below a table of these rows.

    Args:
        distance: what the distance compares, see `descriptors.in_words`.
    """
    rows = list(rows)
    distances = [name for name, measure in MEASURES.items() if isinstance(measure.computed, OfSongs)]
    known = any(row.get(name) is not None for row in rows for name in distances)
    below = {name for row in rows for name, value in row.items() if value is not None and value < 0}
    found = [descriptors.in_words(distance)] if known else []
    return found + [measure.below_zero for name, measure in MEASURES.items() if measure.below_zero and name in below]
