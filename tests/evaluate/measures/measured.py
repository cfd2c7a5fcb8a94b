"""Hits to measure."""

import numpy as np

RATE = 44100


def hits(times, seconds=3.0, level=0.3):
    """(samples, 2): a burst of noise at each time."""
    random = np.random.default_rng(0)
    sound = np.zeros(int(seconds * RATE), np.float32)
    burst = (random.standard_normal(4000) * np.exp(-np.arange(4000) / 600)).astype(np.float32) * level
    for time in times:
        start = int(time * RATE)
        sound[start : start + 4000] += burst[: len(sound) - start]
    return np.repeat(sound[:, None], 2, axis=1)


BEATS = np.arange(0.5, 2.9, 0.25)
