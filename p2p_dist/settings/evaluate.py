"""Settings of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from p2p_dist.settings.fields import resource
from p2p_dist.settings.values import NotNegativeNumber, Positive, check


@dataclass(frozen=True)
class Evaluate:
    """How checkpoints are evaluated, and how the best one is chosen."""

    split: Literal["test", "valid"] = "test"
    """the songs held out from training whose figures are reported; validation songs, where there are some, choose"""
    songs: Positive = 10
    """at most so many of them, and as many validation songs"""
    seconds: NotNegativeNumber = 30.0
    """of each song: its part with the most target sound (0: the whole song)"""
    iterations: Positive = 32
    """of Griffin-Lim, from spectrogram to sound"""
    seeds: Positive = 2
    """generations of each song, each from other noise, whose measures are averaged; the first is heard"""
    allow_overlap: Annotated[bool, tyro.conf.arg(aliases=["--allow-overlap"])] = resource(False)
    """also measure held-out songs with the same audio as a training song, whose figures do not apply to other songs"""
    time_weight: NotNegativeNumber = 1.0
    """in the score that ranks checkpoints: of being in time"""
    real_weight: NotNegativeNumber = 1.0
    """in that score: of sounding like the real thing"""
    amount_weight: NotNegativeNumber = 1.0
    """in that score: of being the right amount"""

    def __post_init__(self) -> None:
        check(self, "evaluate.")
        if not self.time_weight + self.real_weight + self.amount_weight:
            raise ValueError("evaluate.time-weight, real-weight and amount-weight must not all be 0")
