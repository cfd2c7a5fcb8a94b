"""Sounds of a listening page: segments that fit together, loudness, overview."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyloudnorm
import pytest
import soundfile

from p2p_dist.audio import flac
from p2p_dist.evaluate.report import loudness, tracks
from p2p_dist.evaluate.report.loudness import Level
from p2p_dist.evaluate.report.overview import Overview
from p2p_dist.evaluate.report.tracks import FLAC, MARGIN, OPUS, SEGMENT, Sound


def sound_of(samples: np.ndarray, rate: int, block: int = 30_011) -> Sound:
    return Sound("a", "b", rate, len(samples), lambda: (samples[at : at + block] for at in range(0, len(samples), block)))


def script(path: Path) -> tuple[str, Any]:
    """What a script hands to the page: an address and its content."""
    found = re.fullmatch(r"mediaLoaded\((.*)\);\n", path.read_text(encoding="ascii"))
    assert found is not None
    address, content = json.loads(f"[{found[1]}]")
    return address, content


def music(seconds: float, rate: int, channels: int = 2) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    one = 0.4 * np.sin(2 * np.pi * 330 * time) + 0.1 * np.random.default_rng(1).standard_normal(len(time))
    return np.stack([one, 0.5 * one][:channels], 1).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.02, 3.0, SEGMENT, SEGMENT + 0.05, 2 * SEGMENT - 0.05, 24.3])
def test_segments_fit_together_to_the_sample(tmp_path: Path, seconds: float) -> None:
    rate = 8000
    whole = music(seconds, rate)
    track = tracks.write(tmp_path / "song" / "input", sound_of(whole, rate), FLAC)
    size, margin = round(SEGMENT * rate), round(MARGIN * rate)
    assert (track.rate, track.samples, track.segments) == (rate, len(whole), -(-len(whole) // size))
    for number in range(track.segments):
        address, content = script(tmp_path / "song" / "input" / f"{number}.js")
        assert address == f"song/input/{number}"
        found, its_rate = soundfile.read(io.BytesIO(base64.b64decode(content)), always_2d=True)
        wanted = whole[max(0, number * size - margin) : (number + 1) * size + margin]
        assert its_rate == rate and found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 2.0**-15


def test_opus_keeps_time_level_and_length(tmp_path: Path) -> None:
    rate = 44100
    whole = music(2.0, rate)
    whole[rate : rate + 40] += 0.5
    tracks.write(tmp_path / "song" / "input", sound_of(whole, rate), OPUS)
    content = base64.b64decode(script(tmp_path / "song" / "input" / "0.js")[1])
    assert len(content) < 2.0 * tracks.BIT_RATE / 8 * 1.6
    with av.open(io.BytesIO(content)) as opened:
        found = np.concatenate([frame.to_ndarray() for frame in opened.decode(audio=0)], 1).T
    assert len(found) == 2 * 48000
    assert abs(int(np.abs(found[:, 0]).argmax()) - 48000) < 60
    assert found.std(axis=0) == pytest.approx(whole.std(axis=0), rel=0.05)


@pytest.mark.parametrize(("rate", "channels"), [(96000, 1), (4000, 2), (44100, 6)])
def test_rates_and_channels_that_browsers_do_not_play_are_changed(tmp_path: Path, rate: int, channels: int) -> None:
    whole = np.zeros((rate, channels), np.float32)
    whole[:, 0] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    track = tracks.write(tmp_path / "song" / "input", sound_of(whole, rate), FLAC)
    found, its_rate = soundfile.read(
        io.BytesIO(base64.b64decode(script(tmp_path / "song" / "input" / "0.js")[1])), always_2d=True
    )
    wanted = rate if 8000 <= rate <= 48000 else 48000
    assert (its_rate, track.rate, len(found), found.shape[1]) == (wanted, wanted, wanted, min(channels, 2))
    assert np.abs(np.fft.rfft(found[:, 0])).argmax() == 440 and found[:, 0].std() == pytest.approx(0.5 / 2**0.5, rel=0.01)


def test_a_file_is_read_from_its_begin_with_its_factor(tmp_path: Path) -> None:
    whole = music(1.0, 8000)
    flac.write(tmp_path / "a.flac", whole, 8000, 24, 0, None)
    sound = tracks.of_file(tmp_path / "a.flac", "a", "b", 0.5, 0.25)
    found = np.concatenate(list(sound.blocks()))
    assert (sound.samples, sound.rate, sound.seconds) == (2000, 8000, 0.25)
    assert np.abs(found - 0.5 * whole[:2000]).max() < 1e-6


def test_the_same_is_not_written_twice_and_what_is_damaged_is(tmp_path: Path) -> None:
    folder, sound = tmp_path / "song" / "input", sound_of(music(1.0, 8000), 8000)

    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    first, before = tracks.write(folder, sound, OPUS, "a"), times()
    assert tracks.write(folder, sound, OPUS, "a") == first and times() == before
    for change in ("format", "stamp", "cut", "record", "missing"):
        before = times()
        if change == "cut":
            (folder / "0.js").write_text("")
        if change == "record":
            (folder / "track.json").write_text('{"schema": 1, "rate": "<b>"}')
        if change == "missing":
            (folder / "overview.js").unlink()
        tracks.write(folder, sound, FLAC if change == "format" else OPUS, "b" if change == "stamp" else "a")
        assert times()["track.json"] != before["track.json"], change
        assert len(times()) == 3


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


@pytest.mark.parametrize("seconds", [0.41, 0.44, 0.46, 1.23456, 3.0])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (11025, 2)])
def test_loudness_in_blocks_is_that_of_the_whole_to_the_bit(seconds: float, rate: int, channels: int) -> None:
    whole = music(seconds, rate, channels) * np.geomspace(1, 1e-5, round(seconds * rate), dtype=np.float32)[:, None]
    wanted = pyloudnorm.Meter(rate).integrated_loudness(whole)
    for block in (len(whole), 999):
        found = loudness.measure([whole[at : at + block] for at in range(0, len(whole), block)], rate)
        assert (found.lufs, found.peak) == (wanted, np.abs(whole).max())


def test_of_a_long_sound_parts_from_all_over_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "_MEASURED", 3.0)
    ramp = np.arange(8000 * 10, dtype=np.float32)[:, None]
    found = np.concatenate(list(tracks.measured_part(sound_of(ramp, 8000))))[:, 0]
    assert len(found) == 24000 and found[0] == 0 and found[-1] == 79999
    assert (np.diff(found) > 0).all() and (np.diff(found) > 1).sum() == 11


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
    assert loudness.gain(Level(-24.0, 0.5), -18.0) == 6.0, "no further than its peak allows"
    assert loudness.gain(Level(-60.0, 0.001), -18.0) == 20.0


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
