"""Sound files that are written block by block."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
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


@pytest.mark.parametrize(("channels", "name"), [(1, "WAV"), (2, "WAV"), (3, "WAVEX"), (6, "WAVEX")])
def test_a_wav_file_of_more_than_four_gigabytes_is_one_with_a_header_of_64_bits(
    tmp_path: Path, channels: int, name: str
) -> None:
    """Others are plain WAV as far as they can be, which all programs read."""
    most = ((1 << 32) - (1 << 16)) // (3 * channels)
    for samples, wanted in ((0, name), (most, name), (most + 1, "RF64")):
        with sound_file.SoundFile(tmp_path / "a", "wav", 44100, channels, samples) as file:
            file.write(np.zeros((16, channels)))
        assert soundfile.info(tmp_path / "a").format == wanted, samples


def test_a_long_block_does_not_overflow_the_stack(tmp_path: Path) -> None:
    """On which libsndfile's Vorbis encoder keeps a whole block: the process died without a message."""
    code = f"""
import numpy as np
from pathlib import Path
from p2p_dist.audio import sound_file
with sound_file.SoundFile(Path({str(tmp_path / "a.ogg")!r}), "ogg", 22050, 2) as file:
    file.write(np.zeros((400_000, 2), np.float32))
"""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (1 << 19, hard)),
    )
    assert soundfile.info(tmp_path / "a.ogg").frames == 400_000


def test_what_a_format_can_not_hold_is_refused_and_another_named() -> None:
    for kind in sound_file.FORMATS:
        sound_file.check(kind, 44100, 2)
    with pytest.raises(ValueError, match="ogg of 3 channels is not supported: choose --format flac or wav"):
        sound_file.check("ogg", 44100, 3)
    sound_file.check("ogg", 200_000, 2)
    for rate in (200_001, 352_800, 384_000):  # libsndfile ends the process there
        with pytest.raises(ValueError, match=f"ogg does not support {rate} Hz: choose --format flac or wav"):
            sound_file.check("ogg", rate, 2)
    with pytest.raises(ValueError, match=r"mp3 does not support 1 channels at 96000 Hz .*: choose --format flac or wav$"):
        sound_file.check("mp3", 96000, 1)
    with pytest.raises(ValueError, match=r"flac does not support 9 channels at 44100 Hz .*: choose --format wav$"):
        sound_file.check("flac", 44100, 9)


@pytest.mark.parametrize("kind", ["mp3", "ogg"])
def test_what_is_too_loud_is_clipped_before_it_is_compressed(tmp_path: Path, kind: str) -> None:
    tone = 3 * np.sin(np.arange(20_000)[:, None] / 10)
    with sound_file.SoundFile(tmp_path / "a", kind, 22050, 1) as file:
        file.write(tone)
    assert 0.9 < np.abs(soundfile.read(tmp_path / "a")[0][2000:-2000]).max() < 1.5


def test_a_name_that_is_not_utf8_is_kept(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/S\xf5na.wav"))
    with sound_file.SoundFile(path, "wav", 22050, 1) as file:
        file.write(np.zeros((16, 1)))
    assert path.stat().st_size == 44 + 3 * 16


@pytest.mark.parametrize("kind", sound_file.FORMATS)
def test_a_disk_that_runs_full_is_an_error_also_in_the_last_flush(tmp_path: Path, kind: str) -> None:
    """libsndfile calls its error "System error.", or leaves the end out."""
    sound, path = np.random.default_rng(0).uniform(-0.5, 0.5, (40_000, 2)), tmp_path / f"a.{kind}"

    def written() -> int:
        with sound_file.SoundFile(path, kind, 22050, 2, len(sound)) as file:
            file.write(sound)
        return path.stat().st_size

    size = written()
    assert size < 300_000, "nothing is left behind its end, where it is tried whether there is room"
    for most in (size - 1, size // 2, 10):
        path.unlink()
        with largest_file(most), pytest.raises(OSError, match="File too large") as raised:
            written()
        assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
