"""Strokes of drums."""

import numpy as np

from p2p_dist.audio.hits import RATE


def strokes(kind, times, seconds, loud=1.0):
    """(samples,) of one drum, as simple as it can be made."""
    random = np.random.default_rng(len(kind))
    sound = np.zeros(int(seconds * RATE))
    time = np.arange(RATE) / RATE
    noise = random.standard_normal(RATE)
    high = np.diff(noise, n=2, prepend=[0, 0])
    one = {
        "kick": 0.8 * np.sin(2 * np.pi * 55 * time) * np.exp(-time / 0.08),
        "snare": (0.2 * noise + 0.3 * np.sin(2 * np.pi * 320 * time)) * np.exp(-time / 0.06),
        "closed": 0.05 * high * np.exp(-time / 0.015),
        "open": 0.05 * high * np.exp(-time / 0.3),
    }[kind]
    for at in times:
        begin = int(at * RATE)
        part = one[: len(sound) - begin]
        sound[begin : begin + len(part)] += loud * part
    return sound
