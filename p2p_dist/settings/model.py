"""Settings of the two networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from p2p_dist.settings.fields import added
from p2p_dist.settings.values import NotNegative, Number, Positive, ShareBelowOne, check, within


@dataclass(frozen=True)
class Model:
    """The two networks."""

    channels: Positive = 64
    """channels of the generator's first level"""
    max_channels: Positive = 1024
    """channels of its deepest levels"""
    depth: Annotated[int, within(1, 16)] = 5
    """how often the generator halves the picture"""
    upsample: Literal["folded", "nearest", "transposed"] = "folded"
    """nearest: nearest neighbour and a 3x3 convolution; folded: the same function, computed in one step, faster; transposed: a
    transposed 4x4 convolution (the thesis's; leaves a checkerboard)"""
    norm: Literal["group", "batch"] = "group"
    """group norm, or batch norm on the batch's own statistics (the thesis's)"""
    dropout: ShareBelowOne = 0.0
    """share dropped on the generator's three deepest up levels, in training and generation alike (the thesis: 0.5)"""
    noise_channels: NotNegative = 1
    """pictures of noise beside the input, the source of variety (0: none)"""
    sketch: bool = added(False, implied=False)
    """the generator also sees a sketch of the drums: real strokes, laid where a small network predicts onsets (task drums)"""
    beat_phase: bool = added(False, implied=False)
    """beside the sketch it sees the place in the beat, as sine and cosine"""
    residual: bool = added(False, implied=False)
    """the output is the sketch, made louder or quieter bin by bin, and silent where the sketch is silent"""
    leaky_slope: Number = 0.2
    """slope of the leaky ReLU below zero (Keras, and so the thesis: 0.3)"""
    discriminator_channels: Positive = 64
    """channels of the discriminator's first level"""
    discriminator_norm: Literal["spectral", "batch"] = "spectral"
    """spectral norm of the weights, or batch norm (the thesis's)"""

    def __post_init__(self) -> None:
        check(self, "model.")
        for name, wanted in (("beat-phase", self.beat_phase), ("residual", self.residual)):
            if wanted and not self.sketch:
                raise ValueError(f"model.{name} needs a sketch: add --model.sketch, or leave it out")

    def guide_channels(self, pictures: int) -> int:
        """Channels beside input and noise: those of the sketch, which has `pictures`, then sine and cosine of the beat."""
        return (pictures if self.sketch else 0) + (2 if self.beat_phase else 0)
