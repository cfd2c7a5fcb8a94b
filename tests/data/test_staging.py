"""The training data of a run brought to a node."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2p_dist.common import console, files
from p2p_dist.data import manifest as manifests
from p2p_dist.data import remote, staging, transfer
from p2p_dist.data.index import Index
from p2p_dist.data.staging import copy_to_node
from p2p_dist.data.transfer import fetch_files
from p2p_dist.settings.config import Data
from tests.data.server import Server


def test_the_copy_on_the_node_is_checked_and_made_once(dataset: Path, tmp_path: Path) -> None:
    first = copy_to_node(dataset, "train", tmp_path)
    made = {path.name: path.stat().st_mtime_ns for path in first.glob("*.tar")}
    assert copy_to_node(dataset, "train", tmp_path) == first
    assert {path.name: path.stat().st_mtime_ns for path in first.glob("*.tar")} == made
    here, there = Index(dataset, "train"), Index(first, "train")
    np.testing.assert_array_equal(here.read(np.arange(len(here))), there.read(np.arange(len(there))))


def test_only_one_process_of_a_node_reads_the_copy_whole(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it failed: each of eight processes reads all of it, one after the other, before the first step."""
    first = copy_to_node(dataset, "train", tmp_path)
    (shard, *_) = sorted(first.glob("*.tar"))
    note, read = first / "checked.json", []
    honest = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda path: read.append(path.name) or honest(path))

    def again() -> list[str]:
        read.clear()
        assert copy_to_node(dataset, "train", tmp_path) == first
        return list(read)

    assert again() == []
    for touched in (lambda: os.utime(shard), lambda: os.utime(shard, ns=(1, 1)), lambda: shard.rename(tmp_path / "a")):
        touched()
        if (tmp_path / "a").exists():
            shutil.copy(tmp_path / "a", shard)
        assert again() == [shard.name], "its time of change or inode is another, so it may be another file"
        assert again() == []
    for harm in (lambda: note.write_text("[]"), lambda: note.chmod(0o666), note.unlink):
        harm()
        assert shard.name in again(), "what is not known, or somebody else may have written, is not believed"
        note.chmod(0o644)
        assert again() == []


def test_what_lies_in_the_nodes_memory_is_compared_whoever_wrote_it(dataset: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    first = copy_to_node(dataset, "train", memory)
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in (first, first.parent))
    shard = next(first.glob("*.tar"))
    good = shard.read_bytes()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    first.parent.chmod(0o755)  # as earlier versions made it, by the umask
    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (first / manifests.NAME).write_text("{}")
    copy_to_node(dataset, "train", memory)
    assert shard.read_bytes() == good and len(Index(first, "train")) and first.parent.stat().st_mode & 0o777 == 0o700
    for name in (shard.name, manifests.NAME):
        (first / name).unlink()
        (first / name).symlink_to(victim)
    copy_to_node(dataset, "train", memory)
    assert not shard.is_symlink() and shard.read_bytes() == good and not (first / manifests.NAME).is_symlink()
    (first / ".lock").unlink()
    (first / ".lock").symlink_to(victim)
    with pytest.raises(OSError, match="a symbolic link, which is not followed"):
        copy_to_node(dataset, "train", memory)
    assert victim.read_text() == "mine"


def test_a_folder_in_the_nodes_memory_that_others_made_is_not_used(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / f"p2p_dist-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    ours.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"a link or a file.*--data.stage none"):
        copy_to_node(dataset, "train", tmp_path)
    assert not list((tmp_path / "elsewhere").iterdir())
    ours.unlink()
    for mode in (0o702, 0o720):
        ours.mkdir()
        ours.chmod(mode)
        with pytest.raises(OSError, match=r"could be written by other users.*--data.stage none"):
            copy_to_node(dataset, "train", tmp_path)
        assert not list(ours.iterdir())
        ours.rmdir()
    if os.geteuid() == 0:
        ours.mkdir()
        os.chown(ours, 4321, -1)
        with pytest.raises(OSError, match=r"belongs to user 4321.*; else name another folder with \$TMPDIR, or use --data"):
            copy_to_node(dataset, "train", tmp_path)
        monkeypatch.setattr(staging, "MEMORY", tmp_path)
        with pytest.raises(OSError, match=r"belongs to user 4321.*; else use --data.stage none"):
            copy_to_node(dataset, "train", tmp_path)
        assert not list(ours.iterdir())


def test_a_flipped_bit_is_found_when_copied_to_the_node(copy: Path, tmp_path: Path) -> None:
    shard = copy / Index(copy, "train").sample(0).shard
    data = bytearray(shard.read_bytes())
    data[5000] ^= 4
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=f"{shard.name} differs from its manifest"):
        copy_to_node(copy, "train", tmp_path / "memory")
    assert not list((tmp_path / "memory").rglob("*.tar"))


def test_too_little_memory_on_the_node_says_how_to_go_without(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="stage none") as error:
        copy_to_node(dataset, "train", tmp_path)
    assert error.value.errno == errno.ENOSPC


def test_a_disk_of_the_node_that_runs_full_says_how_to_go_without(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program fills it, after there was room."""

    def add(self: Any, block: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(remote._Arrived, "add", add)
    said = (
        r"^not enough space: No space left on device while .*\.tar, \d+ kB, was fetched: "
        r"free some space, use --data.stage none, or another "
    )
    with pytest.raises(OSError) as error:
        copy_to_node(dataset, "train", tmp_path)
    assert re.match(said, console.describe(error.value)) and "P2P_RUNS" not in console.describe(error.value)
    assert not list(tmp_path.rglob("*.tar"))


def test_an_error_of_another_kind_is_not_called_a_lack_of_space(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*arguments: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(transfer, "fetch_file", fetch)
    with pytest.raises(OSError) as error:
        copy_to_node(dataset, "train", tmp_path)
    assert error.value.errno == errno.EIO and "space" not in str(error.value)


def test_the_place_on_a_node_is_the_one_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = [staging.place_on_node(Data(stage=stage)) for stage in ("none", "node", "disk")]  # type: ignore[arg-type]
    assert found == [None, Path("/dev/shm"), tmp_path]
    monkeypatch.delenv("TMPDIR")
    assert staging.place_on_node(Data(stage="disk")) == Path("/tmp")


def test_what_each_node_fetches_is_not_fetched_before(served: Server, small: Data, tmp_path: Path) -> None:
    out = tmp_path / "here"
    fetch_files(served.url, out, manifests.read(served.folder), dataclasses.replace(small, shards=served.url, stage="disk"))
    content = manifests.read(out)
    training = {shard["name"] for shard in content["splits"]["train"]["shards"]}
    assert training and not training & {path.name for path in out.iterdir()}
    served.asked.clear()
    copy = copy_to_node(out, "train", tmp_path / "node", served.url)
    assert {name for name, _ in served.asked} == training
    there, here = Index(served.folder, "train"), Index(copy, "train")
    np.testing.assert_array_equal(here.read(np.arange(len(here))), there.read(np.arange(len(there))))
    assert [here.sample(n) for n in range(len(here))] == [
        Index(out, "train", is_here=False).sample(n) for n in range(len(here))
    ]
    served.asked.clear()
    assert copy_to_node(out, "train", tmp_path / "node", served.url) == copy and served.asked == [], "a later start finds it"


def test_a_start_that_was_killed_leaves_no_half_shard_and_the_next_goes_on(served: Server, small: Data, tmp_path: Path) -> None:
    out = tmp_path / "here"
    fetch_files(served.url, out, manifests.read(served.folder), dataclasses.replace(small, shards=served.url, stage="disk"))
    first, second, *_ = [shard["name"] for shard in manifests.read(out)["splits"]["train"]["shards"]]
    served.faults[second] = ["cut 100", "500"]
    with pytest.raises(OSError, match="answers 500"):
        copy_to_node(out, "train", tmp_path / "node", served.url)
    (copy,) = (tmp_path / "node").glob("p2p_dist-*/*-train")
    assert {path.name for path in copy.iterdir()} == {".lock", first}
    (copy / f".tmp-host-1-abc-{second}").write_bytes(b"half")  # as a killed process leaves it
    served.asked.clear()
    copy_to_node(out, "train", tmp_path / "node", served.url)
    assert first not in {name for name, _ in served.asked} and not list(copy.glob(".tmp-*"))


def test_a_dataset_that_changed_before_a_node_fetched_it_is_said_to_have(
    served: Server, small: Data, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "here"
    fetch_files(served.url, out, manifests.read(served.folder), dataclasses.replace(small, shards=served.url, stage="disk"))
    shutil.rmtree(served.folder)
    shutil.copytree(dataset, served.folder)
    with pytest.raises(files.DamagedError, match=f"dataset at {served.url} has changed since its manifest was fetched"):
        copy_to_node(out, "train", tmp_path / "node", served.url)


def test_a_place_that_nodes_share_without_locks_is_refused(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(staging.lock, "flock", no_locks)
    with pytest.raises(OSError, match=r"no locks across nodes: name a disk of the node with \$TMPDIR.*place"):
        staging.copy_to_node(dataset, "train", tmp_path / "place")


def test_a_planted_file_is_fetched_again_on_the_node(served: Server, small: Data, tmp_path: Path) -> None:
    """One that another user can still change, after its checksum was compared."""
    out = tmp_path / "here"
    fetch_files(served.url, out, manifests.read(served.folder), dataclasses.replace(small, shards=served.url, stage="disk"))
    copy = copy_to_node(out, "train", tmp_path / "node", served.url)
    shard = next(copy.glob("*.tar"))
    shard.chmod(0o666)
    served.asked.clear()
    copy_to_node(out, "train", tmp_path / "node", served.url)
    assert [name for name, _ in served.asked] == [shard.name] and shard.stat().st_mode & 0o777 == 0o644
