"""Sounds, and what the page plays of them."""

from __future__ import annotations

import numpy as np

from p2p_dist.evaluate.report.tracks import Sound


def sound_of(samples: np.ndarray, rate: int, block: int = 30_011) -> Sound:
    return Sound("a", "b", rate, len(samples), lambda: (samples[at : at + block] for at in range(0, len(samples), block)))


def music(seconds: float, rate: int, channels: int = 2) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    one = 0.4 * np.sin(2 * np.pi * 330 * time) + 0.1 * np.random.default_rng(1).standard_normal(len(time))
    return np.stack([one, 0.5 * one][:channels], 1).astype(np.float32)
