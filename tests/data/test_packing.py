"""Songs are packed into shards of about one size, each at a place that other songs do not change."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_dist.common import files
from p2p_dist.data import manifest as manifests
from p2p_dist.data import packing, shards
from p2p_dist.data.manifest import PARTS
from p2p_dist.settings.config import Data
from tests.data.conftest import fingerprint

SIZES = st.dictionaries(st.text("abc-", min_size=1, max_size=6), st.integers(1, 100), min_size=1, max_size=60)


@given(SIZES, st.integers(1, 300), st.randoms())
def test_a_plan_has_every_song_once_and_no_shard_that_could_be_halved_is_too_large(
    sizes: dict[str, int], most: int, dice: object
) -> None:
    found = packing.plan(sizes, most)
    assert sorted(key for keys in found for key in keys) == sorted(sizes)
    assert all(len(keys) == 1 or sum(sizes[key] for key in keys) <= most for keys in found)
    assert all(keys == sorted(keys) for keys in found)
    shuffled = list(sizes.items())
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert packing.plan(dict(shuffled), most) == found


def test_a_song_more_changes_one_shard() -> None:
    """A thousand songs of 20 in shards of 256: whatever is added, the others stay where they are."""
    sizes = {f"song-{number}": 20 for number in range(1000)}
    before = {tuple(keys) for keys in packing.plan(sizes, 256)}
    assert 100 < sum(sizes.values()) / len(before) < 256
    for number in range(1000, 1030):
        after = {tuple(keys) for keys in packing.plan({**sizes, f"song-{number}": 20}, 256)}
        assert len(before - after) == 1 and 1 <= len(after - before) <= 3


def test_the_size_of_shards_is_a_setting_that_changes_no_sample(songs: Path, small: Data, tmp_path: Path) -> None:
    made = {}
    shards.preprocess(songs, tmp_path / "whole", small, workers=1)
    (shard,) = manifests.read(tmp_path / "whole")["splits"]["train"]["shards"]
    full = sum(size for _, _, size, _ in shard["songs"]) / 1e6  # MB
    assert (tmp_path / "whole" / shard["name"]).stat().st_size % tarfile.RECORDSIZE == 0, "as tar writes it"
    for size in (0.99 * full, full):
        assert shards.preprocess(songs, tmp_path / str(size), replace(small, shard_size=size), workers=1) == []
        part = manifests.read(tmp_path / str(size))["splits"]["train"]
        made[size] = len(part["shards"]), [song["key"] for song in part["songs"]], manifests.windows(part)
    assert made[0.99 * full] == (2, *made[full][1:]) and made[full][0] == 1
    cut, whole = ((tmp_path / str(size)) for size in (0.99 * full, full))
    from p2p_dist.data.index import Index

    assert Index(cut, "train").samples.digest == Index(whole, "train").samples.digest


@pytest.mark.parametrize("when", ["packed", "recorded", "named"])
def test_a_merge_that_is_killed_between_two_shards_goes_on(
    songs: Path, dataset: Path, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Before the record of a shard was written, or the shard got its name, or the files of its songs were removed: no shard
    has no record, and the same bytes.
    """
    out, made, real, count = tmp_path / "out", list[str](), files.write_json, [0]

    def killed(path: Path, value: object) -> None:
        if path.name.startswith("shard-"):
            count[0] += 1
            if when == "recorded":
                real(path, value)
            if count[0] == 2:
                raise KeyboardInterrupt
        real(path, value)

    def kept(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".tar" and path.exists() and not path.name.startswith("."):
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    unlink = Path.unlink
    if when == "named":
        monkeypatch.setattr(Path, "unlink", kept)
    else:
        monkeypatch.setattr(files, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        shards.preprocess(songs, out, small, workers=1)
    monkeypatch.undo()
    assert not (out / manifests.NAME).exists()
    recorded = {path.name.removeprefix("shard-").removesuffix(".json") for path in (out / PARTS).glob("shard-*")}
    shards_there = {path.name for path in (*out.glob("*.tar"), *out.glob("audio/*.tar"))}
    assert len(shards_there) == 1 and shards_there <= recorded
    shards.preprocess(songs, out, small, workers=1, on_song=lambda done, total, result: made.append(result.name))
    assert made == [] and fingerprint(out) == fingerprint(dataset) and not list((out / PARTS).glob("*.tar"))


def test_half_a_shard_that_a_killed_merge_left_is_removed(songs: Path, small: Data, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / PARTS).mkdir(parents=True)
    (out / "audio").mkdir()
    left = out / "audio" / ".tmp-host-1-abc-audio-test-1.tar"
    left.write_bytes(b"half")
    shards.preprocess(songs, out, small, workers=1)
    assert not left.exists()
    shutil.rmtree(out / "audio")
    (out / "audio").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="audio is a link"):
        shards.preprocess(songs, out, small, workers=1)


def test_a_song_that_is_damaged_before_it_is_packed_is_made_again(
    songs: Path, dataset: Path, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", packing.packed

    def damage(folder: Path) -> packing.Packed:
        for path in (out / PARTS).glob("train-a-*.tar"):
            content = bytearray(path.read_bytes())
            content[3000] ^= 1
            path.write_bytes(content)
        return real(folder)

    monkeypatch.setattr(packing, "packed", damage)
    with pytest.raises(files.DamagedError, match=r"train-a-\w+\.tar was damaged.*run the same command again"):
        shards.preprocess(songs, out, small, workers=1)
    monkeypatch.undo()
    made: list[str] = []
    shards.preprocess(songs, out, small, workers=1, on_song=lambda done, total, result: made.append(result.name))
    assert made == ["A"] and fingerprint(out) == fingerprint(dataset)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_song_that_was_added_is_all_that_is_made(
    songs: Path, dataset: Path, new_song: Callable[..., Path], small: Data, tmp_path: Path, split: str
) -> None:
    """At the front of the split, in a folder of the user's own: the others are packed anew from the shards they are in."""
    root, out = Path(shutil.copytree(songs, tmp_path / "songs")), Path(shutil.copytree(dataset, tmp_path / "out"))
    new_song(root / split / "0 First", seed=9)
    made: list[str] = []
    shards.preprocess(root, out, small, workers=1, on_song=lambda done, total, result: made.append(result.name))
    assert made == ["0 First"]
    shards.preprocess(root, tmp_path / "anew", small, workers=2)
    assert fingerprint(out) == fingerprint(tmp_path / "anew")


def test_a_shard_may_be_exactly_full() -> None:
    assert packing.plan({"a": 5, "b": 5}, 10) == [["a", "b"]]
