"""Songs in one file: decoded as ffmpeg does; what is damaged, missing or unlike is named."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from p2p_dist.audio import musdb18
from p2p_dist.settings.config import STEMS
from tests import decode
from tests.song_files import clicks, cut_by_edit_list, source, write_stem_file

FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with ffmpeg, which is not installed")

# The encoder fills its last frame, and FFmpeg keeps that; from 9 on it writes, and follows, where the sound ends.
LENGTH = 30_000 if av.library_versions["libavformat"] >= (63,) else -(-30_000 // 1024) * 1024


@pytest.mark.parametrize("size", [0, 100, 5000, 0.5, 0.98])
def test_a_stem_file_cut_anywhere_is_named(tmp_path: Path, size: float) -> None:
    whole = musdb18.excerpt_file().read_bytes()
    path = tmp_path / "cut.stem.mp4"
    path.write_bytes(whole[: int(size if size > 1 else size * len(whole))])
    with pytest.raises(
        ValueError, match=r"cut\.stem\.mp4: (it is empty|not decodable|cut short|[04] sound streams, a stem file has 5)"
    ):
        decode.load(source(path))


def test_a_text_file_with_the_name_of_a_stem_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.stem.mp4"
    path.write_text("words " * 1000)
    with pytest.raises(ValueError, match=r"words\.stem\.mp4: not decodable as a stem file"):
        decode.load(source(path))


@pytest.mark.parametrize("cut", [0, 2500])
def test_every_stream_begins_where_its_sound_begins(tmp_path: Path, cut: int) -> None:
    """What the encoder put before the sound, and what an edit list leaves out, is not there: needs no ffmpeg to compare."""
    path = write_stem_file(tmp_path / "whole.stem.mp4", clicks())
    if cut:
        path = cut_by_edit_list(path, tmp_path / "cut.stem.mp4", cut)
    song = decode.load(source(path))
    for number, name in enumerate(STEMS, 1):
        assert abs(int(np.abs(song.stems[name][:, 0]).argmax()) - (5000 + 1000 * number - cut)) <= 2
        assert len(song.stems[name]) == LENGTH - cut


@FFMPEG
@pytest.mark.parametrize("kind", ["MUSDB18", "encoder's delay", "edit list"])
def test_stem_files_decode_as_ffmpeg_decodes_them(tmp_path: Path, kind: str) -> None:
    """Offset (encoder delay, edit list) and length are ffmpeg's, samples to the rounding of 16 bits."""
    path = musdb18.excerpt_file()
    if kind != "MUSDB18":
        path = write_stem_file(tmp_path / "made.stem.mp4", clicks())
    if kind == "edit list":
        path = cut_by_edit_list(path, tmp_path / "cut.stem.mp4", 2500)
    song = decode.load(source(path))
    length = {"encoder's delay": LENGTH, "edit list": LENGTH - 2500}.get(kind)
    for number, name in enumerate(STEMS, 1):
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", f"0:a:{number}", "-f", "s16le", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        expected = np.frombuffer(raw, "<i2").reshape(-1, 2) / 32768
        assert len(song.stems[name]) == (length or len(expected))
        # The command may be of another version, and keep the encoder's last frame where av does not, or the reverse.
        both = min(len(expected), len(song.stems[name]))
        assert both >= len(expected) - 1024 and (length or both == len(expected))
        assert np.abs(song.stems[name][:both].clip(-1, 32767 / 32768) - expected[:both]).max() <= 1 / 32768


def test_a_stem_file_that_lacks_a_stream_is_named(tmp_path: Path) -> None:
    path = write_stem_file(tmp_path / "four.stem.mp4", clicks()[:4])
    with pytest.raises(ValueError, match=r"four\.stem\.mp4: 4 sound streams, a stem file has 5"):
        decode.load(source(path))


def test_a_stem_file_with_a_damaged_header_is_named(tmp_path: Path) -> None:
    """One byte of it, so that a stream's table of codecs is not found."""
    path = write_stem_file(tmp_path / "flipped.stem.mp4", clicks())
    content = bytearray(path.read_bytes())
    second = content.index(b"mp4a", content.index(b"mp4a", content.index(b"moov")) + 1)
    content[content.rindex(b"stsd", 0, second)] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped\.stem\.mp4: no decoder for drums: the header is damaged"):
        decode.load(source(path))


def test_a_stem_that_begins_later_than_the_others_is_named(tmp_path: Path) -> None:
    """What all of them wait for alike is no reason."""
    whole = write_stem_file(tmp_path / "whole.stem.mp4", clicks())
    later = cut_by_edit_list(whole, tmp_path / "later.stem.mp4", -22050, [1])
    with pytest.raises(ValueError, match=r"later\.stem\.mp4: the stems start at different times \(.*drums 0\.4"):
        decode.load(source(later))
    together = decode.load(source(cut_by_edit_list(whole, tmp_path / "together.stem.mp4", -4410)))
    begins = [int(np.abs(together.stems[name][:, 0]).argmax()) for name in STEMS]
    assert np.ptp(np.diff(begins)) <= 2 and abs(begins[1] - begins[0] - 1000) <= 2


def test_stem_files_whose_streams_differ_are_named(tmp_path: Path) -> None:
    shorter = [sound[: 80_000 - 15_000 * number] for number, sound in enumerate(clicks(80_000))]
    with pytest.raises(ValueError, match=r"short\.stem\.mp4: the stems differ in length \(drums 1\.4"):
        decode.load(source(write_stem_file(tmp_path / "short.stem.mp4", shorter)))
    with pytest.raises(ValueError, match=r"rate\.stem\.mp4: the stems differ in rate"):
        decode.load(source(write_stem_file(tmp_path / "rate.stem.mp4", clicks(), [44100, 44100, 44100, 44100, 48000])))


def test_streams_of_8_bits_are_fractions_of_full_scale(tmp_path: Path) -> None:
    """They were said to have samples that are not finite."""
    path, values = tmp_path / "a.stem.mp4", np.arange(256, dtype=np.uint8).repeat(40)
    with av.open(str(path), "w", format="mov") as container:
        streams = [container.add_stream("pcm_u8", rate=8000, layout="mono") for _ in range(5)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(values[None], "u8", "mono")
            frame.sample_rate = 8000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    song = decode.load(source(path))
    for name in STEMS:
        np.testing.assert_array_equal(song.stems[name][:, 0], (values.astype(np.float32) - 128) / 128)
