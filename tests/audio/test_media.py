"""What is opened as sound is one file on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import decode, musdb18, stem_mp4
from tests.decode import load
from tests.song_files import source


@pytest.mark.parametrize(("name", "read"), [("a.wav", decode.look), ("a.stem.mp4", lambda path: load(source(path)))])
def test_a_list_of_other_files_is_no_sound_file(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    """FFmpeg goes by content, so whoever wrote it would choose what is read."""
    soundfile.write(tmp_path / "other.wav", np.full((9000, 2), 0.1), 44100)
    (tmp_path / name).write_text("ffconcat version 1.0\nfile other.wav\n")
    with pytest.raises(ValueError, match=f"{name} is a list of other files, not a sound file"):
        read(tmp_path / name)


def test_a_name_that_looks_like_an_address_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(musdb18.excerpt_file(), "pipe:0.stem.mp4")
    assert stem_mp4.header(Path("pipe:0.stem.mp4")) == stem_mp4.header(musdb18.excerpt_file()) != (0, 0, 0)


def test_a_playlist_is_no_sound_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "other.mp3", np.full((44100, 2), 0.1), 44100)
    (tmp_path / "a.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp3\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match=r"a\.m3u8 is a list of other files, not a sound file"):
        decode.look(tmp_path / "a.m3u8")


def test_tags_in_any_encoding_are_passed_over(tmp_path: Path) -> None:
    """As older programs wrote them; PyAV refuses what is not UTF-8 if it is not told otherwise."""
    soundfile.write(tmp_path / "a.wav", np.full((900, 2), 0.1), 44100)
    title = b"LIST" + (16).to_bytes(4, "little") + b"INFOINAM" + (4).to_bytes(4, "little") + b"S\xf5na"
    with (tmp_path / "a.wav").open("r+b") as file:
        size = file.seek(0, 2) + file.write(title)
        file.seek(4)
        file.write((size - 8).to_bytes(4, "little"))
    assert decode.look(tmp_path / "a.wav").rate == 44100
