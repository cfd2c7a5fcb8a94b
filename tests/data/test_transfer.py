"""A finished dataset fetched into the folder of a run's shards, from a server on the loopback, and sent."""

from __future__ import annotations

import dataclasses
import errno
import shutil
from pathlib import Path

import pytest

from p2p_dist.common import files, records
from p2p_dist.data import manifest as manifests
from p2p_dist.data import transfer
from p2p_dist.data.index import Index
from p2p_dist.data.staging import copy_to_node
from p2p_dist.settings.config import Data
from tests.data.server import Server


def named(content: dict[str, object], *kinds: str) -> set[str]:
    """The files of a dataset, as their paths in it."""
    return {path for part in content["splits"].values() for path in manifests.files_of_part(part, *kinds)}  # type: ignore[attr-defined]


def test_a_dataset_is_fetched_whole_and_not_again(served: Server, small: Data, tmp_path: Path) -> None:
    out, told = tmp_path / "here", []
    transfer.fetch_dataset(served.url, out, small, on_file=lambda *about: told.append(about))
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
    transfer.fetch_dataset(served.url, out, small)
    assert sorted(name for name, _ in served.asked) == [lost, harmed], "what is there is kept, and compared"


def test_another_manifest_there_changes_nothing_here(served: Server, small: Data, tmp_path: Path) -> None:
    """A training began with what it said."""
    out = tmp_path / "here"
    transfer.fetch_dataset(served.url, out, small)
    before = (out / "manifest.json").read_bytes()
    (served.folder / "manifest.json").write_text("{}")
    transfer.fetch_dataset(served.url, out, small)
    assert (out / "manifest.json").read_bytes() == before
    (lost, *_) = named(manifests.read(out), "shards")
    (out / lost).unlink()
    (served.folder / lost).write_bytes((served.folder / lost).read_bytes()[:-1] + b"?")
    with pytest.raises(files.DamagedError, match=f"{lost} differs from its manifest.*was changed or damaged"):
        transfer.fetch_dataset(served.url, out, small)
    assert not (out / lost).exists()


def test_what_is_no_dataset_for_this_run_is_refused(served: Server, small: Data, tmp_path: Path) -> None:
    out, path = tmp_path / "here", served.folder / "manifest.json"
    good = path.read_text()

    def refused(said: str, data: Data = small, address: str = served.url) -> None:
        with pytest.raises(ValueError, match=said):
            transfer.fetch_dataset(address, out, data, needed=("train", "test"))
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
    transfer.fetch_dataset(str(dataset), out, small)
    assert not any(path.exists() for path in left)
    shutil.rmtree(out / "audio")
    (out / "audio").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="audio is a link"):
        transfer.fetch_dataset(str(dataset), out, small)


def test_a_shard_that_is_not_there_is_named(served: Server, small: Data, tmp_path: Path) -> None:
    (lost, *_) = named(manifests.read(served.folder), "audio")
    (served.folder / lost).unlink()
    with pytest.raises(FileNotFoundError, match=f"404 .*{lost}"):
        transfer.fetch_dataset(served.url, tmp_path / "here", small)
    assert not (tmp_path / "here" / "manifest.json").exists(), "so the dataset does not count as there"


def test_a_dataset_of_version_0_1_is_brought_to_a_node_and_fetched(tmp_path: Path) -> None:
    """Its manifest lacks a field that it has when it was read, and is sealed."""
    old = Path(__file__).parents[1] / "golden" / "shards-v1"
    settings = Data(**manifests.read(old)["settings"])
    transfer.fetch_dataset(str(old), tmp_path / "here", settings)
    for place in (copy_to_node(old, "train", tmp_path), copy_to_node(old, "train", tmp_path), tmp_path / "here"):
        assert (Index(place, "train").samples.digest, Index(place, "train").order) == (
            Index(old, "train").samples.digest,
            "sorted",
        )
    before = (tmp_path / "here" / "manifest.json").read_bytes()
    transfer.fetch_dataset(str(old), tmp_path / "here", settings)
    assert (tmp_path / "here" / "manifest.json").read_bytes() == before


def test_a_full_disk_says_what_is_needed_before_anything_is_fetched(
    served: Server, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(path.stat().st_size for path in served.folder.glob("*.tar"))
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(needed, 0, needed))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"0\.00 GB of files, 0\.00 GB free: free some, name another folder of runs") as error:
        transfer.fetch_dataset(served.url, tmp_path / "here", small)
    assert error.value.errno == errno.ENOSPC and [name for name, _ in served.asked] == ["manifest.json"]


@pytest.mark.parametrize("way", ["http", "pipe", "folder"])
def test_a_dataset_is_uploaded_with_its_manifest_last(
    way: str, dataset: Path, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    (there / "audio").mkdir(parents=True)
    with Server(there) as server:
        address = {"http": server.url, "pipe": f"pipe:cat >{there}/{{name}}", "folder": str(there)}[way]
        sent: list[str] = []
        transfer.upload(dataset, address, lambda _, __, name: sent.append(name))
    content = manifests.read(there)
    assert sent[-1] == "manifest.json" and set(sent) == {
        *named(content, "shards", "audio", "index"),
        "DATASET.md",
        "README.md",
        "manifest.json",
    }
    transfer.fetch_dataset(str(there), tmp_path / "back", small)
    assert manifests.read(tmp_path / "back") == manifests.read(dataset)


def test_what_is_damaged_or_not_taken_is_not_published(copy: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "audio").mkdir(parents=True)
    with pytest.raises(OSError, match="the command ended with 9"):
        transfer.upload(copy, f"pipe:test {{name}} != DATASET.md || exit 9; cat >{there}/{{name}}")
    assert list(there.glob("*.tar")) and not (there / "manifest.json").exists()
    harmed = sorted(copy.glob("*.tar"))[-1]
    harmed.write_bytes(harmed.read_bytes()[:-1] + b"?")
    shutil.rmtree(there)
    with pytest.raises(ValueError, match=f"{harmed.name} is missing or differs from its manifest"):
        transfer.upload(copy, str(there))
    assert not there.exists()
    (copy / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="preprocessing has not finished"):
        transfer.upload(copy, str(there))
