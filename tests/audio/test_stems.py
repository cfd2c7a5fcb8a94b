"""Songs are decoded: alignment to the sample, and every kind of damaged file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import musdb18, stems
from p2p_dist.settings.config import STEMS
from tests import decode
from tests.song_files import source, write_stems


@pytest.mark.parametrize(("rate", "channels", "suffix"), [(44100, 2, ".wav"), (8000, 1, ".flac"), (48000, 3, ".wav")])
def test_folders_are_read_at_their_own_rate_and_channels(tmp_path: Path, rate: int, channels: int, suffix: str) -> None:
    song = decode.load(source(write_stems(tmp_path / "song", rate, channels, 900, suffix)))
    assert song.sample_rate == rate and list(song.stems) == list(STEMS)
    written = np.random.default_rng(1).uniform(-0.5, 0.5, (900, channels))
    for name in STEMS[:1]:
        assert song.stems[name].dtype == np.float32
        np.testing.assert_allclose(song.stems[name], written, atol=1 / 32767)


def test_only_the_stems_asked_for_are_decoded(tmp_path: Path) -> None:
    folder = write_stems(tmp_path / "song")
    (folder / "vocals.wav").unlink()
    assert list(decode.load(source(folder), ["bass", "drums"]).stems) == ["drums", "bass"]
    with pytest.raises(ValueError, match=r"song: no vocals\.wav"):
        decode.load(source(folder))


def test_the_mix_is_the_sum_of_the_stems() -> None:
    song = decode.load(source(musdb18.excerpt_file()))
    total = sum(song.stems[name].astype(np.float64) for name in ("bass", "vocals"))
    np.testing.assert_allclose(song.sum_of(["bass", "vocals"]), total, atol=1e-6)


def damage_length(folder: Path) -> None:
    samples, rate = soundfile.read(folder / "bass.wav")
    soundfile.write(folder / "drums.wav", np.concatenate([samples, np.zeros((44101, 2))]), rate)


def damage_rate(folder: Path) -> None:
    samples, _ = soundfile.read(folder / "other.wav")
    soundfile.write(folder / "other.wav", samples, 22050)


def damage_numbers(folder: Path) -> None:
    samples, rate = soundfile.read(folder / "drums.wav")
    samples[100] = np.nan
    soundfile.write(folder / "drums.wav", samples, rate, subtype="FLOAT")


def damage_range(folder: Path) -> None:
    soundfile.write(folder / "drums.wav", np.full((4410, 2), 1e36), 44100, subtype="FLOAT")


def damage_header(folder: Path) -> None:
    """What ffmpeg leaves when it can't go back: no length. A header may also claim any."""
    (folder / "drums.wav").rename(folder / "whole.wav")
    soundfile.write(folder / "drums.flac", *soundfile.read(folder / "whole.wav"))
    content = bytearray((folder / "drums.flac").read_bytes())
    content[21] &= 0xF0  # the length is 36 bits of the first block, which begins at 8
    content[22:26] = bytes(4)
    (folder / "drums.flac").write_bytes(content)


def damage_to_a_huge_header(folder: Path) -> None:
    damage_header(folder)
    content = bytearray((folder / "drums.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = bytes([0xFF] * 4)
    (folder / "drums.flac").write_bytes(content)


def damage_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def damage_kind(folder: Path) -> None:
    (folder / "vocals.wav").write_text("this is no sound")


def damage_to_a_pipe(folder: Path) -> None:
    """Opening it would wait for a writer, for ever."""
    (folder / "vocals.wav").unlink()
    os.mkfifo(folder / "vocals.wav")


def damage_to_nothing(folder: Path) -> None:
    (folder / "vocals.wav").write_bytes(b"")


def damage_to_no_samples(folder: Path) -> None:
    for name in STEMS:
        soundfile.write(folder / f"{name}.wav", np.zeros((0, 2)), 44100)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            damage_length,
            r"the stems differ in length \(drums 1.100 s, 48511 samples, bass 0.100 s, 4410 samples.*by more than 1 s",
        ),
        (damage_rate, "the stems differ in rate"),
        (damage_numbers, r"drums\.wav: stem drums contains NaN or infinite samples"),
        (damage_range, r"drums\.wav: stem drums contains samples of 1e\+36, full scale is 1"),
        (damage_header, r"drums\.flac: a streamed flac without a length.*ffmpeg -i"),
        (damage_to_a_huge_header, r"drums\.flac: can't be read as audio"),
        (damage_link, r"song: broken link \(target nowhere\)"),
        (damage_kind, "vocals.wav: can't be read as audio"),
        (damage_to_a_pipe, r"vocals\.wav: not a file that can be read as audio: remove it"),
        (damage_to_nothing, "vocals.wav: it is empty: copy it again"),
        (damage_to_no_samples, "no samples"),
    ],
)
def test_damaged_folders_are_named(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    folder = write_stems(tmp_path / "song")
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        decode.load(source(folder))
    assert "song" in str(error.value)


@pytest.mark.parametrize("shorter", [1, 4409, 44100 - 4410])
def test_stems_of_nearly_one_length_end_in_silence(tmp_path: Path, shorter: int) -> None:
    folder = write_stems(tmp_path / "song", samples=44100)
    samples, rate = soundfile.read(folder / "bass.wav", dtype="float32")
    soundfile.write(folder / "bass.wav", samples[: len(samples) - shorter], rate)
    song = decode.load(source(folder))
    assert {len(sound) for sound in song.stems.values()} == {44100}
    np.testing.assert_array_equal(song.stems["bass"][: 44100 - shorter], samples[: 44100 - shorter])
    assert not song.stems["bass"][44100 - shorter :].any()
    _, (drums, both) = stems.load_sums(source(folder), [("drums",), ("bass", "other")])
    assert (drums.filled, both.filled) == (0, shorter)


def test_a_part_of_a_song_is_that_part_of_the_whole(tmp_path: Path) -> None:
    song = source(write_stems(tmp_path / "song", rate=8000, samples=30_000))
    _, (whole,) = stems.load_sums(song, [("bass", "other")])
    for begin, end in ((0, 1), (1, 3), (3, 9), (5, 6)):
        _, (part,) = stems.load_sums(song, [("bass", "other")], part=(begin, end))
        np.testing.assert_array_equal(part.sound, whole.sound[8000 * begin : 8000 * end])
        assert (part.peak, part.power) == (whole.peak, whole.power)


def test_headers_say_how_much_there_is_to_decode(tmp_path: Path) -> None:
    write_stems(tmp_path / "flac", 8000, 3, 900, ".flac")
    assert stems.header(source(tmp_path / "flac")) == (8000, 3, 900)
    rate, channels, samples = stems.header(source(musdb18.excerpt_file()))
    assert (rate, channels) == (44100, 2) and 0 <= samples - 262_000 < 10_000
    (tmp_path / "bad.stem.mp4").write_text("words")
    for bad in ("flac/drums.flac", "bad.stem.mp4", "nothing"):
        assert stems.header(source(tmp_path / bad))[2] in (0, 900)


def test_mono_is_what_librosa_loads(tmp_path: Path) -> None:
    from tests.uncompiled import librosa

    folder = write_stems(tmp_path / "song", samples=30000)
    song = decode.load(source(folder), ["bass"])
    expected, _ = librosa.load(folder / "bass.wav", sr=22050)
    np.testing.assert_array_equal(stems.mono(song.stems["bass"], 44100, 22050), expected)
