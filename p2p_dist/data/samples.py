"""Where the samples of a split lie: from the index of manifest schema 4, or the rows of schema 3, which stand in the manifest.

All processes of a node share one copy of a large index, in the node's memory. It is mapped from there, never from the dataset:
a mapped file that shrinks, because somebody writes the dataset anew, kills the process that reads it (SIGBUS). The copy lies in
a folder that only the user can access, and is checked by every process that opens it.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import mmap
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.common import files
from p2p_dist.data import columns

MEMORY = Path("/dev/shm")
"""The node's memory as a file system."""

SHARED_FROM = 1 << 24
"""Bytes from which an index is shared; a smaller one (400 000 windows) every process reads for itself."""


@dataclass(frozen=True)
class Sample:
    """One pair: its key, the offsets of its two arrays (bytes from the start of the shard), its checksum.

    checksum: crc32 of all bytes of its tar members, which identifies a damaged sample.
    """

    key: str
    shard: str
    input: int
    target: int
    checksum: int


def key_of(song: str, window: int, copy: int) -> str:
    """The key of a sample: that of its song, the number of the window in it, and of an augmented copy."""
    return f"{song}-{window:05d}" + (f"-copy{copy}" if copy else "")


def of_split(folder: Path, part: dict[str, Any], order: str = "feistel") -> Rows | Columns:
    """The samples of a split of a dataset.

    Args:
        part: what the manifest says of the split. order: of the dataset, see data/order.py.

    Raises:
        DamagedError, OSError: see `Columns`.
    """
    return Columns(folder, part, order) if "index" in part else Rows(part)


class Rows:
    """The samples of a split of manifest schema 3.

    shard: (samples,) place in `shards`, the names of the shards. input, target: (samples,) offsets in the shard.
    """

    def __init__(self, part: dict[str, Any]) -> None:
        self.shards = [shard["name"] for shard in part["shards"]]
        places = {name: place for place, name in enumerate(self.shards)}
        self._keys = [row[0] for row in part["samples"]]
        self.shard = np.array([places[row[1]] for row in part["samples"]], np.int64)
        self.input, self.target, self.checksum = np.array([row[2:] for row in part["samples"]], np.int64).reshape(-1, 3).T

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, number: int) -> str:
        """The key of a sample."""
        return self._keys[number]

    def sample(self, number: int) -> Sample:
        """Where a sample lies."""
        return _sample(self, number)

    def offsets(self, numbers: np.ndarray) -> tuple[list[int], list[int], list[int]]:
        """Of these samples: place of the shard, offsets of input and target in it."""
        return self.shard[numbers].tolist(), self.input[numbers].tolist(), self.target[numbers].tolist()

    def place(self, number: int) -> tuple[int, int] | None:
        """First byte of a sample in its shard, and the one after its last. The rows do not tell."""
        return None

    def originals_of(self, song: str) -> tuple[list[int], list[int]]:
        """Numbers of the samples of the song with this key, without augmented copies, and their windows in the song."""
        found = [
            (number, int(key.removeprefix(song + "-")))
            for number, key in enumerate(self._keys)
            if key.startswith(song + "-") and "-copy" not in key
        ]
        return [number for number, _ in found], [window for _, window in found]

    @functools.cached_property
    def digest(self) -> str:
        """12 hexadecimal digits that name the samples in their order."""
        return files.digest(self._keys)[:12]


class Columns:
    """The samples of a split of manifest schema 4; the arrays may be views of a file in memory. Keys are made when asked for.

    shards: the names of the shards.

    Raises:
        DamagedError: the index is damaged, or tells of shards or songs that the manifest does not list.
        OSError: it can't be read.
    """

    def __init__(self, folder: Path, part: dict[str, Any], order: str) -> None:
        self.shards = [shard["name"] for shard in part["shards"]]
        self._songs = [song["key"] for song in part["songs"]]
        self._order = order
        self._columns = open_columns(folder, part["index"])
        for name, listed in (("shard", self.shards), ("song", self._songs)):
            if len(self) and int(self._columns[name].max()) >= len(listed):
                raise columns.damaged(folder / part["index"]["name"], f"it has a {name} that the manifest does not list")

    def __len__(self) -> int:
        return len(self._columns["begin"])

    def key(self, number: int) -> str:
        """The key of a sample."""
        song, window, copy = (int(self._columns[name][number]) for name in ("song", "window", "copy"))
        return key_of(self._songs[song], window, copy)

    def sample(self, number: int) -> Sample:
        """Where a sample lies."""
        return _sample(self, number)

    @property
    def shard(self) -> np.ndarray:
        """(samples,) place in `shards`."""
        return self._columns["shard"]

    @property
    def checksum(self) -> np.ndarray:
        """(samples,) crc32 of each sample."""
        return self._columns["checksum"]

    def offsets(self, numbers: np.ndarray) -> tuple[list[int], list[int], list[int]]:
        """Of these samples: place of the shard, offsets of input and target in it."""
        begin = self._columns["begin"][numbers]
        inside = [self._columns[name][numbers].astype(np.uint64) for name in ("input", "target")]
        return self._columns["shard"][numbers].tolist(), (begin + inside[0]).tolist(), (begin + inside[1]).tolist()

    def place(self, number: int) -> tuple[int, int] | None:
        """First byte of a sample in its shard, and the one after its last."""
        begin = int(self._columns["begin"][number])
        return begin, begin + int(self._columns["length"][number])

    def originals_of(self, song: str) -> tuple[list[int], list[int]]:
        """Numbers of the samples of the song with this key, without augmented copies, and their windows in the song."""
        if song not in self._songs:
            return [], []
        found = np.flatnonzero((self._columns["song"] == self._songs.index(song)) & (self._columns["copy"] == 0))
        return found.tolist(), self._columns["window"][found].tolist()

    @functools.cached_property
    def digest(self) -> str:
        """12 hexadecimal digits that name the samples in their order; of a converted dataset those of the one of schema 3."""
        if self._order == "sorted":
            return files.digest([self.key(number) for number in range(len(self))])[:12]
        found = hashlib.sha256("\n".join(self._songs).encode())
        for name in ("song", "window", "copy"):
            found.update(np.ascontiguousarray(self._columns[name]).data)
        return found.hexdigest()[:12]


def _sample(samples: Rows | Columns, number: int) -> Sample:
    (shard,), (input,), (target,) = samples.offsets(np.array([number]))
    return Sample(samples.key(number), samples.shards[shard], input, target, int(samples.checksum[number]))


def open_columns(folder: Path, entry: dict[str, Any]) -> dict[str, np.ndarray]:
    """The columns of an index: mapped from the node's memory where it is large and there is room, else read.

    Args:
        entry: what the manifest says of the file.

    Raises:
        DamagedError: its size or sha256 is not that in the manifest.
        OSError: it can't be read.
    """
    if entry["bytes"] < SHARED_FROM:
        return columns.read(folder, entry)
    for _ in range(2):
        try:
            path, just_checked = _on_node(folder, entry)
            mapped = _mapped(path)
            if not just_checked:
                columns.check(path, mapped, entry)
        except OSError:  # no room, no such memory, or a folder there that others made
            break
        except files.DamagedError:
            path.unlink(missing_ok=True)  # and copied again; who has it mapped keeps it
        else:
            return columns.split_up(mapped, entry["samples"])
    return columns.read(folder, entry)


def private_memory() -> Path:
    """The folder in the node's memory that only this user can access; created if needed.

    Raises:
        OSError: there is none, or what is there is no folder, a link, or another user's.
    """
    ours = MEMORY / f"p2p_dist-{os.getuid()}"
    files.private_folder(ours)
    return ours


def _on_node(folder: Path, entry: dict[str, Any]) -> tuple[Path, bool]:
    """The copy of an index in the node's memory, and whether this process made and checked it. The others wait for the first.

    Raises:
        OSError: no room, no such memory, or a folder there that others made.
    """
    ours = private_memory()
    if folder.parent == ours:  # a dataset that was copied there whole
        return folder / entry["name"], False
    place = ours / "indexes"
    files.private_folder(place)
    path = place / entry["sha256"]
    lock = files.open_ours(place / ".lock", os.O_WRONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # in this node's memory: none of another node comes here
        if not path.is_symlink() and path.is_file() and path.stat().st_size == entry["bytes"]:
            return path, False
        for old in place.iterdir():  # who has one mapped keeps it; else nobody would ever remove them
            if old.name != ".lock":
                old.unlink()
        if entry["bytes"] > 0.9 * shutil.disk_usage(place).free:
            raise OSError(errno.ENOSPC, "no room for the index", str(place))
        found = hashlib.sha256()
        with files.replacing(path) as temporary, temporary.open("wb") as target, (folder / entry["name"]).open("rb") as source:
            while block := source.read(1 << 20):
                found.update(block)
                target.write(block)
            if found.hexdigest() != entry["sha256"]:
                raise OSError(errno.EIO, "not what the manifest says", str(folder / entry["name"]))
    finally:
        os.close(lock)
    return path, True


def _mapped(path: Path) -> mmap.mmap:
    """Map a file of ours read-only.

    Raises:
        OSError: it is a link, no regular file, or another user's.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "not a file of this user", str(path))
        return mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    except ValueError as error:  # it is empty
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    finally:
        os.close(descriptor)
