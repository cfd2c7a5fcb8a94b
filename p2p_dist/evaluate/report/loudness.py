"""Measure the loudness of sounds by ITU-R BS.1770-4 (through pyloudnorm), so that versions can be played equally loud.

A louder version is preferred for its loudness alone; a comparison by ear needs it taken away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyloudnorm

SHORTEST = 0.4
"""Seconds of one block of BS.1770; of a shorter sound there is no loudness."""

_QUIET, _LOUD = -23.0, -14.0  # LUFS: EBU R 128's level, and about that of streaming services
_MOST = 20.0  # dB by which a version is raised at most: more would be its noise


@dataclass(frozen=True)
class Level:
    """How loud a sound is.

    lufs: integrated loudness, LUFS (BS.1770); None for silence and for sounds that are too short. peak: largest absolute value.
    """

    lufs: float | None
    peak: float


def measure(sound: np.ndarray, rate: int) -> Level:
    """The level of a sound, float32 (samples, channels), of one or two channels."""
    peak = float(np.abs(sound).max(initial=0.0))
    if len(sound) <= SHORTEST * rate or not peak:
        return Level(None, peak)
    lufs = float(pyloudnorm.Meter(rate).integrated_loudness(sound))
    return Level(lufs if math.isfinite(lufs) and lufs > -70 else None, peak)


def common(levels: list[Level]) -> float:
    """The loudness in LUFS at which versions are compared: the highest at which none clips, from -23 to -14."""
    most = [one.lufs - 20 * math.log10(one.peak) for one in levels if one.lufs is not None]
    return min(max(min(most, default=_QUIET), _QUIET), _LOUD)


def gain(level: Level, wanted: float) -> float:
    """The gain in dB that gives a sound the wanted loudness, at most what its peak and `_MOST` allow; 0 where it has none."""
    if level.lufs is None:
        return 0.0
    return round(min(wanted - level.lufs, -20 * math.log10(level.peak), _MOST), 1)
