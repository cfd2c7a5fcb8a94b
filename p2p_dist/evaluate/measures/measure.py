"""One stem of one song, measured: its row, the reason of each absence, and what its means and intervals are made of.

What can't be measured is None, with its reason beside it; it is never a 0 in a mean.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from p2p_dist.evaluate.measures import descriptors
from p2p_dist.evaluate.measures.kinds import OfStem, OfWindows, Row, WindowRow
from p2p_dist.evaluate.measures.table import MEASURES, TRUTH_SILENT
from p2p_dist.evaluate.measures.truth import Stem, Truth

NO_WINDOW = "the true stem has no 6-second window with 4 onsets that are loud enough relative to the input"
MIXES = "the files hold mixes, so the stem is unknown"


@dataclass(frozen=True)
class Measured:
    """The measures of one stem of one song.

    row: its measures, without those of all songs together; None if missing. absent: the reason for each None.
    windows: quantities of each counted window. described: the 41 descriptors of each, None if the stem is silent.
    """

    row: Row
    absent: dict[str, str] = field(default_factory=dict)
    windows: Sequence[WindowRow] = ()
    described: Sequence[np.ndarray | None] = ()


def measure(sound: np.ndarray, truth: Truth, names: Collection[str] = MEASURES.keys()) -> Measured:
    """Compute measures of one stem, float32 (samples, channels) at the song's rate, as long as the true stem.

    Args:
        names: of the measures to compute; the others are None, without a reason. Those of windows take the least time.
    """
    stem = Stem(sound, truth)
    windows = window_rows(stem)
    row: Row = {}
    absent: dict[str, str] = {}
    for name, one in MEASURES.items():
        value: float | str | None = None
        if name not in names:
            pass
        elif truth.mixes and not (isinstance(one.computed, OfStem) and one.computed.mixes):
            value = MIXES
        elif isinstance(one.computed, OfStem):
            value = one.computed.compute(stem, truth) if one.computed.silent_truth or not truth.silent else TRUTH_SILENT
        elif isinstance(one.computed, OfWindows):
            value = one.computed.combine(windows)
            value = _why_no_value(one.computed, windows, truth) if value is None else value
        row[name] = None if isinstance(value, str) else value
        if isinstance(value, str):
            absent[name] = value
    described = [descriptors.describe(one.power) if one.power.max() > 0 else None for one in stem.windows]
    return Measured(row, absent, windows, described)


def combine(windows: Sequence[WindowRow]) -> Row:
    """Compute the measures of one song whose intervals are estimated from its windows."""
    return {
        name: one.computed.combine(windows)
        for name, one in MEASURES.items()
        if isinstance(one.computed, OfWindows) and one.computed.jackknife
    }


def window_rows(stem: Stem) -> list[WindowRow]:
    """Compute the quantities of each counted window."""
    quantities = {
        name: compute
        for one in MEASURES.values()
        if isinstance(one.computed, OfWindows)
        for name, compute in one.computed.quantities.items()
    }
    return [
        {name: compute(window, true) for name, compute in quantities.items()}
        for window, true in zip(stem.windows, stem.truth.windows, strict=True)
    ]


def _why_no_value(computed: OfWindows, windows: Sequence[WindowRow], truth: Truth) -> str:
    if not windows:
        return TRUTH_SILENT if truth.silent else NO_WINDOW
    return computed.absent if isinstance(computed.absent, str) else computed.absent(truth)
