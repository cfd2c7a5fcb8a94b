"""Keys, offsets and checksums of the samples of a split: from the index file of manifest schema 4, or the rows of schema 3.

All processes of a node share one copy of a large index, in the node's memory. It is mapped from there, never from the dataset:
if a mapped file shrinks, because someone rewrites the dataset, its readers die of SIGBUS. The copy is in a folder that only the
user can access. Every process that opens it checks it.
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
"""Size in bytes from which an index is shared; every process reads a smaller one (400 000 windows) for itself."""


@dataclass(frozen=True)
class Sample:
    """One pair: its key, its shard, the offsets of its two arrays (bytes from the start of the shard), its checksum.

    checksum: crc32 of all bytes of its tar members; it identifies a damaged sample.
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
    """Return the samples of a split of a dataset.

    Args:
        part: the manifest's entry of the split. order: the manifest's entry `order`, see data/order.py.

    Raises:
        DamagedError, OSError: see `Columns`.
    """
    return Columns(folder, part, order) if "index" in part else Rows(part)


class Rows:
    """The samples of a split of manifest schema 3.

    shard: (samples,) position in `shards`, the names of the shards. input, target: (samples,) offsets in the shard.
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

    def byte_range(self, number: int) -> tuple[int, int] | None:
        """Return None: the rows do not contain it."""
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
        """Digest of the keys in their order, 12 hexadecimal digits."""
        return files.digest(self._keys)[:12]


class Columns:
    """The samples of a split of manifest schema 4. The arrays may be views of a mapped file; keys are made on request.

    shards: the names of the shards.

    Raises:
        DamagedError: the index is damaged, or contains shards or songs that the manifest does not list.
        OSError: the index cannot be read.
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

    def byte_range(self, number: int) -> tuple[int, int] | None:
        """Return the offsets of the first byte of a sample in its shard and of the byte after its last."""
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
        """Digest of the samples in their order, 12 hexadecimal digits; equal to that of schema 3 if converted from it."""
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
    """Return the columns of an index: mapped from the node's memory if it is large and there is room, else read.

    Args:
        entry: the manifest's entry of the file.

    Raises:
        DamagedError: its size or sha256 differs from the manifest.
        OSError: it cannot be read.
    """
    if entry["bytes"] < SHARED_FROM:
        return columns.read(folder, entry)
    for _ in range(2):
        try:
            path, just_checked = _on_node(folder, entry)
            mapped = _mapped(path)
            if not just_checked:
                columns.check(path, mapped, entry)
        except OSError:  # no room, no /dev/shm, or a folder there that belongs to another user
            break
        except files.DamagedError:
            path.unlink(missing_ok=True)  # and copied again; processes that have it mapped keep it
        else:
            return columns.split_up(mapped, entry["samples"])
    return columns.read(folder, entry)


def private_memory() -> Path:
    """Return the folder in the node's memory that only this user can access; create it if needed.

    Raises:
        OSError: there is no /dev/shm, or the path is no folder, a link, or belongs to another user.
    """
    ours = MEMORY / f"p2p_dist-{os.getuid()}"
    files.private_folder(ours)
    return ours


def _on_node(folder: Path, entry: dict[str, Any]) -> tuple[Path, bool]:
    """Return the copy of an index in the node's memory, and whether this process made and checked it. The others wait for it.

    Raises:
        OSError: there is no room, no /dev/shm, or the folder there belongs to another user.
    """
    ours = private_memory()
    if folder.parent == ours:  # the whole dataset was copied there
        return folder / entry["name"], False
    place = ours / "indexes"
    files.private_folder(place)
    path = place / entry["sha256"]
    lock = files.open_ours(place / ".lock", os.O_WRONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the memory of this node: flock is reliable
        if not path.is_symlink() and path.is_file() and path.stat().st_size == entry["bytes"]:
            return path, False
        for old in place.iterdir():  # nothing else removes them; processes that have one mapped keep it
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
                raise OSError(errno.EIO, "its sha256 differs from the manifest", str(folder / entry["name"]))
    finally:
        os.close(lock)
    return path, True


def _mapped(path: Path) -> mmap.mmap:
    """Map a file of this user read-only.

    Raises:
        OSError: it is a link, no regular file, or belongs to another user.
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
