"""Settings of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from p2p_dist.settings.fields import added, resource
from p2p_dist.settings.values import NotNegative, NotNegativeNumber, Positive, check


@dataclass(frozen=True)
class Evaluate:
    """How checkpoints are evaluated, and how the best one is chosen."""

    split: Literal["test", "valid"] = "test"
    """held-out songs whose figures are reported; if there are validation songs, these choose the best checkpoint"""
    songs: Positive = 10
    """largest number of songs to evaluate, and of validation songs"""
    seconds: NotNegativeNumber = 30.0
    """length of the excerpt of each song that can be heard, the one with the loudest target (0: the whole song)"""
    windows: NotNegative = added(250, implied=0)
    """windows of 6 seconds that are measured, of all songs together; if the excerpts have fewer, more of each song is measured
    around them, because the distance needs 200 of them with 4 onsets (0: only the excerpts)"""
    iterations: Positive = 32
    """iterations of Griffin-Lim, which converts spectrograms to audio"""
    seeds: Positive = 1
    """number of generations of each song, each with other noise; measures are averaged, the first one is on the page"""
    allow_overlap: Annotated[bool, tyro.conf.arg(aliases=["--allow-overlap"])] = resource(False)
    """also evaluate held-out songs with the same audio as a training song; their figures do not apply to other songs"""
    time_weight: NotNegativeNumber = 1.0
    """weight of the timing measures in the score that ranks checkpoints"""
    real_weight: NotNegativeNumber = 1.0
    """weight of the measures of realistic sound in that score"""
    amount_weight: NotNegativeNumber = 1.0
    """weight of the measures of the amount of playing in that score"""

    def __post_init__(self) -> None:
        check(self, "evaluate.")
        if not self.time_weight + self.real_weight + self.amount_weight:
            raise ValueError("evaluate.time-weight, real-weight and amount-weight must not all be 0")
