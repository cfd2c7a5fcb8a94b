"""Measure the loudness of audio by ITU-R BS.1770-4, with pyloudnorm's filters, so that versions can be played equally loud.

Listeners prefer the louder of two versions, so a comparison by ear needs equal loudness.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyloudnorm
import scipy.signal

SHORTEST = 0.4
"""Seconds of one block of BS.1770. Shorter audio has no loudness."""

_STEP = 0.25  # hop between gating blocks, as a fraction of a block
_OFFSET = -0.691  # LUFS at a power of 1
_SILENT = -70.0  # LUFS: quieter blocks are ignored
_QUIET, _LOUD = -23.0, -14.0  # LUFS: EBU R 128's level, and about that of streaming services
_MOST = 20.0  # dB, the largest gain; more would amplify noise


@dataclass(frozen=True)
class Level:
    """The level of an audio signal.

    lufs: integrated loudness, LUFS (BS.1770); None for silence and for audio that is too short. peak: largest absolute value.
    """

    lufs: float | None
    peak: float


def measure(blocks: Iterable[np.ndarray], rate: int) -> Level:
    """Measure the level of audio in blocks, float32 (samples, channels), with one or two channels.

    The result equals that of `pyloudnorm.Meter.integrated_loudness` to the bit, which needs hundreds of MB for a few minutes.
    """
    filters = [
        pyloudnorm.IIRfilter(4.0, 1 / np.sqrt(2), 1500.0, rate, "high_shelf"),
        pyloudnorm.IIRfilter(0.0, 0.5, 38.0, rate, "high_pass"),
    ]
    states: list[np.ndarray] = []
    powers: list[list[float]] = []  # per gating block and channel
    held, begin, peak = np.zeros((0, 0), np.float32), 0, 0.0  # `held` begins at sample `begin`

    def add_power() -> None:
        start, end = _gating_block(len(powers), rate)
        part = held[start - begin : end - begin]
        powers.append([float(1 / (SHORTEST * rate) * np.sum(np.square(channel))) for channel in part.T])

    for block in blocks:
        if not len(block):
            continue
        peak = max(peak, float(np.abs(block).max()))
        states = states or [np.zeros((2, block.shape[1])) for _ in filters]
        for number, one in enumerate(filters):
            filtered, states[number] = scipy.signal.lfilter(one.b, one.a, block, axis=0, zi=states[number])
            block = filtered.astype(np.float32)
        held = np.concatenate([held, block]) if held.size else block
        while begin + len(held) >= _gating_block(len(powers), rate)[1]:
            add_power()
            drop = _gating_block(len(powers), rate)[0] - begin
            held, begin = held[drop:], begin + drop
    samples = begin + len(held)
    if samples <= SHORTEST * rate or not peak:
        return Level(None, peak)
    if len(powers) < round((samples / rate - SHORTEST) / (SHORTEST * _STEP)) + 1:
        add_power()  # the last block, if more than half of its last step is present
    lufs = _gated(np.array(powers))
    return Level(lufs if math.isfinite(lufs) and lufs > _SILENT else None, peak)


def _gating_block(number: int, rate: int) -> tuple[int, int]:
    """Return the first sample of a gating block and that after its end."""
    return int(SHORTEST * (number * _STEP) * rate), int(SHORTEST * (number * _STEP + 1) * rate)


def _gated(powers: np.ndarray) -> float:
    """Return the integrated loudness of gating blocks, (blocks, channels), in LUFS; -inf if none is loud enough."""

    def loudness(of: np.ndarray) -> float:
        return float(_OFFSET + 10 * np.log10(sum(channel[of].mean() for channel in powers.T)))

    with np.errstate(divide="ignore"):
        each = _OFFSET + 10 * np.log10(powers.sum(axis=1))
    loud = each >= _SILENT
    return loudness(loud & (each > loudness(loud) - 10)) if loud.any() else -math.inf


def common(levels: list[Level]) -> float:
    """Return the loudness at which versions are compared, in LUFS: the highest without clipping, from -23 to -14."""
    most = [one.lufs - 20 * math.log10(one.peak) for one in levels if one.lufs is not None]
    return min(max(min(most, default=_QUIET), _QUIET), _LOUD)


def gain(level: Level, wanted: float) -> float:
    """Return the gain, dB, to reach a loudness, limited by the peak and `_MOST`; 0 if the audio has no loudness."""
    if level.lufs is None:
        return 0.0
    return round(min(wanted - level.lufs, -20 * math.log10(level.peak), _MOST), 1)
