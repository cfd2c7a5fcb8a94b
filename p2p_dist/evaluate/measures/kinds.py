"""What a measure of a generated stem is: how it is computed, from a stem, its windows or all songs, shown and scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from p2p_dist.evaluate.measures.truth import Stem, StemWindow, TrueWindow, Truth

TIME, REAL, AMOUNT, REPORTED = "in time?", "the real thing?", "the right amount?", "reported only"
"""The families of measures; the last one does not affect the score."""

Row = dict[str, float | None]
"""Name of a measure -> its value; None if it could not be measured. Rows of earlier versions lack newer measures."""

WindowRow = Mapping[str, float | None]
"""Name of a quantity of one window -> its value."""

Quantity = Callable[[StemWindow, TrueWindow], float | None]


@dataclass(frozen=True)
class OfStem:
    """Computed once for a whole stem: the value, or the reason why there is none.

    mixes: also for files that contain mixes. silent_truth: also if the true stem is silent.
    """

    compute: Callable[[Stem, Truth], float | str]
    mixes: bool = True
    silent_truth: bool = False


@dataclass(frozen=True)
class OfWindows:
    """Computed from quantities of each counted window.

    quantities: name, under which it is stored, -> function. combine: computes the value of a song from its windows. absent: the
    reason if there is none. jackknife: whether the interval can be estimated by leaving out windows.
    """

    quantities: Mapping[str, Quantity]
    combine: Callable[[Sequence[WindowRow]], float | None]
    absent: str | Callable[[Truth], str] = "random onsets would score perfectly"
    jackknife: bool = True


@dataclass(frozen=True)
class OfSongs:
    """Computed from the descriptors of all songs: the value and the values with one song left out; or why there is none."""

    compute: Callable[[Sequence[Sequence[np.ndarray | None]], list[np.ndarray]], tuple[float, list[float]] | str]


@dataclass(frozen=True)
class Score:
    """The score of a value, from 0 to 1; words: a description, given the label."""

    of: Callable[[float], float]
    words: str = "{}"


@dataclass(frozen=True)
class Measure:
    """One measure.

    label: title of its column and curve. best: the best value: highest, lowest, or 1.
    limits: the range of its mean. score: its contribution to the score of its family, if any.
    median: whether the median over songs is taken instead of the mean.
    pitched: only for stems with a pitch. digits: decimals. headline: also shown in the progress line of an evaluation.
    below_zero: remark if a value below 0 is shown.
    """

    label: str
    best: Literal["high", "low", "one"]
    family: str
    meaning: str
    computed: OfStem | OfWindows | OfSongs
    limits: tuple[float, float] = (-math.inf, math.inf)
    score: Score | None = None
    median: bool = False
    pitched: bool = False
    digits: int = 2
    headline: bool = False
    below_zero: str = ""

    @property
    def decides(self) -> bool:
        """Whether it belongs to a family that counts in the score."""
        return self.family != REPORTED

    def text(self, value: float, *, certain: bool = True) -> str:
        """Format a value. certain: whether a distance is; an uncertain one begins with ≈."""
        text = f"{value:.{self.digits}f}"
        return text if certain or not isinstance(self.computed, OfSongs) else f"≈ {text}"
