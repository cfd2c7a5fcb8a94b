"""Songs that another dataset has are copied from it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2p_dist.common import files
from p2p_dist.data import dataset as datasets
from p2p_dist.data import manifest as manifests
from p2p_dist.data import packing, shards, song_pairs
from p2p_dist.settings.config import Data
from tests.data.conftest import fingerprint, shard_of


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of songs whose pictures were made."""
    titles, real = [], song_pairs.from_sound

    def from_sound(song, *arguments):  # type: ignore[no-untyped-def]
        titles.append(song.source.name)
        return real(song, *arguments)

    monkeypatch.setattr(song_pairs, "from_sound", from_sound)
    return titles


@pytest.fixture
def more(songs: Path, small: Data, new_song: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path, Path]:
    """Songs of which one is new, the dataset of those before, and the folder of theirs."""
    root = Path(shutil.copytree(songs, tmp_path / "songs"))
    before = tmp_path / "shelf" / datasets.dataset_name(root, small)
    shards.preprocess(root, before, small, workers=1)
    new_song(root / "train/0 First", seed=9)
    return root, before, tmp_path / "shelf" / datasets.dataset_name(root, small)


def test_of_a_dataset_with_a_song_more_only_that_is_made(
    more: tuple[Path, Path, Path], small: Data, tmp_path: Path, made: list[str]
) -> None:
    root, before, out = more
    untouched = fingerprint(before)
    assert before != out
    shards.preprocess(root, out, small, workers=1)
    assert made == ["0 First"] and fingerprint(before) == untouched
    shards.preprocess(root, tmp_path / "anew", small, workers=1)
    assert len(made) == 6 and fingerprint(out) == fingerprint(tmp_path / "anew")


def test_a_song_that_is_damaged_there_is_made(more: tuple[Path, Path, Path], small: Data, made: list[str]) -> None:
    root, before, out = more
    shard = shard_of(before, "C")
    content = bytearray(shard.read_bytes())
    (begin,) = (place[1] for name, place in packing.packed(before).items() if name.startswith("train-c-"))
    content[begin + 3000] ^= 1
    shard.write_bytes(content)
    shards.preprocess(root, out, small, workers=1)
    assert sorted(made) == ["0 First", "C"]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE, errno.EIO])
def test_what_is_removed_while_it_is_read_is_made(
    more: tuple[Path, Path, Path], small: Data, made: list[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Another job packs the songs of that dataset anew. What the disk cannot read is an error."""
    root, before, out = more
    real = packing.blocks

    def blocks(place: tuple[Path, int], size: int) -> Iterator[bytes]:
        if place[0] == shard_of(before, "C"):
            raise OSError(number, os.strerror(number), str(place[0]))
        return real(place, size)

    monkeypatch.setattr(packing, "blocks", blocks)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"):
            shards.preprocess(root, out, small, workers=1)
    else:
        shards.preprocess(root, out, small, workers=1)
        assert {"0 First", "C"} <= set(made) and manifests.read(out)


def test_a_song_that_is_another_now_is_made(
    more: tuple[Path, Path, Path], small: Data, made: list[str], new_song: Callable[..., Path]
) -> None:
    root, before, _ = more
    shutil.rmtree(root / "train/C")
    new_song(root / "train/C", seed=77)
    shards.preprocess(root, before.with_name(datasets.dataset_name(root, small)), small, workers=1)
    assert sorted(made) == ["0 First", "C"]


def test_a_dataset_that_others_may_write_is_not_trusted(more: tuple[Path, Path, Path], small: Data, made: list[str]) -> None:
    root, before, out = more
    (before / "parts").chmod(0o777)
    assert files.not_only_ours(before / "parts")
    shards.preprocess(root, out, small, workers=1)
    assert len(made) == 5 and manifests.read(out)
