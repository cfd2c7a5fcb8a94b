"""Bring the training data of a run to where they are read: into the memory of a node, or onto its disk."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from p2p_dist.common import console, files, records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.data import guides, manifest, remote, transfer
from p2p_dist.run import lock
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Data

MEMORY = Path("/dev/shm")
"""The node's memory as a file system."""

CHECKED = "checked.json"
"""In the copy on a node: the state of each file when its sha256 was compared."""


def training_shards(run: RunDir, data: Data) -> Path:
    """Return the folder to read the training shards from. With `--data.stage node` or `disk` they are brought there first.

    Raises:
        OSError, ValueError: see `copy_to_node`.
    """
    place = place_on_node(data)
    return run.shards if place is None else copy_to_node(run.shards, "train", place, transfer.address_of(run, data))


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
    entries = transfer.of_part(content["splits"][split], "shards")
    with _folder_on_node(place, f"{files.digest(content)[:16]}-{split}") as copy, _missing(entries, copy, place) as missing:
        # The index was fetched with the manifest.
        far = [entry for entry in missing if address is not None and not (folder / entry["name"]).is_file()]
        if far:
            size = console.size(sum(entry["bytes"] for entry in far))
            number = "1 file" if len(far) == 1 else f"{len(far)} files"
            console.say(f"fetching {number} ({size}) from {address} to {copy}")
        for entry in missing:
            transfer.fetch_file(address if entry in far and address else str(folder), entry, copy / entry["name"], content)
        _write_beside(copy / manifest.NAME, files.sealed(content))  # again: to schema 3 it lacked a field that it has now
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
        cure = "use --data.stage none" if place == MEMORY else "name another folder with $TMPDIR, or use --data.stage none"
        raise OSError(error.errno, f"{error.strerror}; else {cure}", error.filename) from error
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
    cure = "use --data.stage none" + ("" if place == MEMORY else ", or another $TMPDIR")
    transfer.check_room(missing, place, cure)
    try:
        yield missing
    except OSError as error:  # another program filled it meanwhile
        if error.errno not in files.FULL:
            raise
        raise OSError(error.errno, f"not enough space: {error.strerror}: free some space, {cure}", error.filename) from error
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
    return checked == _state(path, entry) or transfer.is_whole(path, entry)


def _state(path: Path, entry: dict[str, Any]) -> str:
    """What changes when a file does, with the sha256 that it should have."""
    found = path.lstat()
    return files.digest([entry["sha256"], found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino])


def _write_beside(path: Path, content: dict[str, Any]) -> None:
    """Write the record of a copy, unless it is there."""
    if path.is_symlink() or not path.is_file() or path.read_text(encoding="utf-8") != files.json_text(content):
        files.write_json(path, content)
