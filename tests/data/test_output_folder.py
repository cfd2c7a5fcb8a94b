"""The folder of shards: what may be written where, and who may write at once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from p2p_dist.data import output_folder
from p2p_dist.settings.config import Data


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_folder_with_other_files_or_other_settings_is_refused(tmp_path: Path, out: Path) -> None:
    output_folder.refuse(tmp_path / "songs", out, Data())
    (out / "letter.txt").touch()
    with pytest.raises(ValueError, match=r"out contains other files \(letter\.txt\): name a new folder, or an empty one"):
        output_folder.refuse(tmp_path / "songs", out, Data())
    for name in "abc":
        (out / name).touch()
    with pytest.raises(ValueError, match=r"out contains other files \(a, b, c\): "):
        output_folder.refuse(tmp_path / "songs", out, Data())
    for path in out.iterdir():
        path.unlink()
    with output_folder.claim(tmp_path / "songs", out, Data(), shared=False):
        pass
    output_folder.refuse(tmp_path / "songs", out, Data())
    changed = dataclasses.replace(Data(), mels=32)
    with pytest.raises(ValueError, match=r"out was made with other settings \(.*mels.*\): name another folder"):
        output_folder.refuse(tmp_path / "songs", out, changed)
    with pytest.raises(ValueError, match="out was made with other settings"):  # by a process that was first to lock it
        with output_folder.claim(tmp_path / "songs", out, changed, shared=False):
            pass


@pytest.mark.parametrize(("inside", "split_by_title"), [("train/out", False), ("Test/out", False), ("out", True)])
def test_a_folder_among_the_songs_is_refused(tmp_path: Path, inside: str, split_by_title: bool) -> None:
    data = dataclasses.replace(Data(), split_by_title=split_by_title)
    with pytest.raises(ValueError, match=re.escape(f"{inside} is inside the folder of songs, so it would be read as a song")):
        output_folder.refuse(tmp_path, tmp_path / inside, data)
    output_folder.refuse(tmp_path, tmp_path.with_name("beside"), data)


def test_a_link_into_the_folder_of_songs_is_refused_and_a_link_to_nowhere(tmp_path: Path) -> None:
    """By another name it is the same folder; and a split may be a link to songs elsewhere."""
    root, elsewhere = tmp_path / "songs", tmp_path / "elsewhere"
    (root / "train").mkdir(parents=True)
    elsewhere.mkdir()
    (root / "test").symlink_to(elsewhere)
    (tmp_path / "link").symlink_to(root / "train")
    (root / "validation" / "Track").mkdir(parents=True)  # of Slakh2100
    (root / "validation" / "Track" / "metadata.yaml").touch()
    for inside in (tmp_path / "link" / "out", elsewhere / "out", root / "validation" / "out", root / "valid" / "out"):
        with pytest.raises(ValueError, match="out is inside the folder of songs"):
            output_folder.refuse(root, inside, Data())
    output_folder.refuse(root, root / "shards", Data())
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="gone is a broken link: name another folder"):
        output_folder.refuse(root, tmp_path / "gone", Data())
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is not a folder: name another folder"):
        output_folder.refuse(root, tmp_path / "file", Data())


def test_the_last_of_those_that_share_a_folder_is_told(tmp_path: Path, out: Path) -> None:
    """If it failed: two members of an array merge at once, or none does."""
    with output_folder.claim(tmp_path, out, Data(), shared=True) as one:
        with output_folder.claim(tmp_path, out, Data(), shared=True) as other:
            assert not output_folder.is_last(one), "the other one shares it"
            assert output_folder.is_last(other), "the first one gave its lock up when it asked"
        assert output_folder.is_last(one)
