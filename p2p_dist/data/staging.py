"""Bring a dataset to where it is read: from an address into the folder of a run's shards, and to a node's memory or disk."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from p2p_dist.common import console, files, records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.data import guides, manifest, remote
from p2p_dist.run import lock
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import science
from p2p_dist.settings.address import acts_here, of_file
from p2p_dist.settings.config import Data

MEMORY = Path("/dev/shm")
"""The node's memory as a file system."""

CHECKED = "checked.json"
"""In the copy on a node: the state of each file when its sha256 was compared."""

CARDS = ("DATASET.md", "README.md")

AGAIN = "make it with this version, upload it again, or name another address"


def address_of(run: RunDir, data: Data) -> str | None:
    """Return the address of a run's finished dataset; None if its shards are made of songs here.

    Raises:
        ValueError: it is a command, or contains variables, and another user may have written it.
    """
    if data.shards is not None and acts_here(data.shards) and (why := files.not_only_ours(run.config)):
        raise ValueError(
            f"{run.config} {why}, and its data.shards is a command or contains variables of the environment, so it is not "
            "used: start a run of your own"
        )
    return data.shards


def training_shards(run: RunDir, data: Data) -> Path:
    """Return the folder to read the training shards from. With `--data.stage node` or `disk` they are brought there first.

    Raises:
        OSError, ValueError: see `copy_to_node`.
    """
    place = place_on_node(data)
    return run.shards if place is None else copy_to_node(run.shards, "train", place, address_of(run, data))


def training_guides(run: RunDir, data: Data) -> Path:
    """Return the folder to read the sketches of the training songs from. They are brought to where the shards are brought.

    Raises:
        DamagedError: a file is missing, or not the one that was written. OSError: see `copy_to_node`.
    """
    place = place_on_node(data)
    if place is None:
        return run.guides
    content = records.read(run.guides / guides.NAME, schemas.GUIDES, guides.AGAIN)
    entries = [{"name": guides.file_name(key), **about} for key, about in content["songs"].items()]
    with _folder_on_node(place, f"{files.digest(content)[:16]}-guides") as copy, _missing(entries, copy, place) as missing:
        for entry in missing:
            try:
                remote.fetch(str(run.guides), entry, copy / entry["name"])
            except (DamagedError, FileNotFoundError) as error:
                path = run.guides / entry["name"]
                raise DamagedError(
                    f"{path} is missing or damaged: remove {guides.NAME} beside it and run the launch command again"
                ) from error
        _write_beside(copy / guides.NAME, content)
    return copy


def place_on_node(data: Data) -> Path | None:
    """Return where on the node training data are brought; None if they are read where they are."""
    if data.stage not in ("node", "disk"):
        return None
    return MEMORY if data.stage == "node" else Path(os.environ.get("TMPDIR") or "/tmp")


def copy_to_node(folder: Path, split: str, place: Path = MEMORY, address: str | None = None) -> Path:
    """Bring the shards of one split to the node. Each is read once and checked against its sha256 on the way.

    Every process of a node may call it: the first copies, the others wait at its lock. What is there already, from an earlier
    start, is not read again, unless its size, times or inode are others than when its sha256 was compared.

    Args:
        folder: the dataset, with its manifest. place: where on the node: its memory, or a folder on its disk. address: of the
            same dataset, to read shards from; None: they are in `folder`.

    Returns:
        the folder of the copy, to be given to `Index`.

    Raises:
        OSError: not enough room; the message says how much there is and how to go without. Or see `remote.fetch`.
        ValueError: a shard differs from the manifest; the message names it.
    """
    content = manifest.read(folder)
    entries = _of_part(content["splits"][split], "shards")
    with _folder_on_node(place, f"{files.digest(content)[:16]}-{split}") as copy, _missing(entries, copy, place) as missing:
        # The index was fetched with the manifest.
        far = [entry for entry in missing if address is not None and not (folder / entry["name"]).is_file()]
        if far:
            size = sum(entry["bytes"] for entry in far)
            console.say(f"fetching {len(far)} files of {size / 1e6:.1f} MB from {address} to {copy}")
        for entry in missing:
            remote.fetch(address if entry in far and address is not None else str(folder), entry, copy / entry["name"])
        _write_beside(copy / manifest.NAME, files.sealed(content))  # anew: to schema 3 it lacked a field that it has now
    return copy


@contextmanager
def _folder_on_node(place: Path, name: str) -> Iterator[Path]:
    """Yield a folder on the node that is this user's alone, while this process has its lock."""
    ours = place / f"p2p_dist-{os.getuid()}"
    copy = ours / name
    if place == MEMORY and not place.is_dir():
        raise OSError(errno.ENOENT, "this system has no folder in memory: use --data.stage disk, device or none", str(place))
    place.mkdir(parents=True, exist_ok=True)
    try:
        files.private_folder(ours)
        files.private_folder(copy)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; or use --data.stage none", error.filename) from error
    descriptor = files.open_ours(copy / ".lock", os.O_WRONLY)
    try:
        try:
            lock.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:  # no disk of this node: other nodes may write here at the same time
            cure = "its file system has no locks across nodes: name a disk of the node with $TMPDIR, or use --data.stage none"
            raise OSError(error.errno, cure, str(place)) from error
        files.remove_garbage(copy)
        yield copy
    finally:
        os.close(descriptor)


@contextmanager
def _missing(entries: Collection[dict[str, Any]], copy: Path, place: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield which files are not on the node as their record says; they must have room there. After it, all are.

    Then their states are noted, so that neither the other processes of the node nor later starts read them whole.
    """
    note = copy / CHECKED
    before: dict[str, str] = {}
    if os.path.lexists(note) and not files.not_only_ours(note):
        with suppress(DamagedError):
            before = records.read(note, schemas.CHECKED)["files"]
    missing = [entry for entry in entries if not _is_right(copy / entry["name"], entry, before.get(entry["name"]))]
    check_room(missing, place, "use --data.stage none" + ("" if place == MEMORY else ", or another $TMPDIR"))
    yield missing
    now = {entry["name"]: _state(copy / entry["name"], entry) for entry in entries}
    if now != before:
        records.write(note, schemas.CHECKED, {"files": now})


def _is_right(path: Path, entry: dict[str, Any], checked: str | None) -> bool:
    """Whether a file is there, can only be the user's own, and is what its record says.

    Args:
        checked: its state when its sha256 was compared; None: that is not known.
    """
    if not os.path.lexists(path) or files.not_only_ours(path):
        return False
    return checked == _state(path, entry) or _is_whole(path, entry)


def _state(path: Path, entry: dict[str, Any]) -> str:
    """What changes when a file does, with the sha256 that it should have."""
    found = path.lstat()
    return files.digest([entry["sha256"], found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino])


def _write_beside(path: Path, content: dict[str, Any]) -> None:
    """Write the record of a copy, unless it is there."""
    if path.is_symlink() or not path.is_file() or path.read_text(encoding="utf-8") != files.json_text(content):
        files.write_json(path, content)


def fetch_dataset(
    address: str,
    out: Path,
    data: Data,
    without: Collection[str] = (),
    needed: Collection[str] = ("train",),
    on_file: Callable[[int, int, str], None] = lambda *_: None,
) -> None:
    """Fetch a finished dataset into a folder, its manifest last. What is there already is compared and kept.

    Args:
        data: the settings that it must have been made with. without: splits whose shards are not fetched.
        needed: splits that it must have.
        on_file: called after each file with files done, files in all, and its name.

    Raises:
        ValueError: no dataset there, one of another schema or made with other settings, or a file that differs from it.
        OSError: see `remote.fetch`; or not enough room.
    """
    where = of_file(address, manifest.NAME)
    out.mkdir(parents=True, exist_ok=True)
    files.refuse_link(out / manifest.AUDIO)  # temporary files are removed there
    descriptor = files.open_ours(out / ".lock", os.O_WRONLY)
    try:
        try:
            lock.flock(descriptor, fcntl.LOCK_EX)
            for folder in (out, out / manifest.AUDIO):
                files.remove_garbage(folder)
        except OSError as error:
            if error.errno not in lock.NO_LOCKS:  # without, two would fetch the same files, and each takes its name whole
                raise
        try:
            content = manifest.read(out)  # what it says is not changed once it is there: trainings began with it
        except (FileNotFoundError, files.DamagedError):
            try:
                content = manifest.parse(remote.fetch_manifest(address, manifest.NAME), where, AGAIN)
            except FileNotFoundError as error:
                cure = "--data.shards names the folder of manifest.json, which is uploaded last"
                raise ValueError(f"no dataset there, or not a whole one: {where}: {error.strerror}; {cure}") from error
        check_settings(content, data, where)
        if lacking := [split for split in needed if split not in content["splits"]]:
            cure = "only train with --evaluate never, or" if lacking == ["test"] else "for this run"
            if "valid" in content["splits"] and lacking == ["test"]:
                cure = "evaluate on its validation songs with --evaluate.split valid, " + cure
            raise ValueError(f"{where} has no {lacking[0]} songs: {cure} name another dataset")
        entries = [one for split, part in content["splits"].items() for one in _of_part(part, "audio")]
        entries += [one for split, part in content["splits"].items() if split not in without for one in part["shards"]]
        missing = [entry for entry in entries if not _is_whole(out / entry["name"], entry)]
        check_room(missing, out, "free some, name another folder of runs with $P2P_RUNS, or use --data.stage node or disk")
        for number, entry in enumerate(missing, 1):
            remote.fetch(address, entry, out / entry["name"])
            on_file(number, len(missing), entry["name"])
        manifest.write(out, content)
    finally:
        os.close(descriptor)


def check_settings(content: dict[str, Any], data: Data, where: str) -> None:
    """Check that a dataset was made with these settings of data.

    Raises:
        ValueError: it was not; says which flags a run with it needs.
    """
    if changed := science.differences(content["settings"], data):
        flags = " ".join(_flag(line) for line in changed if not line.endswith(" -> unknown to this version"))
        cure = f"for this dataset start a run with {flags}" if flags else "use the version that made it"
        raise ValueError(f"{where} was made with other settings than the run has ({', '.join(changed)}): {cure}")


def _flag(difference: str) -> str:
    """The flag that gives a setting the value that it has in a dataset; difference: `mels: 32 -> 64`."""
    name, _, rest = difference.partition(": ")
    name, value = name.replace("_", "-"), rest.rpartition(" -> ")[0]
    bare = {"True": f"--data.{name}", "False": f"--data.no-{name}"}
    return bare.get(value, f"--data.{name} {shlex.quote(value)}")


def upload(folder: Path, address: str, on_file: Callable[[int, int, str], None] = lambda *_: None) -> None:
    """Send a finished dataset to an address, its manifest last: so what has a manifest there is whole.

    Args:
        on_file: called after each file with files done, files in all, and its name.

    Raises:
        FileNotFoundError, ValueError: the dataset is not finished, or damaged: checked before its manifest is sent.
        OSError: a file could not be sent.
    """
    content = manifest.read(folder)
    parts = content["splits"].values()
    entries = list(
        {one["name"]: one for part in parts for kind in ("shards", "audio") for one in _of_part(part, kind)}.values()
    )
    cards = [name for name in CARDS if (folder / name).is_file()]
    names = [*(entry["name"] for entry in entries), *cards, manifest.NAME]
    for entry in entries:
        if not _is_whole(folder / entry["name"], entry):
            raise ValueError(f"{folder / entry['name']} is missing or differs from its manifest: preprocess again")
    for number, name in enumerate(names, 1):
        path = folder / name
        with path.open("rb") as source:
            remote.send(address, name, source, path.stat().st_size)
        on_file(number, len(names), name)


def check_room(missing: Collection[dict[str, Any]], place: Path, cure: str) -> None:
    """Check that files have room in a folder, a tenth of which is left free.

    Raises:
        OSError: they have not; says what is needed and there, and what to do.
    """
    needed, free = sum(entry["bytes"] for entry in missing), shutil.disk_usage(place).free
    if needed > 0.9 * free:
        said = f"{needed / 1e9:.2f} GB of files, {free / 1e9:.2f} GB free: {cure}"
        raise OSError(errno.ENOSPC, said, str(place))


def _of_part(part: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The files of a split of one kind, `shards` or `audio`, and its index, which is small and needed with both.

    Their names are the paths in the dataset.
    """
    return [{**entry, "name": path} for path, entry in manifest.files_of_part(part, kind, "index").items()]


def _is_whole(path: Path, entry: dict[str, Any]) -> bool:
    """Whether a file is there as its manifest says."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    return files.sha256_file(path) == entry["sha256"]
