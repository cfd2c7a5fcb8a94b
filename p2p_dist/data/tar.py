"""Write samples into a tar shard, byte for byte like webdataset's TarWriter, and count and hash the bytes."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from p2p_dist.common import files
from p2p_dist.data import index

Sample = tuple[str, dict[str, bytes | memoryview]]
"""A key, and the content of each of its files by suffix."""


def write(path: Path, samples: Iterable[Sample]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write one tar whole or not at all, byte for byte as webdataset's TarWriter does, and know it when it is written.

    Returns:
        name, size and sha256 of the tar; and of each sample with arrays what `index.index_shard` would find in it.
    """
    sha256, size = hashlib.sha256(), 0
    rows: list[dict[str, Any]] = []
    arrays: dict[int, dict[str, Any]] = {}  # by length: npz files of one song with one length are laid out alike
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        for key, members in samples:
            checksum = 0
            row: dict[str, Any] = {"key": key}
            for suffix, content in members.items():
                header = _header(f"{key}.{suffix}", len(content))
                if suffix == "npz":
                    if len(content) not in arrays:
                        arrays[len(content)] = index.arrays_of(content)
                    row.update(arrays[len(content)])
                    row["input"] += size + len(header)
                    row["target"] += size + len(header)
                for part in (header, content, bytes(-len(content) % tarfile.BLOCKSIZE)):
                    file.write(part)
                    sha256.update(part)
                    checksum = zlib.crc32(part, checksum)
                    size += len(part)
            if "npz" in members:
                rows.append({**row, "checksum": checksum})
            del members, content  # a long song's flac, which else would stay until the next is there
        end = bytes(2 * tarfile.BLOCKSIZE + -(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)
        file.write(end)
        sha256.update(end)
    return {"name": path.name, "bytes": size + len(end), "sha256": sha256.hexdigest()}, rows


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uname, member.gname = size, 0o444, "bigdata", "bigdata"
    return member.tobuf()
