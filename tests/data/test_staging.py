"""A dataset brought to a node, and from a server on the loopback into the folder of a run's shards."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from p2p_dist.common import files, records
from p2p_dist.data import manifest as manifests
from p2p_dist.data import remote, shards, staging
from p2p_dist.data.index import Index
from p2p_dist.data.staging import copy_to_node, fetch_dataset
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


def test_a_folder_in_the_nodes_memory_that_others_made_is_not_used(dataset: Path, tmp_path: Path) -> None:
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
        with pytest.raises(OSError, match=r"belongs to user 4321.*--data.stage none"):
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
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="stage none") as error:
        copy_to_node(dataset, "train", tmp_path)
    assert error.value.errno == errno.ENOSPC


@pytest.fixture
def served(songs: Path, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A dataset of two shards to train on, served on the loopback."""
    monkeypatch.setattr(remote, "PAUSES", (0.0,))
    shards.preprocess(songs, tmp_path / "there", dataclasses.replace(small, shard_size=0.01), workers=1)
    with Server(tmp_path / "there") as server:
        yield server


def named(content: dict[str, object], *kinds: str) -> set[str]:
    """The files of a dataset, as their paths in it."""
    return {path for part in content["splits"].values() for path in manifests.files_of_part(part, *kinds)}  # type: ignore[attr-defined]


def test_a_dataset_is_fetched_whole_and_not_again(served: Server, small: Data, tmp_path: Path) -> None:
    out, told = tmp_path / "here", []
    fetch_dataset(served.url, out, small, on_file=lambda *about: told.append(about))
    content = manifests.read(served.folder)
    assert manifests.read(out) == content
    wanted = named(content, "shards", "audio", "index")
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == {*wanted, "manifest.json", ".lock"}
    assert all((out / name).read_bytes() == (served.folder / name).read_bytes() for name in wanted)
    assert [about[:2] for about in told] == [(n, len(wanted)) for n in range(1, len(wanted) + 1)]
    served.asked.clear()
    (lost, harmed, *_) = sorted(wanted)
    (out / lost).unlink()
    (out / harmed).write_bytes(b"x" * (out / harmed).stat().st_size)
    fetch_dataset(served.url, out, small)
    assert sorted(name for name, _ in served.asked) == [lost, harmed], "what is there is kept, and compared"


def test_what_each_node_fetches_is_not_fetched_before(served: Server, small: Data, tmp_path: Path) -> None:
    out = tmp_path / "here"
    fetch_dataset(served.url, out, small, {"train"})
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
    fetch_dataset(served.url, out, small, {"train"})
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


def test_another_manifest_there_changes_nothing_here(served: Server, small: Data, tmp_path: Path) -> None:
    """A training began with what it said."""
    out = tmp_path / "here"
    fetch_dataset(served.url, out, small)
    before = (out / "manifest.json").read_bytes()
    (served.folder / "manifest.json").write_text("{}")
    fetch_dataset(served.url, out, small)
    assert (out / "manifest.json").read_bytes() == before
    (lost, *_) = named(manifests.read(out), "shards")
    (out / lost).unlink()
    (served.folder / lost).write_bytes((served.folder / lost).read_bytes()[:-1] + b"?")
    with pytest.raises(files.DamagedError, match=f"{lost} differs from its manifest.*was changed or damaged"):
        fetch_dataset(served.url, out, small)
    assert not (out / lost).exists()


def test_what_is_no_dataset_for_this_run_is_refused(served: Server, small: Data, tmp_path: Path) -> None:
    out, path = tmp_path / "here", served.folder / "manifest.json"
    good = path.read_text()

    def refused(said: str, data: Data = small, address: str = served.url) -> None:
        with pytest.raises(ValueError, match=said):
            fetch_dataset(address, out, data, needed=("train", "test"))
        assert not list(out.glob("*.tar")) and not (out / "manifest.json").exists()

    content = records.parse(good, where="")
    for changed, said in (
        ({"schema": 99}, f"{served.url}/manifest.json has schema 99, this version reads schemas 3 and 4"),
        ({"dtype": "<f4"}, "manifest.json was changed after it was written: make it with this version, upload it again"),
    ):
        path.write_text(records.json.dumps({**content, **changed}))
        refused(said)
    path.write_text("<html>Log in</html>")
    refused("manifest.json is damaged: it is not readable as JSON")
    shard = content["splits"]["train"]["shards"][0]
    for name in ("../../escape.tar", "/etc/x", "a;id", ".hidden", "-rf"):
        shard["name"] = name
        path.write_text(files.json_text(files.sealed(content)))
        refused("manifest.json is damaged: splits.train.shards.0.name")
    for splits, said in (
        (("valid", "test"), "manifest.json has no train songs: for this run name another dataset"),
        (("train",), "manifest.json has no test songs: only train with --evaluate never, or name another dataset"),
        (("train", "valid"), "no test songs: evaluate on its validation songs with --evaluate.split valid, only train with"),
    ):
        whole = records.parse(good, where="")
        few = {split: whole["splits"][split] for split in splits}
        path.write_text(files.json_text(files.sealed({**whole, "splits": few})))
        refused(said)
    path.write_text(good)
    refused(
        r"made with other settings than the run has \(mels: 32 -> 64\): .* start a run with --data\.mels 32$",
        dataclasses.replace(small, mels=64),
    )
    refused(r"start a run with --data\.no-split-by-title$", dataclasses.replace(small, split_by_title=True))
    for more, said in (
        ({"split_by_title": True, "task": "vocals->drums"}, r"with --data\.split-by-title --data\.task 'vocals->drums'$"),
        ({"colour": 3}, r"\(colour: 3 -> unknown to this version\): use the version that made it$"),
    ):
        whole = records.parse(good, where="")
        path.write_text(files.json_text(files.sealed({**whole, "settings": {**whole["settings"], **more}})))
        refused(said)
    path.unlink()
    refused("no dataset there, or not a whole one: .*manifest.json: the server answers 404")
    refused(r"no dataset there, or not a whole one: .*/nowhere/manifest\.json", address=str(tmp_path / "nowhere"))


def test_half_a_file_that_a_killed_process_left_is_removed(dataset: Path, small: Data, tmp_path: Path) -> None:
    out = tmp_path / "here"
    (out / "audio").mkdir(parents=True)
    left = [out / "audio" / ".tmp-host-1-abc-audio-test-1.tar", out / ".tmp-host-1-abc-train-1.tar"]
    for path in left:
        path.write_bytes(b"half")
    fetch_dataset(str(dataset), out, small)
    assert not any(path.exists() for path in left)
    shutil.rmtree(out / "audio")
    (out / "audio").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="audio is a link"):
        fetch_dataset(str(dataset), out, small)


def test_a_shard_that_is_not_there_is_named(served: Server, small: Data, tmp_path: Path) -> None:
    (lost, *_) = named(manifests.read(served.folder), "audio")
    (served.folder / lost).unlink()
    with pytest.raises(FileNotFoundError, match=f"404 .*{lost}"):
        fetch_dataset(served.url, tmp_path / "here", small)
    assert not (tmp_path / "here" / "manifest.json").exists(), "so the dataset does not count as there"


def test_a_dataset_of_version_0_1_is_brought_to_a_node_and_fetched(tmp_path: Path) -> None:
    """Its manifest lacks a field that it has when it was read, and is sealed."""
    old = Path(__file__).parents[1] / "golden" / "shards-v1"
    settings = Data(**manifests.read(old)["settings"])
    fetch_dataset(str(old), tmp_path / "here", settings)
    for place in (copy_to_node(old, "train", tmp_path), copy_to_node(old, "train", tmp_path), tmp_path / "here"):
        assert (Index(place, "train").samples.digest, Index(place, "train").order) == (
            Index(old, "train").samples.digest,
            "sorted",
        )
    before = (tmp_path / "here" / "manifest.json").read_bytes()
    fetch_dataset(str(old), tmp_path / "here", settings)
    assert (tmp_path / "here" / "manifest.json").read_bytes() == before


def test_a_place_that_nodes_share_without_locks_is_refused(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(staging.lock, "flock", no_locks)
    with pytest.raises(OSError, match=r"no locks across nodes: name a disk of the node with \$TMPDIR.*place"):
        staging.copy_to_node(dataset, "train", tmp_path / "place")


def test_a_full_disk_says_what_is_needed_before_anything_is_fetched(
    served: Server, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(path.stat().st_size for path in served.folder.glob("*.tar"))
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(needed, 0, needed))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"0\.00 GB of files, 0\.00 GB free: free some, name another folder of runs") as error:
        fetch_dataset(served.url, tmp_path / "here", small)
    assert error.value.errno == errno.ENOSPC and [name for name, _ in served.asked] == ["manifest.json"]


def test_a_planted_file_is_fetched_again_on_the_node(served: Server, small: Data, tmp_path: Path) -> None:
    """One that another user can still change, after its checksum was compared."""
    out = tmp_path / "here"
    fetch_dataset(served.url, out, small, {"train"})
    copy = copy_to_node(out, "train", tmp_path / "node", served.url)
    shard = next(copy.glob("*.tar"))
    shard.chmod(0o666)
    served.asked.clear()
    copy_to_node(out, "train", tmp_path / "node", served.url)
    assert [name for name, _ in served.asked] == [shard.name] and shard.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("way", ["http", "pipe", "folder"])
def test_a_dataset_is_uploaded_with_its_manifest_last(
    way: str, dataset: Path, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    (there / "audio").mkdir(parents=True)
    with Server(there) as server:
        address = {"http": server.url, "pipe": f"pipe:cat >{there}/{{name}}", "folder": str(there)}[way]
        sent: list[str] = []
        staging.upload(dataset, address, lambda _, __, name: sent.append(name))
    content = manifests.read(there)
    assert sent[-1] == "manifest.json" and set(sent) == {
        *named(content, "shards", "audio", "index"),
        "DATASET.md",
        "README.md",
        "manifest.json",
    }
    fetch_dataset(str(there), tmp_path / "back", small)
    assert manifests.read(tmp_path / "back") == manifests.read(dataset)


def test_what_is_damaged_or_not_taken_is_not_published(copy: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "audio").mkdir(parents=True)
    with pytest.raises(OSError, match="the command ended with 9"):
        staging.upload(copy, f"pipe:test {{name}} != DATASET.md || exit 9; cat >{there}/{{name}}")
    assert list(there.glob("*.tar")) and not (there / "manifest.json").exists()
    harmed = sorted(copy.glob("*.tar"))[-1]
    harmed.write_bytes(harmed.read_bytes()[:-1] + b"?")
    shutil.rmtree(there)
    with pytest.raises(ValueError, match=f"{harmed.name} is missing or differs from its manifest"):
        staging.upload(copy, str(there))
    assert not there.exists()
    (copy / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="preprocessing has not finished"):
        staging.upload(copy, str(there))
