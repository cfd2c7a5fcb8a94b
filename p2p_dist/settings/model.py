"""Settings of the two networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from p2p_dist.settings.fields import added
from p2p_dist.settings.values import NotNegative, Positive, ShareBelowOne, check, within


@dataclass(frozen=True)
class Model:
    """The two networks."""

    channels: Positive = 64
    """channels of the generator's first level; each deeper level has twice as many"""
    max_channels: Positive = 1024
    """largest number of channels of a level of the generator"""
    depth: Annotated[int, within(1, 16)] = 5
    """number of levels of the generator; each halves the spectrogram"""
    upsample: Literal["folded", "nearest", "transposed"] = "folded"
    """nearest: nearest neighbour, then a 3x3 convolution; folded: the same function in one convolution, faster; transposed: a
    transposed 4x4 convolution, as in the thesis (causes checkerboard artefacts)"""
    norm: Literal["group", "batch"] = "group"
    """group norm, or batch norm with the statistics of the batch (thesis)"""
    dropout: ShareBelowOne = 0.0
    """dropout probability in the generator's three deepest up levels, in training and generation (thesis: 0.5)"""
    noise_channels: NotNegative = 1
    """channels of noise in the generator's input, which make generations differ (0: none)"""
    sketch: bool = added(False, implied=False)
    """show the generator a sketch of the drums as well: real strokes at onsets that a small network predicts (task drums)"""
    beat_phase: bool = added(False, implied=False)
    """with a sketch: show it the place in the beat as well, as sine and cosine"""
    on_steps: bool = added(False, implied=False)
    """with a sketch: predicted strokes are on sixteenth notes or triplets of the beats that are heard"""
    even_classes: bool = added(False, implied=False)
    """with a sketch: kick, snare, hat and others have their shares of the predicted strokes in every 24 seconds, not only in
    the whole song"""
    repeat_pattern: bool = added(False, implied=False)
    """with a sketch: average the prediction of each beat over the 32 beats before and after it; the same beat of other bars of
    four counts most"""
    soft_hats: bool = added(False, implied=False)
    """with a sketch: add soft hi-hat strokes at the next most likely times, about one for every three other strokes"""
    residual: bool = added(False, implied=False)
    """with a sketch: the output is the sketch, made louder or quieter bin by bin, and silent where the sketch is silent"""
    keep_level: bool = added(False, implied=False)
    """with the residual: each window of the output is as loud as that of the sketch; without it this changes nothing"""
    leaky_slope: Annotated[float, within(-10, 10)] = 0.2
    """negative slope of the leaky ReLU (Keras and thesis: 0.3)"""
    discriminator_channels: Positive = 64
    """channels of the discriminator's first level"""
    discriminator_norm: Literal["spectral", "batch"] = "spectral"
    """spectral norm of the weights, or batch norm (thesis)"""

    def __post_init__(self) -> None:
        check(self, "model.")
        for name in ("beat_phase", "on_steps", "even_classes", "repeat_pattern", "soft_hats", "residual", "keep_level"):
            if getattr(self, name) and not self.sketch:
                raise ValueError(f"model.{name.replace('_', '-')} needs a sketch: add --model.sketch, or give --preset plain")

    def guide_channels(self, pictures: int) -> int:
        """Channels beside input and noise: those of the sketch, which has `pictures`, then sine and cosine of the beat."""
        return (pictures if self.sketch else 0) + (2 if self.beat_phase else 0)
