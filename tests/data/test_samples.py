"""The index of a dataset: keys when asked for, one copy a node, and every way in which it can be wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2p_dist.common import files
from p2p_dist.data import columns, samples
from p2p_dist.data.samples import Columns, Sample

SONGS = ("a-0a0a0a0a", "b-0b0b0b0b")


def write(folder: Path, **changed: Any) -> dict[str, Any]:
    """An index of five samples of two songs in two shards; what a manifest says of the split."""
    rows = {
        "begin": [0, 3000, 6000, 0, 2**40],
        "shard": [0, 0, 0, 1, 1],
        "song": [0, 0, 0, 1, 1],
        "window": [0, 0, 7, 0, 123456],
        "copy": [0, 2, 0, 0, 0],
        "input": [700, 701, 702, 703, 704],
        "target": [1800, 1801, 1802, 1803, 1804],
        "length": [3000, 3000, 2000, 2500, 2500],
        "checksum": [1, 2**32 - 1, 3, 4, 5],
    }
    entry = columns.write(folder, "train", {name: np.array(values) for name, values in {**rows, **changed}.items()})
    return {
        "songs": [{"name": song, "key": song} for song in SONGS],
        "shards": [{"name": "train-00000.tar"}, {"name": "train-00001.tar"}],
        "index": entry,
    }


def test_where_a_sample_lies(tmp_path: Path) -> None:
    found = Columns(tmp_path, write(tmp_path), "feistel")
    assert len(found) == 5
    assert found.sample(0) == Sample("a-0a0a0a0a-00000", "train-00000.tar", 700, 1800, 1)
    assert found.sample(1) == Sample("a-0a0a0a0a-00000-copy2", "train-00000.tar", 3701, 4801, 2**32 - 1)
    assert found.sample(4) == Sample("b-0b0b0b0b-123456", "train-00001.tar", 2**40 + 704, 2**40 + 1804, 5)
    assert (found.byte_range(4), found.byte_range(2)) == ((2**40, 2**40 + 2500), (6000, 8000))
    assert found.offsets(np.array([3, 1])) == ([1, 0], [703, 3701], [1803, 4801])
    assert found.originals_of(SONGS[0]) == ([0, 2], [0, 7])
    assert found.originals_of("c") == ([], [])


def test_the_rows_of_schema_3_know_originals_from_copies() -> None:
    keys = ["a-0a-00000", "a-0a-00000-copy1", "a-0a-00007", "b-0b-00000"]
    found = samples.Rows({"shards": [{"name": "x.tar"}], "samples": [[key, "x.tar", 0, 1, 2] for key in keys]})
    assert found.originals_of("a-0a") == ([0, 2], [0, 7]) and found.originals_of("b-0b") == ([3], [0])


def test_the_digest_is_of_the_windows_and_not_of_where_they_lie(tmp_path: Path) -> None:
    """Packed otherwise, a dataset is the same for a training that goes on; with another window it is not."""

    def digest(order: str = "feistel", **changed: Any) -> str:
        return Columns(tmp_path, write(tmp_path, **changed), order).digest

    assert digest() == digest(shard=[0, 0, 0, 0, 0], begin=[1, 2, 3, 4, 5])
    assert len({digest(), digest(window=[0, 0, 7, 0, 1]), digest(copy=[0, 1, 0, 0, 0]), digest(song=[0, 0, 0, 0, 1])}) == 4
    found = Columns(tmp_path, write(tmp_path), "sorted")
    assert found.digest == files.digest([found.key(number) for number in range(5)])[:12], "as of the rows of schema 3"


@pytest.mark.parametrize("column", ["shard", "song"])
def test_an_index_of_shards_or_songs_that_are_not_listed_is_damaged(tmp_path: Path, column: str) -> None:
    """Its digest is one that anybody can make."""
    part = write(tmp_path, **{column: [0, 0, 0, 1, 2]})
    with pytest.raises(files.DamagedError, match=f"has a {column} that the manifest does not list"):
        Columns(tmp_path, part, "feistel")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A node's memory, in which even the smallest index is shared."""
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(samples, "MEMORY", tmp_path / "memory")
    monkeypatch.setattr(samples, "SHARED_FROM", 0)
    yield tmp_path / "memory"
    assert not list((tmp_path / "memory").rglob(f"{files.TEMPORARY}*"))


def copies(memory: Path) -> list[Path]:
    return [path for path in memory.rglob("*") if path.is_file() and path.name != ".lock"]


def test_the_processes_of_a_node_share_one_copy(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = write(tmp_path)
    first, second = (samples.open_columns(tmp_path, part["index"]) for _ in range(2))
    (copy,) = copies(memory)
    assert copy.name == part["index"]["sha256"] and hashlib.sha256(copy.read_bytes()).hexdigest() == copy.name
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in (copy.parent, copy.parent.parent))
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(str(copy)) == 2, "mapped, not read"
    for name in columns.COLUMNS:
        assert np.array_equal(first[name], second[name]) and not first[name].flags.writeable
    os.truncate(tmp_path / part["index"]["name"], 10)  # by somebody else: a map of this one would be SIGBUS
    assert first["begin"].tolist()[-1] == 2**40
    other = write(tmp_path, window=[1, 2, 3, 4, 5])
    samples.open_columns(tmp_path, other["index"])
    assert [path.name for path in copies(memory)] == [other["index"]["sha256"]], "one copy is kept"
    assert first["begin"].tolist()[-1] == 2**40, "who has it mapped keeps it"


def test_a_copy_that_is_not_what_was_written_is_made_anew(tmp_path: Path, memory: Path) -> None:
    part = write(tmp_path)
    expected = columns.read(tmp_path, part["index"])
    samples.open_columns(tmp_path, part["index"])
    (copy,) = copies(memory)
    whole = copy.read_bytes()
    victim = tmp_path / "victim"
    victim.write_bytes(whole[:-1] + b"x")
    for spoil in (
        lambda: copy.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]),
        lambda: copy.write_bytes(whole[:-1]),
        lambda: (copy.unlink(), copy.symlink_to(victim)),
    ):
        spoil()
        found = samples.open_columns(tmp_path, part["index"])
        assert all(np.array_equal(found[name], expected[name]) for name in columns.COLUMNS)
        assert not copy.is_symlink() and copy.read_bytes() == whole and victim.read_bytes()[-1:] == b"x"


def test_where_there_is_no_room_the_index_is_read(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = write(tmp_path)
    monkeypatch.setattr(samples.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 0, 100))  # type: ignore[attr-defined]
    assert samples.open_columns(tmp_path, part["index"])["length"].sum() == 13000
    assert copies(memory) == []
    monkeypatch.setattr(samples, "MEMORY", tmp_path / "none")
    assert samples.open_columns(tmp_path, part["index"])["length"].sum() == 13000


def test_a_folder_that_others_made_is_not_used(tmp_path: Path, memory: Path) -> None:
    part = write(tmp_path)
    ours = memory / f"p2p_dist-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    ours.symlink_to(tmp_path / "elsewhere")
    assert samples.open_columns(tmp_path, part["index"])["length"].sum() == 13000
    assert not list((tmp_path / "elsewhere").iterdir())
    if os.geteuid() == 0:
        ours.unlink()
        ours.mkdir()
        os.chown(ours, 4321, -1)
        assert samples.open_columns(tmp_path, part["index"])["length"].sum() == 13000
        assert not list(ours.iterdir())


@pytest.mark.parametrize("shared", [True, False])
def test_a_damaged_index_is_named(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """Cut short, flipped by a bit, or not there: also where an earlier process of the node might have made a copy."""
    if not shared:
        monkeypatch.setattr(samples, "SHARED_FROM", 1 << 24)
    part = write(tmp_path)
    path = tmp_path / part["index"]["name"]
    whole = path.read_bytes()
    for content, message in (
        (whole[:-1], "it has 199 bytes, the manifest says 200, and 5 samples take 200"),
        (whole[:100] + bytes([whole[100] ^ 8]) + whole[101:], "its sha256 differs from the manifest"),
    ):
        path.write_bytes(content)
        with pytest.raises(files.DamagedError, match=rf"{path.name} is damaged: {message}; remove it "):
            Columns(tmp_path, part, "feistel")
    path.unlink()
    with pytest.raises(files.DamagedError, match="it is missing"):
        Columns(tmp_path, part, "feistel")
    assert copies(memory) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_copy_that_another_user_owns_is_not_mapped(tmp_path: Path, memory: Path) -> None:
    part = write(tmp_path)
    samples.open_columns(tmp_path, part["index"])
    (copy,) = copies(memory)
    os.chown(copy, 4321, -1)
    before = Path("/proc/self/maps").read_text().count(str(copy))
    found = samples.open_columns(tmp_path, part["index"])
    assert found["length"].sum() == 13000 and Path("/proc/self/maps").read_text().count(str(copy)) == before
