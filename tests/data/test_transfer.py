"""A finished dataset fetched into the folder of a run's shards, from a server on the loopback."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2p_dist.common import files, records, schemas
from p2p_dist.data import dataset as datasets
from p2p_dist.data import manifest as manifests
from p2p_dist.data import remote, transfer
from p2p_dist.data.index import Index
from p2p_dist.data.staging import copy_to_node
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Data
from tests.data.server import Server


def named(content: dict[str, object], *kinds: str) -> set[str]:
    """The files of a dataset, as their paths in it."""
    return {path for part in content["splits"].values() for path in manifests.files_of_part(part, *kinds)}  # type: ignore[attr-defined]


def shards_of(content: dict[str, Any], *splits: str) -> list[str]:
    """The files of the pairs of these splits."""
    return [shard["name"] for split in splits for shard in content["splits"].get(split, {"shards": []})["shards"]]


def fetch(address: str, out: Path, data: Data, **more: Any) -> None:
    """Fetch what is at an address."""
    transfer.fetch_files(address, out, transfer._manifest_at(address), data, **more)


def test_a_dataset_is_fetched_whole_and_not_again(served: Server, small: Data, tmp_path: Path) -> None:
    out, told = tmp_path / "here", []
    fetch(served.url, out, small, on_file=lambda *about: told.append(about))
    content = manifests.read(served.folder)
    assert manifests.read(out) == content
    wanted = named(content, "shards", "audio", "index")
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == {*wanted, "manifest.json", ".lock"}
    assert all((out / name).read_bytes() == (served.folder / name).read_bytes() for name in wanted)
    assert [about[:2] for about in told] == [(n, len(wanted)) for n in range(1, len(wanted) + 1)]
    served.asked.clear()
    (lost, harmed, linked, *_) = sorted(wanted)
    (out / lost).unlink()
    (out / harmed).write_bytes(b"x" * (out / harmed).stat().st_size)
    (out / linked).rename(tmp_path / "changed later")
    (out / linked).symlink_to(tmp_path / "changed later")
    fetch(served.url, out, small)
    assert sorted(name for name, _ in served.asked[1:]) == [lost, harmed, linked], "what is there is kept, and compared"
    assert not (out / linked).is_symlink(), "whose target may be changed by another user"


@pytest.fixture
def new_run(served: Server, small: Data, tmp_path: Path) -> Callable[[str], tuple[RunDir, Data]]:
    """`new_run(name)`: a run on the served dataset, as the launcher begins it, and its settings."""

    def new_run(name: str) -> tuple[RunDir, Data]:
        run = RunDir(tmp_path / "runs" / name)
        run.path.mkdir(parents=True, exist_ok=True)
        records.write(run.dataset, schemas.DATASET, {"name": datasets.name_of_address(run, served.url)})
        return run, dataclasses.replace(small, shards=served.url)

    return new_run


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the files of a folder."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*.*")}


def asked(server: Server) -> list[str]:
    """What was asked for, and forget it."""
    found = [name for name, _ in server.asked]
    server.asked.clear()
    return found


def upload_anew(served: Server, dataset: Path) -> None:
    """Serve another dataset at the same address."""
    shutil.rmtree(served.folder)
    shutil.copytree(dataset, served.folder)


def test_a_new_run_gets_what_was_uploaded_anew_and_a_trained_run_keeps_its_own(
    served: Server, new_run: Callable[[str], tuple[RunDir, Data]], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (old, data), earlier = new_run("old"), manifests.read(served.folder)
    transfer.fetch_for(old, data)
    assert len(asked(served)) > 3 and manifests.read(old.shards) == earlier
    again, _ = new_run("again")
    assert again.shards == old.shards, "runs share it"
    transfer.fetch_for(again, data)
    assert asked(served) == ["manifest.json"] and again.dataset_record() == old.dataset_record(), "one request tells"
    (cut, *_) = named(earlier, "shards")
    os.truncate(again.shards / cut, 9)
    transfer.fetch_for(again, data)
    assert asked(served) == ["manifest.json", cut]
    with pytest.raises(ValueError, match=r"mels: 32 -> 64\): for this dataset"):
        transfer.fetch_for(again, dataclasses.replace(data, mels=64))
    assert datasets.name_of_address(again, "elsewhere") == datasets._of_address("elsewhere")
    asked(served)
    (old.checkpoints / "step-00000001").mkdir(parents=True)
    upload_anew(served, dataset)
    before = state(old.shards)
    transfer.fetch_for(old, data)
    assert asked(served) == [], "all that it began with is there"
    new, _ = new_run("new")
    assert new.shards == old.shards and "has changed" not in capsys.readouterr().out
    transfer.fetch_for(new, data)
    said = f"note: the dataset at {served.url} has changed since its manifest was fetched to {old.shards}, which is kept"
    assert said in capsys.readouterr().out
    assert new.shards != old.shards and manifests.read(new.shards) == manifests.read(dataset) and state(old.shards) == before
    transfer.fetch_for(again, data)
    assert again.shards == new.shards, "it had not trained"
    assert new_run("newest")[0].shards == new.shards
    upload_anew(served, old.shards)
    asked(served)
    back, _ = new_run("back")
    transfer.fetch_for(back, data)
    assert back.shards == old.shards and asked(served) == ["manifest.json"], "it is there"


def test_a_run_that_began_with_another_dataset_says_so(
    served: Server, new_run: Callable[[str], tuple[RunDir, Data]], dataset: Path, tmp_path: Path
) -> None:
    run, data = new_run("old")
    transfer.fetch_for(run, data)
    (run.checkpoints / "step-00000001").mkdir(parents=True)
    kept = Path(shutil.copytree(served.folder, tmp_path / "kept"))
    lost = manifests.read(run.shards)["splits"]["train"]["shards"][0]["name"]
    (run.shards / lost).unlink()
    said = f"the dataset at {served.url} has changed since its manifest was fetched"
    cure = "restore the earlier dataset there, or start a new run with --run NAME"
    for harm in (lambda: upload_anew(served, dataset), lambda: (served.folder / lost).write_bytes(b"?")):
        harm()
        with pytest.raises(files.DamagedError, match=rf"{said} \({lost} is gone or another\): {cure}"):
            transfer.fetch_for(run, data)
        assert not (run.shards / lost).exists()
    (run.shards / "manifest.json").unlink()
    with pytest.raises(files.DamagedError, match=rf"{said}, and .*manifest\.json is missing or damaged: {cure}"):
        transfer.fetch_for(run, data)
    upload_anew(served, kept)
    (served.folder / lost).write_bytes((kept / lost).read_bytes()[:-1] + b"?")
    with pytest.raises(files.DamagedError, match=rf"{lost} differs from its manifest.*was changed or damaged"):
        transfer.fetch_for(run, data)  # one file alone
    upload_anew(served, kept)
    transfer.fetch_for(run, data)
    assert (run.shards / lost).read_bytes() == (kept / lost).read_bytes()


def test_without_the_server_a_run_begins_with_what_was_fetched_and_says_so(
    served: Server,
    new_run: Callable[[str], tuple[RunDir, Data]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0, 0.0))
    first, data = new_run("first")
    transfer.fetch_for(first, data)
    run, _ = new_run("offline")
    served.http.shutdown()
    served.http.server_close()
    transfer.fetch_for(run, data)
    told = capsys.readouterr().err
    assert "warning: Connection refused, tried 2 times" in told and f"using the copy in {first.shards}, which was" in told
    assert run.dataset_record() == first.dataset_record()
    (lost, *_) = named(manifests.read(run.shards), "shards")
    (run.shards / lost).unlink()
    with pytest.raises(OSError, match="Connection refused, tried 4 times"):
        transfer.fetch_for(run, data)
    assert capsys.readouterr().err == ""


def test_a_run_that_waits_for_the_job_of_another_uses_what_that_fetched(
    served: Server, new_run: Callable[[str], tuple[RunDir, Data]], dataset: Path
) -> None:
    """As the runs of a sweep: the first stage of one is that of all."""
    (maker, data), (run, _), (trained, _) = new_run("maker"), new_run("waits"), new_run("trained")
    transfer.settle(run, served.url)
    assert run.dataset_record()["manifest"] is None, "nothing is there"
    transfer.fetch_for(maker, data)
    for one in (run, trained):
        transfer.settle(one, served.url)
        assert one.dataset_record() == maker.dataset_record()
    (trained.checkpoints / "step-00000001").mkdir(parents=True)
    before = trained.dataset_record()
    records.write(trained.dataset, schemas.DATASET, {"name": before["name"]})  # as version 0.2.0 noted it
    upload_anew(served, dataset)
    transfer.fetch_for(maker, data)
    for one in (run, trained):
        transfer.settle(one, served.url)
        assert one.dataset_record() == before, "what is in use does not change"


def test_what_version_0_2_fetched_is_found(
    served: Server, new_run: Callable[[str], tuple[RunDir, Data]], dataset: Path
) -> None:
    """It named the folder by the address alone."""
    run, data = new_run("first")
    shutil.copytree(served.folder, run.shards)
    transfer.fetch_for(run, data)
    assert asked(served) == ["manifest.json"] and run.shards.name == datasets._of_address(served.url)
    upload_anew(served, dataset)
    transfer.fetch_for(run, data)
    assert run.shards.name != datasets._of_address(served.url)


def test_what_is_no_dataset_for_this_run_is_refused(served: Server, small: Data, tmp_path: Path) -> None:
    out, path = tmp_path / "here", served.folder / "manifest.json"
    good = path.read_text()

    def refused(said: str, data: Data = small, address: str = served.url) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            fetch(address, out, data, needed=("train", "test"))
        assert not list(out.glob("*.tar")) and not (out / "manifest.json").exists()

    content = records.parse(good, where="")
    for changed, said in (
        (
            {"schema": 99},
            "/manifest.json has schema 99, this version reads schemas 3 and 4: a newer version wrote it: use that",
        ),
        ({"schema": 2}, f"{served.url}/manifest.json has schema 2, .*: make it with this version, upload it again, or name"),
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
        ({"task": "x\nerror: forged"}, r"\(task: x\\nerror: forged -> "),
        ({"colour\n": "\nerror: forged"}, r"\(colour\\n: \\nerror: forged -> unknown"),
    ):
        whole = records.parse(good, where="")
        path.write_text(files.json_text(files.sealed({**whole, "settings": {**whole["settings"], **more}})))
        refused(said)
    path.unlink()
    refused(f"no dataset there, or not a whole one: the server .* 404.*last, and --data songs: '{served.url}/manifest.json")
    refused("no dataset there, or not a whole one: ", address=str(tmp_path / "nowhere"))


def test_half_a_file_that_a_killed_process_left_is_removed(dataset: Path, small: Data, tmp_path: Path) -> None:
    out = tmp_path / "here"
    (out / "audio").mkdir(parents=True)
    left = [out / "audio" / ".tmp-host-1-abc-audio-test-1.tar", out / ".tmp-host-1-abc-train-1.tar"]
    for path in left:
        path.write_bytes(b"half")
    fetch(str(dataset), out, small)
    assert not any(path.exists() for path in left)
    shutil.rmtree(out / "audio")
    (out / "audio").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="audio is a link"):
        fetch(str(dataset), out, small)


def test_a_shard_that_is_not_there_is_named(served: Server, small: Data, tmp_path: Path) -> None:
    (lost, *_) = named(manifests.read(served.folder), "audio")
    (served.folder / lost).unlink()
    for address, cure in ((served.url, "upload the whole dataset again"), (str(served.folder), "preprocess it again")):
        with pytest.raises(FileNotFoundError, match=rf"(404|No such).*, but the manifest there names it: {cure}") as error:
            fetch(address, tmp_path / "here", small)
        assert error.value.filename == f"{address}/{lost}"
    assert not (tmp_path / "here" / "manifest.json").exists(), "so the dataset does not count as there"


def test_a_file_that_is_lost_is_named_where_the_manifest_is_lost_too(served: Server, tmp_path: Path) -> None:
    content = manifests.read(served.folder)
    (entry, *_) = transfer.of_part(content["splits"]["train"], "shards")
    (served.folder / entry["name"]).unlink()
    (served.folder / "manifest.json").write_text("<html>Log in</html>")
    with pytest.raises(FileNotFoundError, match=r"404.*, but the manifest there names it: upload the whole dataset again"):
        transfer.fetch_file(served.url, entry, tmp_path / "a", content)


def test_a_damaged_manifest_is_fetched_again(served: Server, new_run: Callable[[str], tuple[RunDir, Data]]) -> None:
    run, data = new_run("run")
    transfer.fetch_for(run, data)
    for folder in ("checkpoints", "checkpoints/step-00000001"):  # as long as nothing is learnt, and later
        (run.path / folder).mkdir()
        os.truncate(run.shards / "manifest.json", 99)
        asked(served)
        transfer.fetch_for(run, data)
        assert asked(served) == ["manifest.json"] and manifests.read(run.shards) == manifests.read(served.folder)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks_is_no_error(
    served: Server, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(transfer.lock, "flock", flock)
    if number == errno.ENOLCK:
        fetch(served.url, tmp_path / "here", small)
        assert manifests.read(tmp_path / "here") == manifests.read(served.folder)
    else:
        with pytest.raises(OSError, match="Input/output error"):
            fetch(served.url, tmp_path / "here", small)


def test_a_job_that_was_overtaken_does_not_note_a_dataset(
    new_run: Callable[[str], tuple[RunDir, Data]], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node was given up, and the newer attempt may use another one."""
    run, _ = new_run("run")
    before = run.dataset_record()
    (tmp_path / "attempts").write_text("launch 7\nstart 7.0 0 10 1\nstart 7.1 0 20 1\n")
    monkeypatch.setenv("P2P_ATTEMPTS", str(tmp_path / "attempts"))
    monkeypatch.setenv("P2P_ATTEMPT", "7.0")
    with pytest.raises(rundir.SupersededError, match=r"7\.0 was superseded by 7\.1"):
        transfer.note(run, dataset)
    assert run.dataset_record() == before
    monkeypatch.setenv("P2P_ATTEMPT", "7.1")
    transfer.note(run, dataset)
    assert run.dataset_record()["name"] == dataset.name


def test_a_dataset_of_version_0_1_is_brought_to_a_node_and_fetched(tmp_path: Path) -> None:
    """Its manifest lacks a field that it has when it was read, and is sealed."""
    old = Path(__file__).parents[1] / "golden" / "shards-v1"
    settings = Data(**manifests.read(old)["settings"])
    fetch(str(old), tmp_path / "here", settings)
    for place in (copy_to_node(old, "train", tmp_path), copy_to_node(old, "train", tmp_path), tmp_path / "here"):
        assert (Index(place, "train").samples.digest, Index(place, "train").order) == (
            Index(old, "train").samples.digest,
            "sorted",
        )
    before = (tmp_path / "here" / "manifest.json").read_bytes()
    fetch(str(old), tmp_path / "here", settings)
    assert (tmp_path / "here" / "manifest.json").read_bytes() == before


def test_a_full_disk_says_what_is_needed_before_anything_is_fetched(
    served: Server, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(path.stat().st_size for path in served.folder.glob("*.tar"))
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(needed, 0, needed))  # type: ignore[attr-defined]
    with pytest.raises(
        OSError, match=r"\d{3} kB of files, \d{3} kB free, of which a tenth stays free: free some space, name another folder"
    ) as error:
        fetch(served.url, tmp_path / "here", small)
    assert error.value.errno == errno.ENOSPC and [name for name, _ in served.asked] == ["manifest.json"]


def test_a_tenth_of_what_is_free_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9999, 0, 1000))  # type: ignore[attr-defined]
    transfer.check_room([{"bytes": 500}, {"bytes": 400}], tmp_path, "free some")
    with pytest.raises(OSError, match="1 kB of files, 1 kB free, of which a tenth stays free: free some"):
        transfer.check_room([{"bytes": 500}, {"bytes": 401}], tmp_path, "free some")


def test_what_the_nodes_fetch_by_themselves_is_not_fetched_and_not_missed(
    served: Server, new_run: Callable[[str], tuple[RunDir, Data]]
) -> None:
    run, data = new_run("run")
    content, data = manifests.read(served.folder), dataclasses.replace(data, stage="node")
    for wanted in (
        ["manifest.json", *named(content, "audio", "index"), *shards_of(content, "valid", "test")],
        ["manifest.json"],
    ):
        transfer.fetch_for(run, data)
        assert sorted(asked(served)) == sorted(wanted)


def test_a_full_disk_is_no_reason_to_ask_for_the_manifest(
    served: Server, small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(self: Any, block: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    content = manifests.read(served.folder)
    monkeypatch.setattr(remote._Arrived, "add", add)
    with pytest.raises(OSError, match="No space left on device"):
        transfer.fetch_files(served.url, tmp_path / "here", content, small)
    assert len(asked(served)) == 1
