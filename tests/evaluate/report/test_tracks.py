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
from p2p_dist.evaluate.report.tracks import FLAC, MARGIN, OPUS, SEGMENT
from tests.evaluate.report.music import music, sound_of


def script(path: Path) -> tuple[str, Any]:
    """What a script hands to the page: an address and its content."""
    found = re.fullmatch(r"mediaLoaded\((.*)\);\n", path.read_text(encoding="ascii"))
    assert found is not None
    address, content = json.loads(f"[{found[1]}]")
    return address, content


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
    assert 64_000 < len(content) / 2.0 * 8 < 160_000
    mono = tracks.write(tmp_path / "song" / "mono", sound_of(whole[:, :1], rate), OPUS)
    of_mono = base64.b64decode(script(tmp_path / "song" / "mono" / "0.js")[1])
    assert mono.samples == len(whole) and len(of_mono) < 0.85 * len(content)
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
    assert tracks.of_file(tmp_path / "a.flac", "a", "b", seconds=5).samples == 8000


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


@pytest.mark.parametrize("seconds", [0.41, 0.44, 0.46, 1.23456, 3.0])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (11025, 2)])
def test_loudness_in_blocks_is_that_of_the_whole_to_the_bit(seconds: float, rate: int, channels: int) -> None:
    whole = (
        music(seconds, rate, channels)
        * np.geomspace(1, 1e-5 if seconds == 3.0 else 0.5, round(seconds * rate), dtype=np.float32)[:, None]
    )
    wanted = pyloudnorm.Meter(rate).integrated_loudness(whole)
    for block in (len(whole), 999):
        found = loudness.measure([whole[at : at + block] for at in range(0, len(whole), block)], rate)
        assert (found.lufs, found.peak) == (wanted, np.abs(whole).max())
