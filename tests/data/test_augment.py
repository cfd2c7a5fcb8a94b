"""Augmented copies of a song."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.signal

from p2p_dist.data import augment
from p2p_dist.settings.config import Data


def test_copies_are_coloured_below_200_and_above_4000_hz(small: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its frequency a shelf has half the decibels that it has at its end."""
    found = []
    filtered = scipy.signal.sosfilt

    def recorded(sos: np.ndarray, *arguments: Any, **named: Any) -> Any:
        found.append(sos)
        return filtered(sos, *arguments, **named)

    monkeypatch.setattr(scipy.signal, "sosfilt", recorded)
    sound = np.random.default_rng(0).normal(0, 0.1, (22050, 1)).astype(np.float32)
    augment.copy_of({"bass": sound, "drums": sound}, 0, 0.05, replace(small, task="bass->drums"), "s", 0, 1)
    assert len(found) == 4, "two filters, of input and target"
    for sos in found:
        decibels = 20 * np.log10(np.abs(scipy.signal.sosfreqz(sos, [0, 200, 4000, 11025], fs=22050)[1]))
        end, middle, flat = (decibels[[0, 1, 3]]) if abs(decibels[0]) > abs(decibels[3]) else decibels[[3, 2, 0]]
        assert abs(end) > 0.05 and middle == pytest.approx(end / 2) and flat == pytest.approx(0, abs=1e-6)


def test_a_copy_keeps_the_relation_of_input_and_target(small: Data) -> None:
    """Where target and input are the same sound, they stay the same but for the level of the stem heard."""
    random = np.random.default_rng(0)
    sound = (random.normal(0, 0.1, (3 * 22050, 2)) * (np.arange(3 * 22050) % 5000 < 800)[:, None]).astype(np.float32)
    data = replace(small, task="bass->drums")
    levels = set()
    for copy in range(1, 6):
        input, target = augment.copy_of({"bass": sound, "drums": sound}, 40, 0.05, data, "s", 0, copy)
        heard = (input > -60) & (target > -60) & (input < 20) & (target < 20)
        difference = (input.astype(np.float32) - target)[heard]
        assert heard.sum() > 100 and np.ptp(difference) < 0.3 and abs(difference.mean()) <= augment.GAIN + 0.1
        levels.add(round(float(difference.mean()), 1))
    assert len(levels) > 2


@pytest.mark.parametrize("tempo", [0.92, 1.0, 1.08])
def test_stretching_keeps_pitch_and_sums(tempo: float) -> None:
    rate, seconds = 22050, 3
    time = np.arange(seconds * rate) / rate
    parts = np.stack([np.sin(2 * np.pi * 440 * time), 0.3 * np.sin(2 * np.pi * 1234 * time)], axis=1).astype(np.float32)
    length = 2 * rate
    made = augment.stretch(parts, tempo, length)
    assert made.shape == (length, 2)
    for channel, hertz in zip(made.T, (440, 1234), strict=True):
        spectrum = np.abs(np.fft.rfft(channel[2048 : 2048 + rate] * np.hanning(rate)))
        assert abs(int(spectrum.argmax()) - hertz) <= 2
    both = augment.stretch(parts.sum(axis=1, keepdims=True), tempo, length)
    np.testing.assert_allclose(made.sum(axis=1), both[:, 0], atol=1e-5)
    clicks = np.zeros((seconds * rate, 1), np.float32)
    clicks[rate] = 1
    assert abs(int(np.abs(augment.stretch(clicks, tempo, length)).argmax()) - rate / tempo) < 1500
