"""Small settings to train with."""

from __future__ import annotations

import dataclasses

from p2p_dist.settings.config import Config
from p2p_dist.settings.presets import PRESETS

SMALLEST = {"channels": 4, "max_channels": 8, "depth": 3, "discriminator_channels": 4}
"""Every kind of layer and of state that a training has, in two thirds of the time of the preset's networks."""


def small(name: str = "plain", model=None, **train) -> Config:
    """A preset's networks and losses at the size of a test."""
    of, tiny = PRESETS[name], PRESETS["tiny"]
    sizes = {"channels": 8, "max_channels": 32, "depth": 4, "discriminator_channels": 8}
    return dataclasses.replace(
        tiny,
        model=dataclasses.replace(of.model, **{**sizes, **(model or {})}),
        train=dataclasses.replace(of.train, **train),
    )


def thesis(**train) -> Config:
    """The thesis's networks with a 1 x 1 bottleneck."""
    return small("thesis", model={"depth": 5}, **train)
