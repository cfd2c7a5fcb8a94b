"""Write a shard: a tar of samples with the same bytes as webdataset's TarWriter writes, indexed at the same time."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio.stems import Sum
from p2p_dist.common import files
from p2p_dist.data import index

Sample = tuple[str, dict[str, bytes | memoryview]]
"""A key, and a map of suffix -> content of each of its files."""

_BLOCK = 1 << 16


def pair(key: str, input: np.ndarray, target: np.ndarray, note: dict[str, Any]) -> Sample:
    """Return the sample of a pair of spectrograms and its metadata."""
    npz = io.BytesIO()
    np.savez(npz, input=input, target=target)
    return key, {"json": _json(note), "npz": npz.getbuffer()}


def sound(key: str, rate: int, sides: Sequence[Sum], note: dict[str, Any]) -> Iterator[Sample]:
    """Encode input and target of a song as 24-bit flac, scaled below full scale; the json's `gain` reverts the scaling.

    Yields the files of one sample one after another, because the flac of a long song is large. The audio in `sides` is
    replaced by the encoded audio, so spectrograms made from it equal those made from the shard, bit for bit.

    Raises:
        ValueError: flac does not support the number of channels or the sample rate.
    """
    import soundfile

    gain = 2.0 ** max(0, int(np.ceil(np.log2(max(*(side.peak for side in sides), 1e-9)))))
    yield key, {"json": _json({**note, "gain": gain})}
    for name, side in zip(("input", "target"), sides, strict=True):
        samples = side.sound
        flac = io.BytesIO()
        try:
            file = soundfile.SoundFile(flac, "w", rate, samples.shape[1], format="FLAC", subtype="PCM_24")
        except soundfile.LibsndfileError as error:
            kind = f"{samples.shape[1]} channels at {rate} Hz"
            raise ValueError(f"{note['song']}: held-out songs are stored as flac, which does not support {kind}") from error
        with file:
            for start in range(0, len(samples), _BLOCK):
                block = samples[start : start + _BLOCK]
                whole = np.clip(np.rint(block * np.float32(2**23 / gain)), -(2**23), 2**23 - 1)
                file.write(np.ascontiguousarray(whole.astype(np.int32) << 8))
                block[...] = whole * np.float32(gain / 2**23)
        yield key, {f"{name}.flac": flac.getbuffer()}
        del flac


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def write_pairs(path: Path, samples: Iterable[Sample]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Write the shard of a song's pairs and add their number to its entry; (None, []) if there are no pairs. See `write`."""
    if not samples:
        return None, []
    shard, rows = write(path, samples)
    return {**shard, "samples": len(rows)}, rows


def write(path: Path, samples: Iterable[Sample]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write one tar atomically, with the same bytes as webdataset's TarWriter writes, and index it.

    Returns:
        name, size and sha256 of the tar; and for each sample with arrays the same row as `index.index_shard`.
    """
    sha256, size = hashlib.sha256(), 0
    rows: list[dict[str, Any]] = []
    arrays: dict[int, dict[str, Any]] = {}  # length -> offsets: npz files of one song and one length have the same layout
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
                for block in (header, content, bytes(-len(content) % tarfile.BLOCKSIZE)):
                    file.write(block)
                    sha256.update(block)
                    checksum = zlib.crc32(block, checksum)
                    size += len(block)
            if "npz" in members:
                rows.append({**row, "checksum": checksum})
            del members, content  # else a long song's flac would stay in memory until the next one is encoded
        end = bytes(2 * tarfile.BLOCKSIZE + -(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)
        file.write(end)
        sha256.update(end)
    return {"name": path.name, "bytes": size + len(end), "sha256": sha256.hexdigest()}, rows


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uname, member.gname = size, 0o444, "bigdata", "bigdata"
    return member.tobuf()
