"""Pictures of a whole sound."""

from __future__ import annotations

import base64
import io
from typing import Any

import av
import numpy as np
import pytest

from p2p_dist.evaluate.report.overview import Overview
from tests.evaluate.report.music import music


def _overview(sound: np.ndarray, rate: int, block: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    overview = Overview(rate, len(sound))
    for at in range(0, len(sound), block):
        overview.add(sound[at : at + block])
    found = overview.finish()
    with av.open(io.BytesIO(base64.b64decode(found["picture"]))) as opened:
        picture = next(opened.decode(video=0)).to_ndarray(format="gray")
    peaks = np.frombuffer(base64.b64decode(found["peaks"]), np.int8).reshape(-1, 2)
    return peaks, picture, found


@pytest.mark.parametrize("rate", [8000, 44100])
def test_the_overview_shows_level_time_and_frequency(rate: int) -> None:
    sound = np.zeros((2 * rate, 1), np.float32)
    sound[rate:, 0] = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
    peaks, picture, axes = _overview(sound, rate, 10_000)
    assert peaks.shape == (100, 2) and picture.shape == (128, 100)
    assert np.abs(peaks[:50]).max() == 0 and (np.abs(np.abs(peaks[51:]) - 64.0) <= 1).all()
    assert picture[:, :45].max() == 0
    row = picture[:, 75].argmax()
    frequency = axes["low"] * (axes["high"] / axes["low"]) ** ((127 - row) / 127)
    assert frequency == pytest.approx(1000, rel=0.05) and axes["high"] == min(16000, rate / 2)
    assert picture[row, 75] / 255 * 100 - 100 == pytest.approx(-6, abs=4), "dB below full scale"


def test_the_overview_does_not_depend_on_the_blocks_and_a_long_sound_is_no_wider() -> None:
    sound = music(40.0, 8000)
    one, other = _overview(sound, 8000, len(sound)), _overview(sound, 8000, 777)
    assert one[1].shape == (128, 1500) and (one[0] == other[0]).all()
    assert np.abs(one[1].astype(int) - other[1]).max() <= 8, "a step of grey, where float32 rounds otherwise"
    assert _overview(np.zeros((5, 1), np.float32), 8000, 5)[1].shape == (128, 1)
