"""Sound files that are written block by block."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import sound_file
from tests.full_disk import largest_file


@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_blocks_of_any_length_join_to_the_step_and_what_is_too_loud_is_clipped(tmp_path: Path, kind: str) -> None:
    sound = np.random.default_rng(0).uniform(-1.1, 1.1, (40_000, 2)).astype(np.float32)
    with sound_file.SoundFile(tmp_path / "a", kind, 22050, 2, len(sound)) as file:
        for block in np.split(sound, [1, 700, 30_000]):
            file.write(block)
    found, rate = soundfile.read(tmp_path / "a")
    assert rate == 22050 and soundfile.info(tmp_path / "a").subtype == "PCM_24"
    assert np.abs(found - np.clip(sound, -1, 1 - sound_file.STEP)).max() <= sound_file.STEP / 2


def test_what_a_format_can_not_hold_is_refused_and_another_named() -> None:
    for kind in sound_file.FORMATS:
        sound_file.check(kind, 44100, 2)
    with pytest.raises(ValueError, match="ogg of 3 channels is not supported: choose --format flac or wav"):
        sound_file.check("ogg", 44100, 3)
    with pytest.raises(ValueError, match="mp3 does not support 1 channels at 96000 Hz"):
        sound_file.check("mp3", 96000, 1)


@pytest.mark.parametrize("kind", sound_file.FORMATS)
def test_a_disk_that_runs_full_is_an_error_also_in_the_last_flush(tmp_path: Path, kind: str) -> None:
    """libsndfile calls its error "System error.", or leaves the end out."""
    sound, path = np.random.default_rng(0).uniform(-0.5, 0.5, (40_000, 2)), tmp_path / f"a.{kind}"

    def written() -> int:
        with sound_file.SoundFile(path, kind, 22050, 2, len(sound)) as file:
            file.write(sound)
        return path.stat().st_size

    size = written()
    for most in (size - 1, size // 2, 10):
        path.unlink()
        with largest_file(most), pytest.raises(OSError, match="File too large") as raised:
            written()
        assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
