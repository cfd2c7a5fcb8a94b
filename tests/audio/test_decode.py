"""Sound files are decoded block by block, as often as they are needed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from p2p_dist.audio import decode

RATE = 22050


def written(path: Path, channels: int = 2, seconds: float = 1.5) -> np.ndarray:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * RATE), channels))
    soundfile.write(path, sound, RATE, subtype="PCM_24")
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_blocks_are_the_sound_and_can_be_read_again(tmp_path: Path, name: str) -> None:
    sound = written(tmp_path / name)
    found = decode.look(tmp_path / name)
    assert (found.rate, len(found.channels), found.is_exact) == (RATE, 2, True) and found.told == pytest.approx(1.5)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(found.blocks())), sound)
    assert found.samples == len(sound) and found.peak == np.abs(sound).max() and not found.notes


def test_a_part_is_between_its_samples(tmp_path: Path) -> None:
    sound = written(tmp_path / "a.wav")
    found = decode.look(tmp_path / "a.wav")
    found.begin, found.end = 5000, 12_345
    np.testing.assert_array_equal(np.concatenate(list(found.blocks())), sound[5000:12_345])
    assert found.samples == 7345


@pytest.mark.parametrize(("channels", "front"), [(("1",), (0,)), (("1", "2"), (0, 1)), (("FC", "FL", "LFE", "FR"), (1, 3))])
def test_front_left_and_right_are_found_by_their_names(channels: tuple[str, ...], front: tuple[int, ...]) -> None:
    assert decode.Decoded(Path("a"), RATE, channels, 0.0, True).front == front


@pytest.mark.parametrize("tagged", [False, True])
def test_an_mp3_that_is_cut_is_known_by_the_length_in_its_first_frame(tmp_path: Path, tagged: bool) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (4 * RATE, 2))
    path = tmp_path / "a.mp3"
    soundfile.write(path, sound, RATE, format="MP3")
    content = path.read_bytes()
    if tagged:  # of 300 bytes, which are told in 7 bits each
        content = b"ID3\x03\x00\x00\x00\x00\x02\x2c" + b"Info" * 75 + content
    path.write_bytes(content)
    whole = decode.look(path)
    assert whole.is_exact and sum(len(block) for block in whole.blocks()) == len(sound) and not whole.notes
    path.write_bytes(content[: len(content) // 2])
    cut = decode.look(path)
    length = sum(len(block) for block in cut.blocks()) / RATE
    # To FFmpeg before version 8 the frames count whole, with the silence that the encoder added.
    assert 1.5 < length < 2.5 and cut.notes[0] in {
        f"the file is cut short: it ends at {length:.1f} s, its header says {told} s" for told in (4.0, 4.1)
    }
    path.write_bytes(content[: len(content) * 5 // 6])
    cut = decode.look(path)
    assert sum(len(block) for block in cut.blocks()) and cut.notes[0].startswith("the file is cut short"), "by 0.7 s"
    path.write_bytes(content[content.index(b"\xff\xfb" if b"\xff\xfb" in content else b"\xff\xf3", 400 if tagged else 100) :])
    assert not decode.look(path).is_exact, "without that frame the length is an estimate"


def write_webm(path: Path, pictures: int) -> None:
    """Four seconds of noise as Opus, and so many pictures, one a second."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 4 * 48_000)).astype(np.float32)
    with av.open(str(path), "w", format="webm") as file:
        sound: Any = file.add_stream("libopus", rate=48_000, layout="mono")
        video: Any = file.add_stream("libvpx", rate=1, width=16, height=16, pix_fmt="yuv420p") if pictures else None
        for _ in range(pictures):
            file.mux(video.encode(av.VideoFrame(16, 16, "yuv420p")))
        for begin in range(0, noise.shape[1], 960):
            frame = av.AudioFrame.from_ndarray(noise[:, begin : begin + 960], format="flt", layout="mono")
            frame.sample_rate, frame.pts = 48_000, begin
            file.mux(sound.encode(frame))
        for stream in filter(None, (sound, video)):
            file.mux(stream.encode(None))


def test_a_webm_that_is_cut_is_known_by_its_length(tmp_path: Path) -> None:
    """Without pictures, whose length may be another."""
    path = tmp_path / "a.webm"
    write_webm(path, pictures=0)
    whole = decode.look(path)
    assert sum(len(block) for block in whole.blocks()) >= 4 * 48_000 and not whole.notes
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cut = decode.look(path)
    length = sum(len(block) for block in cut.blocks()) / cut.rate
    assert 1.5 < length < 2.5
    assert cut.notes == [f"the file is cut short: it ends at {length:.1f} s, its header says 4.0 s"]
    write_webm(path, pictures=6)
    longer = decode.look(path)
    assert sum(len(block) for block in longer.blocks()) >= 4 * 48_000 and longer.told > 5 and not longer.notes


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_that_is_cut_has_no_last_page(tmp_path: Path, subtype: str) -> None:
    path, rate = tmp_path / "a.ogg", 24_000
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, (4 * rate, 1))
    with soundfile.SoundFile(path, "w", rate, 1, subtype, format="OGG") as file:
        for start in range(0, len(sound), 4000):
            file.write(sound[start : start + 4000])
    whole = decode.look(path)
    assert sum(len(block) for block in whole.blocks()) >= len(sound) and not whole.notes
    content = path.read_bytes()
    for end in (len(content) // 2, content.rindex(b"OggS")):
        path.write_bytes(content[:end])
        cut = decode.look(path)
        found = sum(len(block) for block in cut.blocks()) / cut.rate
        assert cut.told == pytest.approx(found, abs=0.3)
        assert cut.notes == [f"the file is cut short: it ends at {cut.told:.1f} s, without a last page"]


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN samples"), (-np.inf, "samples of inf, where full scale is 1,")])
def test_what_is_no_sound_is_told_with_its_place(tmp_path: Path, value: float, what: str) -> None:
    sound = np.zeros((24_000, 2))
    sound[20_000:, 1] = value
    soundfile.write(tmp_path / "a.wav", sound, 4000, subtype="FLOAT")
    with pytest.raises(ValueError, match=f"a.wav contains {what} from 5.0 s on: repair the file"):
        list(decode.look(tmp_path / "a.wav").blocks())


def test_an_empty_file_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(ValueError, match=r"a\.wav is empty: copy it again$"):
        decode.look(tmp_path / "a.wav")


def test_a_rate_that_no_music_has_is_refused(tmp_path: Path) -> None:
    """A stem to a file of 1 Hz was made in a minute, of drums to silence."""
    for rate, right in ((1, False), (3999, False), (4000, True)):
        soundfile.write(tmp_path / "a.wav", np.zeros(50), rate)
        if right:
            assert decode.look(tmp_path / "a.wav").rate == rate
        else:
            with pytest.raises(ValueError, match=rf"a\.wav: the sample rate, {rate} Hz, is below the minimum of 4000 Hz"):
                decode.look(tmp_path / "a.wav")


def test_sound_on_the_scale_of_16_bits_is_sound(tmp_path: Path) -> None:
    """As some programs write it as floating-point numbers."""
    soundfile.write(tmp_path / "a.wav", np.full((900, 2), 32768.0), 4000, subtype="FLOAT")
    found = decode.look(tmp_path / "a.wav")
    assert len(np.concatenate(list(found.blocks()))) == 900 and found.peak == 32768.0


def wav_of(samples: np.ndarray, rate: int) -> bytes:
    """A mono wav file of integers, also of a size that no library writes."""
    bits = 8 * samples.dtype.itemsize
    about = struct.pack("<HHIIHH", 1, 1, rate, rate * bits // 8, bits // 8, bits)
    data = samples.tobytes()
    parts = b"WAVEfmt " + struct.pack("<I", len(about)) + about + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(parts)) + parts


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32])
def test_integers_of_any_size_are_fractions_of_full_scale(tmp_path: Path, kind: Any) -> None:
    full = np.iinfo(kind)
    zero = 128 if kind == np.uint8 else 0
    values = np.array([full.min, zero, full.max, (full.min + zero) // 2] * 100, kind)
    (tmp_path / "a.wav").write_bytes(wav_of(values, RATE))
    found = np.concatenate(list(decode.look(tmp_path / "a.wav").blocks()))[:, 0]
    wanted = (values.astype(np.float64) - zero) / (zero - float(full.min))
    np.testing.assert_array_equal(found, wanted.astype(np.float32))
    assert (found[0], found[1], found[3]) == (-1, 0, -0.5)


def test_integers_of_64_bits_are_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    """In a folder of songs, the message said nothing of which it was."""
    (tmp_path / "a.wav").write_bytes(wav_of(np.zeros(900, np.int64), RATE))
    with pytest.raises(ValueError, match=r"a\.wav: samples of the format s64 are not supported: convert it to flac, or to wav"):
        decode.look(tmp_path / "a.wav")
