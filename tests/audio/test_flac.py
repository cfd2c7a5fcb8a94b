"""Sound files that say where they come from and how loud they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import flac
from tests.audio.flac_tags import read_tags
from tests.full_disk import largest_file

RATE = 44100


def noise(peak: float) -> np.ndarray:
    sound = np.random.default_rng(0).uniform(-1, 1, (3000, 2)).astype(np.float32)
    sound[1000, 1] = -1
    return sound * np.float32(peak)


@pytest.mark.parametrize(("bits", "error"), [(24, 2.0**-23), (16, 2.0**-15)])
def test_what_fits_is_written_at_its_own_level(tmp_path: Path, bits: int, error: float) -> None:
    sound = noise(0.9)
    flac.write(tmp_path / "x.flac", sound, RATE, bits, 7, flac.quieter(0.9))
    read, rate = soundfile.read(tmp_path / "x.flac", dtype="float32")
    assert rate == RATE and soundfile.info(tmp_path / "x.flac").subtype == f"PCM_{bits}"
    assert np.abs(read - sound).max() <= error
    assert read_tags(tmp_path / "x.flac")["GAIN"] == "1"


def test_what_clips_is_turned_down_by_the_gain_that_is_told(tmp_path: Path) -> None:
    sound, gain = noise(3.7), flac.quieter(3.7, 3.0)
    assert gain == -14.4
    flac.write(tmp_path / "x.flac", sound, RATE, 24, 1356077, gain)
    read, _ = soundfile.read(tmp_path / "x.flac", dtype="float32")
    tags = read_tags(tmp_path / "x.flac")
    expected = {"BEGIN_SAMPLE": "1356077", "BEGIN_SECONDS": "30.750045", "GAIN": "0.190546072", "GAIN_DB": "-14.4"}
    assert tags == expected
    assert np.abs(read / float(tags["GAIN"]) - sound).max() < 1e-6


@pytest.mark.parametrize(("bits", "step"), [(24, 2.0**-23), (16, 2.0**-15)])
def test_what_is_still_too_loud_is_cut_off_and_does_not_wrap(tmp_path: Path, bits: int, step: float) -> None:
    sound = np.array([[1.5], [-1.5], [0.5]], dtype=np.float32)
    flac.write(tmp_path / "x.flac", sound, RATE, bits, 0, 0.0)
    assert soundfile.read(tmp_path / "x.flac")[0].tolist() == [1 - step, -1, 0.5]


@pytest.mark.parametrize("peak", [1.0000001, 1.01, 1.1220184, 2.0, 3.7, 100.0])
@pytest.mark.parametrize("room", [0.0, 3.0])
def test_a_gain_is_the_smallest_in_tenths_that_fits(peak: float, room: float) -> None:
    gain = flac.quieter(peak, room)
    assert round(10 * gain) == pytest.approx(10 * gain)
    assert peak * flac.factor(gain + room) <= 1 < peak * flac.factor(gain + room + 0.11)


def test_what_fits_keeps_its_level() -> None:
    assert [flac.quieter(peak, 3.0) for peak in (0.0, 0.5, 1.0)] == [0, 0, 0]


def test_tags_of_other_programs_are_replaced_and_a_file_without_any_has_none(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    soundfile.write(path, noise(0.5), RATE, format="FLAC", subtype="PCM_16")
    assert "GAIN" not in read_tags(path)
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16", format="FLAC") as file:
        file.title = "Dawn"
        file.write(noise(0.5))
    assert read_tags(path)["TITLE"] == "Dawn"
    path.write_bytes(flac.with_tags(path.read_bytes(), {"GAIN": "1"}))
    assert read_tags(path) == {"GAIN": "1"}
    assert np.array_equal(soundfile.read(path, dtype="int16")[0], np.rint(noise(0.5) * 2**15).astype(np.int16))


def test_a_disk_that_runs_full_is_an_error_with_the_name(tmp_path: Path) -> None:
    """What was there stays."""
    path = tmp_path / "x.flac"
    flac.write(path, noise(0.5), RATE, 16, 0, 0.0)
    kept = path.read_bytes()
    with largest_file(len(kept) // 2), pytest.raises(OSError, match="File too large") as raised:
        flac.write(path, np.tile(noise(0.6), (10, 1)), RATE, 16, 0, 0.0)
    assert raised.value.filename == str(path)
    assert path.read_bytes() == kept and list(tmp_path.iterdir()) == [path]
