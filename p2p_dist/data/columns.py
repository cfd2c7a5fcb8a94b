"""Read and write the index file of a split: the position of each sample in the shards, in columns of fixed width, with sha256.

The file holds one column after another, little-endian, each of as many values as the split has samples. Values of one sample
have one place in all columns. Samples are in the order of songs by key, then windows, an original before its copies; those of a
converted dataset of schema 3 (earlier_versions.py) in the order that they had there.

| column | type | value |
| --- | --- | --- |
| begin | u8 | bytes from the start of the shard to the sample's first tar header |
| shard | u4 | position of the shard in the manifest's list `shards` |
| song | u4 | position of the song in the manifest's list `songs` |
| window | u4 | number of the window in its song |
| copy | u4 | 0 for an original, 1 and more for its augmented copies |
| input | u4 | bytes from `begin` to the data of the array `input` |
| target | u4 | bytes from `begin` to the data of the array `target` |
| length | u4 | bytes of the sample in the shard, headers and padding included |
| checksum | u4 | crc32 of these bytes |

The widest column is first, so that all are aligned. The file name contains the first 16 digits of the sha256: a new index gets
a new name, so a reader with the old file open still has the content that its manifest describes.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.common import files
from p2p_dist.data import manifest

COLUMNS: dict[str, np.dtype[Any]] = {
    "begin": np.dtype("<u8"),
    "shard": np.dtype("<u4"),
    "song": np.dtype("<u4"),
    "window": np.dtype("<u4"),
    "copy": np.dtype("<u4"),
    "input": np.dtype("<u4"),
    "target": np.dtype("<u4"),
    "length": np.dtype("<u4"),
    "checksum": np.dtype("<u4"),
}
"""Names and types in the order of the file."""

WIDTH = sum(dtype.itemsize for dtype in COLUMNS.values())
"""Bytes of the index per sample: 40."""


def write(folder: Path, split: str, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write the index of a split to `folder` atomically.

    Args:
        columns: the names of `COLUMNS` -> (samples,).

    Returns:
        the manifest's entry of the file: name, bytes, sha256 and samples.

    Raises:
        ValueError: a value does not fit its column, for instance a sample of more than 4 GiB; the message names both.
    """
    (samples,) = {len(columns[name]) for name in COLUMNS}
    packed = []
    for name, dtype in COLUMNS.items():
        column = np.asarray(columns[name])
        if samples and not 0 <= int(column.min()) <= int(column.max()) <= np.iinfo(dtype).max:
            wrong = int(column.min()) if column.min() < 0 else int(column.max())
            raise ValueError(f"{folder}: {name} {wrong} of a {split} sample does not fit into the index ({dtype})")
        packed.append(column.astype(dtype))
    found = hashlib.sha256()
    for column in packed:
        found.update(column.data)
    path = folder / f"index-{split}-{found.hexdigest()[:16]}.bin"
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        for column in packed:
            file.write(column.data)
    return {"name": path.name, "bytes": samples * WIDTH, "sha256": found.hexdigest(), "samples": samples}


def read(folder: Path, entry: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read an index into memory and check it.

    Args:
        entry: the manifest's entry of the file, see `write`.

    Returns:
        the columns, (samples,) each.

    Raises:
        DamagedError: the file is missing, or its size or sha256 differs from the manifest.
        OSError: the file cannot be read.
    """
    path = folder / entry["name"]
    try:
        with path.open("rb") as file:
            content = file.read(entry["bytes"] + 1)
    except FileNotFoundError:
        raise damaged(path, "it is missing") from None
    check(path, content, entry)
    return split_up(content, entry["samples"])


def check(path: Path, content: bytes | memoryview | mmap.mmap, entry: Mapping[str, Any]) -> None:
    """Compare the content of an index with the manifest's entry.

    Raises:
        DamagedError: see `read`.
    """
    if len(content) != entry["bytes"] or entry["bytes"] != entry["samples"] * WIDTH:
        size = path.stat().st_size if path.is_file() else len(content)
        needed = entry["samples"] * WIDTH
        raise damaged(
            path, f"it has {size} bytes, the manifest says {entry['bytes']}, and {entry['samples']} samples take {needed}"
        )
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise damaged(path, "its sha256 differs from the manifest")


def split_up(content: bytes | memoryview | mmap.mmap, samples: int) -> dict[str, np.ndarray]:
    """Return the columns of an index, (samples,) each, as views of `content`."""
    columns, begin = {}, 0
    for name, dtype in COLUMNS.items():
        columns[name] = np.frombuffer(content, dtype, samples, begin)
        begin += samples * dtype.itemsize
    return columns


def damaged(path: Path, what: str) -> files.DamagedError:
    """Return the error for an index that differs from the manifest."""
    return files.DamagedError(f"{os.fspath(path)} is damaged: {what}; {manifest.ANEW}")
