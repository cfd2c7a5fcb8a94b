"""Index tar shards once, then read arrays in place by their offsets.

A shard is an ordinary tar of npz and json members, which `webdataset` and `tar` can read. The arrays inside an uncompressed
npz are contiguous bytes of the tar, so one `preadv` reads a pair into a batch without unpacking. Shards are not memory-mapped:
if a mapped file shrinks, the process gets SIGBUS; `preadv` returns a short read.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.common import console, files, linux
from p2p_dist.data import manifest, samples
from p2p_dist.data.samples import Sample as Sample


def array_offset(npz: bytes | memoryview, name: str) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
    """Return the offset of the data of array `name` in an uncompressed npz, its dtype and its shape.

    Raises:
        ValueError: the array is missing, compressed, in Fortran order, or contains pickled objects.
    """
    with zipfile.ZipFile(io.BytesIO(npz)) as archive:
        try:
            entry = archive.getinfo(f"{name}.npy")
        except KeyError:
            raise ValueError(f"no array {name!r} in the npz (it has {', '.join(archive.namelist())})") from None
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"array {name!r} is compressed, so it cannot be read in place")
    name_length, extra_length = struct.unpack_from("<HH", npz, entry.header_offset + 26)
    start = entry.header_offset + 30 + name_length + extra_length
    stream = io.BytesIO(npz[start : start + 4096])
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if fortran or dtype.hasobject:
        raise ValueError(f"array {name!r} is in Fortran order or contains objects, so it cannot be read in place")
    return start + stream.tell(), dtype, shape


def index_shard(path: Path) -> list[dict[str, Any]]:
    """Index one tar: the samples in order, each with key, begin, length, offsets of its arrays, dtype, shape and checksum.

    Raises:
        ValueError: the file is not a tar, or a member is damaged; the message names shard and sample.
    """
    samples: list[dict[str, Any]] = []
    content = memoryview(path.read_bytes())
    begins, end = [], 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                key, _, kind = member.name.partition(".")
                if not samples or samples[-1]["key"] != key:
                    samples.append({"key": key})
                    begins.append(member.offset)
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if end > len(content):
                    raise ValueError(f"{path}: sample {key}: truncated")
                if kind == "npz":
                    npz = content[member.offset_data : member.offset_data + member.size]
                    try:
                        row = arrays_of(npz)
                    except (ValueError, zipfile.BadZipFile, struct.error) as error:
                        raise ValueError(f"{path}: sample {key}: {error}") from error
                    row["input"] += member.offset_data
                    row["target"] += member.offset_data
                    samples[-1].update(row)
    except tarfile.TarError as error:
        after = f" after sample {samples[-1]['key']}" if samples else ""
        raise ValueError(f"{path}: not readable as a tar{after} ({error})") from error
    for row, begin, until in zip(samples, begins, [*begins[1:], end], strict=True):
        if "input" not in row:
            raise ValueError(f"{path}: sample {row['key']}: no npz")
        row |= {"begin": begin, "length": until - begin, "checksum": zlib.crc32(content[begin:until])}
    return samples


def arrays_of(npz: bytes | memoryview) -> dict[str, Any]:
    """Return the offsets of the arrays `input` and `target` in an uncompressed npz, and their dtype and shape.

    Raises:
        ValueError, zipfile.BadZipFile, struct.error: see `array_offset`; or the zip is damaged.
    """
    row: dict[str, Any] = {}
    for name in ("input", "target"):
        row[name], dtype, shape = array_offset(npz, name)
        row["dtype"], row["shape"] = dtype.str, list(shape)
    return row


_MAX_GAP = 4096
"""Largest gap in bytes between the two arrays of a sample that are read in one call. The headers take a few hundred."""


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes; None if there is no regular file. One `stat` per shard: there are thousands."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


class Index:
    """Reads the pairs of one split of a dataset. Several threads may read at once.

    Args:
        folder: the folder of the dataset, with its manifest.json.
        split: train, valid or test.
        is_here: the shards must be in `folder` and can be read; False: only the list of samples is needed.

    Raises:
        FileNotFoundError: there is no manifest, because preprocessing has not finished.
        ValueError: the manifest has another schema, the split has no songs, a shard is missing or has another size, or the
            index is damaged.
    """

    def __init__(self, folder: Path, split: str, *, is_here: bool = True) -> None:
        content = manifest.read(folder)
        if split not in content["splits"]:
            out = "".join(
                f"; left out was {console.one_line(one['song'])}: {console.one_line(one['reason'])}"
                for one in content["left_out"][:1]
            )
            add = f"add songs to the folder {split}/ of --data, or repair those left out, and run the same command again"
            if split == "train" and content["settings"].get("silent_share", 1) < 1:
                add += ", or start a run with a greater --data.silent-share if the targets of these songs are silent"
            raise ValueError(f"{folder} has no {'training' if split == 'train' else split} songs: {add}{out}")
        part = content["splits"][split]
        self.folder = folder
        self.order: str = content["order"] if "index" in part else "sorted"
        self.samples = samples.of_split(folder, part, self.order)
        self.shape: tuple[int, ...] = tuple(content["shape"])
        self.dtype = np.dtype(content["dtype"])
        self.shards: dict[str, dict[str, Any]] = {shard["name"]: shard for shard in part["shards"]}
        self._names = self.samples.shards
        self._open: dict[str, int] = {}
        self._most_open = linux.allow_open_files(len(self.shards)) if is_here else 1
        self._checked = np.zeros(len(self.samples), bool)
        self._lengths: dict[str, int] = {}  # shard -> bytes of an npz, in whole tar blocks
        self._lock = threading.Lock()  # the streams of several ranks prefetch in threads
        self._between = np.empty(_MAX_GAP, np.uint8)
        for name, shard in self.shards.items() if is_here else ():
            size = _size(folder / name)
            if size != shard["bytes"]:
                found = "is missing" if size is None else f"has {size} bytes instead of {shard['bytes']}"
                raise ValueError(f"{folder / name} {found}: preprocess or launch again")

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, number: int) -> Sample:
        """Return the key, offsets and checksum of a sample."""
        return self.samples.sample(number)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Read the samples of these numbers from the shards. Compare a sample's checksum when it is read for the first time.

        To compare it at every read would take longer than the reads (tests/benchmarks/stream.py).

        Returns:
            (batch, 2, channels, mels, frames) in the stored dtype: [:, 0] the inputs, [:, 1] the targets.

        Raises:
            DamagedError: a sample is damaged; the message names shard and sample.
            OSError: a shard could not be read in three attempts; the message names shard and offset.
        """
        batch = np.empty((len(numbers), 2, *self.shape), self.dtype)
        for _ in self.read_into(batch, numbers):
            pass
        return batch

    def read_into(self, rows: Iterable[np.ndarray], numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Like `read`, but read one sample after another into `rows`, (2, channels, mels, frames) each, and yield each row."""
        places = zip(numbers.tolist(), *self.samples.offsets(numbers), strict=True)
        for row, (number, shard, input, target) in zip(rows, places, strict=False):
            between = target - input - row[0].nbytes
            with self._lock:
                if not self._checked[number]:
                    self._read_checked(row, number)
                    self._checked[number] = True
                elif 0 <= between <= _MAX_GAP:
                    self._read_bytes([row[0], self._between[:between], row[1]], self._names[shard], input)
                else:
                    self._read_bytes([row[0]], self._names[shard], input)
                    self._read_bytes([row[1]], self._names[shard], target)
            yield row

    def _read_checked(self, row: np.ndarray, number: int) -> None:
        """Read a whole sample, its two arrays into `row`, and compare its checksum with that of the index.

        A wrong sample is read once more after its pages were dropped from the page cache: the file itself may be intact.
        """
        sample, reason = self.sample(number), ""
        for _ in range(2):
            try:
                begin, end = self.byte_range(number)
                # Bytes before, between and after the arrays: headers, the sample's json, the directory of its npz.
                edges = (
                    sample.input - begin,
                    sample.target - sample.input - row[0].nbytes,
                    end - sample.target - row[1].nbytes,
                )
                if min(edges) < 0 or end > self.shards[sample.shard]["bytes"]:
                    raise ValueError("its arrays are not at the offsets in the manifest")
                before, between, after = (np.empty(size, np.uint8) for size in edges)
                pieces = [before, row[0], between, row[1], after]
                self._read_bytes(pieces, sample.shard, begin)
                checksum = 0
                for piece in pieces:
                    checksum = zlib.crc32(piece, checksum)
                if checksum == sample.checksum:
                    return
                reason = "its checksum does not match"
            except (ValueError, tarfile.TarError) as error:
                reason = str(error)
            if sample.shard in self._open:
                linux.forget(self._open[sample.shard])
        damaged = self.folder / sample.shard
        raise files.DamagedError(f"{damaged} is damaged: sample {sample.key}: {reason}; {manifest.ANEW}")

    def byte_range(self, number: int) -> tuple[int, int]:
        """Return the offsets of the first byte of a sample in its shard and of the byte after its last.

        Schema 3 does not contain them: a sample starts where the previous one ends.
        """
        if (known := self.samples.byte_range(number)) is not None:
            return known
        end = self._end(number)
        follows = number > 0 and self.sample(number - 1).shard == self.sample(number).shard
        return (self._end(number - 1) if follows else 0), end

    def _end(self, number: int) -> int:
        """Return the end of a sample's npz, which is its last member. All npz members of a shard have the same length.

        Raises:
            ValueError, tarfile.TarError: there is no tar header of an npz before the arrays.
        """
        sample = self.sample(number)
        npz = sample.input - sample.input % tarfile.BLOCKSIZE  # the headers before the array are less than one block
        if sample.shard not in self._lengths:
            header = np.empty(tarfile.BLOCKSIZE, np.uint8)
            if npz < tarfile.BLOCKSIZE:
                raise ValueError("its arrays are not at the offsets in the manifest")
            self._read_bytes([header], sample.shard, npz - tarfile.BLOCKSIZE)
            member = tarfile.TarInfo.frombuf(header.tobytes(), "utf-8", "surrogateescape")
            if member.name != f"{sample.key}.npz":
                raise ValueError("the header before its arrays belongs to another sample")
            self._lengths[sample.shard] = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        return npz + self._lengths[sample.shard]

    def _read_bytes(self, arrays: list[np.ndarray], shard: str, offset: int) -> None:
        """Fill the arrays, one after another, from the bytes at `offset`.

        Up to three attempts, because parallel file systems have short outages.
        """
        views = [memoryview(array).cast("B") for array in arrays if array.nbytes]  # type: ignore[arg-type]
        wanted = sum(map(len, views))
        for attempt in range(3):
            try:
                if shard not in self._open:
                    while len(self._open) >= self._most_open:  # a large dataset has thousands
                        os.close(self._open.pop(next(iter(self._open))))
                    self._open[shard] = os.open(self.folder / shard, os.O_RDONLY)
                got = linux.read_at(self._open[shard], views, offset)
                if got == wanted:
                    return
                raise OSError(errno.EIO, f"only {got} of {wanted} bytes at offset {offset}: truncated")
            except OSError as error:
                if shard in self._open:
                    os.close(self._open.pop(shard))
                if attempt == 2:
                    where = f"{self.folder / shard} at offset {offset}"
                    raise OSError(error.errno, error.strerror, where) from error
                time.sleep(0.1 * 10**attempt)

    def close(self) -> None:
        """Close the shards."""
        while self._open:
            os.close(self._open.popitem()[1])
