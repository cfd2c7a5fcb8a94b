"""The length that the header of a wav file states is compared with the file."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_dist.audio import wav
from p2p_dist.audio.decode import look
from tests import decode
from tests.song_files import source, write_stems


def rewrite(path: Path, place: bytes, offset: int, value: int) -> None:
    """Put a number of 32 bits so many bytes behind a word of a file."""
    content = bytearray(path.read_bytes())
    begin = content.index(place) + offset
    content[begin : begin + 4] = value.to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_wav_files_that_are_all_cut_at_one_byte_are_cut_short(tmp_path: Path, kind: str, share: float) -> None:
    """libsndfile reads what is there, so that all four agree on the shorter length."""
    folder = write_stems(tmp_path / "song", samples=44100)
    for path in folder.iterdir():
        soundfile.write(path, *soundfile.read(path), subtype=kind)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"drums\.wav: cut short, its header says 1\.000 s, 0\.(500|999) s"):
        decode.load(source(folder))


def test_a_long_wav_that_is_cut_is_cut_short(tmp_path: Path) -> None:
    """RF64, whose length stands in a chunk of its own."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((4410, 2)), 44100, format="RF64", subtype="PCM_16")
    assert wav.whole(path) == path
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"a\.wav: cut short, its header says 0\.100 s"):
        wav.whole(path)


@pytest.mark.parametrize("kind", ["AIFF", "W64", "AU"])
def test_other_formats_with_the_name_of_a_wav_are_cut_short_too(tmp_path: Path, kind: str) -> None:
    """libsndfile goes by the content, and reads what is there."""
    path = tmp_path / "drums.wav"
    soundfile.write(path, np.zeros((4411, 1)), 44100, format=kind, subtype="PCM_16")
    assert wav.whole(path) == path
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=rf"drums\.wav: cut short, its header says {size} bytes, {size - 400} are there"):
        wav.whole(path)


@pytest.mark.parametrize("length", [0, 0x7FFFF000, 0x7FFFFFD3, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_is_read_to_its_end(tmp_path: Path, length: int) -> None:
    """Who wrote it could not go back to fill in the length."""
    folder = write_stems(tmp_path / "song")
    before = decode.load(source(folder))
    rewrite(folder / "drums.wav", b"data", 4, length)
    rewrite(folder / "drums.wav", b"RIFF", 4, length + 36 & 0xFFFFFFFF)
    np.testing.assert_array_equal(decode.load(source(folder)).stems["drums"], before.stems["drums"])


def test_a_header_that_states_much_less_than_there_is_is_damaged(tmp_path: Path) -> None:
    """As of a recorder that stopped before it could complete the header. Both libraries read what the header states."""
    folder = write_stems(tmp_path / "song", samples=44100)
    drums = folder / "drums.wav"
    sound = (np.random.default_rng(0).standard_normal((44100, 2)) * 3000).astype(np.int16)
    soundfile.write(drums, sound, 44100)
    rewrite(drums, b"data", 4, 1000)
    with pytest.raises(
        ValueError, match=r"drums\.wav: damaged, its header says 0\.006 s, 1\.000 s are there: repair its header"
    ):
        decode.load(source(folder))
    assert look(drums).cut == "the file is damaged, its header says 0.006 s, 1.000 s are there: repair its header"


@pytest.mark.parametrize(
    "rest", [b"LIST\x06\0\0\0words\0", b"ID3\4" + bytes(range(256)) * 200, b"\0" * 50000, b"TAG" + bytes(125), b"?" * 100]
)
def test_what_may_follow_the_samples_of_a_wav(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones((4410, 2)) / 2, 44100)
    path.write_bytes(path.read_bytes() + rest)
    assert wav.whole(path) == path


def test_a_big_endian_wav_is_compared_too_and_is_not_played_as_noise(tmp_path: Path) -> None:
    """libsndfile reads it, FFmpeg takes its samples for little-endian ones."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones((4410, 2)) / 2, 44100, endian="BIG")
    assert path.read_bytes()[:4] == b"RIFX" and wav.whole(path) == path
    with pytest.raises(ValueError, match=r"a\.wav is a big-endian wav file \(RIFX\), .* convert it to wav or flac"):
        look(path)
    path.write_bytes(path.read_bytes()[:-8000])
    with pytest.raises(ValueError, match=r"a\.wav: cut short, its header says 0\.100 s, 0\.055 s are there"):
        wav.whole(path)


def test_a_wav_without_samples_has_none_though_chunks_follow(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 2)), 44100)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content + b"LIST\x05\0\0\0words\0")
    assert wav.whole(tmp_path / "a.wav") == tmp_path / "a.wav"


def test_a_damaged_wav_full_of_empty_chunks_is_not_walked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((10, 2)), 44100)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:36] + bytes(80_000))
    asked: list[bytes] = []
    honest = wav._is_name
    monkeypatch.setattr(wav, "_is_name", lambda chunk: asked.append(chunk) or honest(chunk))
    assert wav.whole(tmp_path / "a.wav") == tmp_path / "a.wav" and asked == [b"fmt ", bytes(4)]


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 60))
def test_a_damaged_wav_header_is_no_traceback(content: bytes, place: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        soundfile.write(path, np.zeros((10, 2)), 44100)
        whole = path.read_bytes()
        path.write_bytes(whole[:place] + content + whole[place + len(content) :])
        with contextlib.suppress(ValueError):
            wav.whole(path)


NOISE = bytes(range(256)) * 100


@pytest.mark.parametrize(
    "rest", [b"APETAGEX" + NOISE, b"TAG" + NOISE, bytes(range(100)), b"LIST" + struct.pack("<I", 25601) + NOISE + b"x"]
)
def test_more_that_may_follow_the_samples_of_a_wav(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones((4410, 2)) / 2, 44100)
    path.write_bytes(path.read_bytes() + rest)
    assert wav.whole(path) == path


def test_samples_of_an_odd_length_are_padded_before_further_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(4411) / 2, 44100, subtype="PCM_U8")
    data = path.read_bytes()
    path.write_bytes(data + b"\0" * (len(data) % 2) + b"id3 " + struct.pack("<I", 25600) + NOISE)
    assert wav.whole(path) == path


def test_chunks_of_a_big_endian_wav_are_big_endian(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones((4410, 2)) / 2, 44100, endian="BIG")
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack(">I", 25600) + NOISE)
    assert wav.whole(path) == path


def test_one_missing_sample_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones((4410, 2)) / 2, 44100)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="cut short"):
        wav.whole(path)
