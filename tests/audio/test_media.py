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
