"""Small settings to train with."""

from __future__ import annotations

import dataclasses

from p2p_dist.settings.config import Config
from p2p_dist.settings.presets import PRESETS


def small(name: str = "default", model=None, **train) -> Config:
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
