"""Loudness of what the page plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyloudnorm
import pytest

from p2p_dist.evaluate.report import loudness, tracks
from p2p_dist.evaluate.report.loudness import Level
from p2p_dist.evaluate.report.tracks import FLAC
from tests.evaluate.report.music import music, sound_of


def test_loudness_is_that_of_the_sound_alone_and_mixed(tmp_path: Path) -> None:
    rate, stem, heard = 8000, music(2.0, 8000), music(2.0, 8000)[::-1].copy()
    track = tracks.write(tmp_path / "song" / "a", sound_of(stem, rate), FLAC, beside=sound_of(heard, rate, 7_001))
    meter = pyloudnorm.Meter(rate)
    assert track.mixed is not None
    assert track.alone.lufs == pytest.approx(meter.integrated_loudness(stem))
    assert track.mixed.lufs == pytest.approx(meter.integrated_loudness(stem + heard))
    assert track.mixed.peak == pytest.approx(np.abs(stem + heard).max())
    quieter = tracks.write(tmp_path / "song" / "b", sound_of(stem * np.float32(0.5), rate), FLAC)
    assert track.alone.lufs - quieter.alone.lufs == pytest.approx(6.02, abs=0.01)


def test_of_a_long_sound_parts_from_all_over_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "_MEASURED", 3.0)
    ramp = np.arange(8000 * 10, dtype=np.float32)[:, None]
    found = np.concatenate(list(tracks.measured_part(sound_of(ramp, 8000).blocks(), 8000, len(ramp))))[:, 0]
    assert len(found) == 24000 and found[0] == 0 and found[-1] == 79999
    assert (np.diff(found) > 0).all() and (np.diff(found) > 1).sum() == 11


def test_of_a_long_sound_the_peak_of_the_whole_limits_the_gain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracks, "_MEASURED", 3.0)
    rate, quiet = 8000, music(10.0, 8000) * np.float32(0.1)
    click = quiet.copy()
    click[4000] = 0.9  # after the first measured part
    track = tracks.write(tmp_path / "song" / "a", sound_of(click, rate), FLAC, beside=sound_of(quiet, rate))
    assert track.alone.lufs == tracks.write(tmp_path / "song" / "b", sound_of(quiet, rate), FLAC).alone.lufs
    assert track.alone.peak == np.float32(0.9) and track.mixed is not None
    assert track.mixed.peak == np.abs(click + quiet).max()
    assert loudness.gain(track.alone, -14.0) == 0.9


def test_silence_and_very_short_sounds_have_no_loudness_and_no_gain() -> None:
    for sound in (np.zeros((8000, 2)), np.zeros((0, 1)), music(0.3, 8000), np.full((8000, 1), 1e-7)):
        level = loudness.measure([sound.astype(np.float32)], 8000)
        assert level.lufs is None and loudness.gain(level, -18.0) == 0.0
    assert loudness.common([]) == -23.0
    quiet = loudness.measure([music(1.0, 8000) * np.float32(1.5e-3)], 8000).lufs
    assert quiet is not None and -70 < quiet < -60, "quiet, and still a sound"


def test_versions_are_played_as_loud_as_the_one_with_the_highest_peaks_allows() -> None:
    assert loudness.common([Level(-10.0, 1.0), Level(-20.0, 0.5)]) == -14.0
    assert loudness.common([Level(-10.0, 1.0), Level(-18.0, 1.0)]) == -18.0
    assert loudness.common([Level(-10.0, 1.0), Level(-40.0, 1.0)]) == -23.0
    assert loudness.gain(Level(-10.0, 1.0), -18.0) == -8.0
    assert loudness.gain(Level(-34.0, 0.5), -18.0) == 6.0, "no further than its peak allows"
    assert loudness.gain(Level(-10.26, 1.0), -18.0) == -7.7, "in tenths of a dB"
    assert loudness.gain(Level(-60.0, 0.001), -18.0) == 20.0
