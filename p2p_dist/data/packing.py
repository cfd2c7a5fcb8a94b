"""Pack songs into shards of about one size.

Which songs share a shard follows from their keys and sizes alone, not from who made them, nor in which order. Songs are halved
by the first bit of the sha256 of their keys, each half by the next bit, and so on, until a part is at most the size asked for
or is one song: a song is never cut. So a shard has about 0.7 of that size where songs are small. A song that is added, removed
or changed changes the shard that it is in (or halves it, or makes one of two); all others stay the same to the byte.

A shard has the name of its content, and is what TarWriter would write of all its samples. When it is whole, its record is
written, then it gets its name, and then the files that its songs had are removed: killed at any time, no song is lost, and no
shard is left without a record.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_dist.common import files, records, schemas
from p2p_dist.data import manifest
from p2p_dist.data.manifest import PARTS
from p2p_dist.data.song_record import Packed, Place

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Piece:
    """The pairs or the sound of one song, to be packed."""

    key: str
    place: Place
    bytes: int
    sha256: str
    samples: int = 0


def plan(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Which songs share a shard.

    Args:
        sizes: of the songs, bytes, by key. most: bytes.

    Returns:
        the keys of each shard, sorted.
    """
    bits = {key: int(hashlib.sha256(key.encode()).hexdigest(), 16) for key in sizes}

    def halved(keys: list[str], bit: int) -> list[list[str]]:
        if len(keys) < 2 or sum(sizes[key] for key in keys) <= most:
            return [keys] if keys else []
        halves: tuple[list[str], list[str]] = ([], [])
        for key in keys:
            halves[bits[key] >> (255 - bit) & 1].append(key)
        return [part for half in halves for part in halved(half, bit + 1)]

    return halved(sorted(sizes), 0)


def pack(out: Path, kind: str, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Write a shard of these songs, if it is not there, and its record; then remove the files that the songs had alone.

    Args:
        kind: what the name begins with: `train`, `audio-test`.

    Returns:
        what the manifest says of it.

    Raises:
        DamagedError: a song is not what was written; it is forgotten, so that the same command makes it again.
    """
    name = f"{kind}-{files.digest([[piece.key, piece.sha256] for piece in pieces])[:12]}.tar"
    path = _path(out, name)
    entry = _read(out / PARTS / f"shard-{name}.json", path)
    if entry is None:
        size, songs, whole = 0, [], hashlib.sha256()
        with files.replacing(path) as temporary, temporary.open("wb") as target:
            for piece in pieces:
                found = hashlib.sha256()
                for block in blocks(piece.place, piece.bytes):
                    found.update(block)
                    whole.update(block)
                    target.write(block)
                if found.hexdigest() != piece.sha256:
                    raise _forgotten(out, kind, piece)
                songs.append([piece.key, size, piece.bytes, piece.sha256])
                size += piece.bytes
            end = bytes(2 * tarfile.BLOCKSIZE + -(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)
            whole.update(end)
            target.write(end)
            entry = {"name": name, "bytes": size + len(end), "sha256": whole.hexdigest()}
            samples = {} if kind.startswith(manifest.AUDIO) else {"samples": sum(piece.samples for piece in pieces)}
            entry |= {**samples, "songs": songs}
            files.write_json(out / PARTS / f"shard-{name}.json", files.sealed({"schema": schemas.SHARD.schema, **entry}))
    for piece in pieces:
        (out / PARTS / f"{kind}-{piece.key}.tar").unlink(missing_ok=True)
    return entry


def packed(out: Path) -> Packed:
    """Where songs lie in the shards of a folder."""
    found = {}
    for record in sorted((out / PARTS).glob("shard-*.tar.json")):
        path = _path(out, record.name.removeprefix("shard-").removesuffix(".json"))
        entry = _read(record, path)
        for key, begin, _, sha256 in entry["songs"] if entry is not None else ():
            found[f"{path.stem.rpartition('-')[0]}-{key}.tar"] = path, begin, sha256
    return found


def remove_others(out: Path, named: set[str]) -> None:
    """Remove the shards that a manifest no longer names, with their records. What has no record is somebody else's."""
    for record in (out / PARTS).glob("shard-*.tar.json"):
        name = record.name.removeprefix("shard-").removesuffix(".json")
        if name not in named:
            _path(out, name).unlink(missing_ok=True)
            record.unlink()


def _path(out: Path, name: str) -> Path:
    return out / manifest.AUDIO / name if name.startswith(f"{manifest.AUDIO}-") else out / name


def _read(record: Path, path: Path) -> dict[str, Any] | None:
    """What the record of a shard says; None if it is not there, damaged, of another shard, or the shard has another size."""
    try:
        content = records.read(record, schemas.SHARD)
        whole = files.is_sealed(content) and content["name"] == path.name and path.stat().st_size == content["bytes"]
    except (OSError, ValueError):
        return None
    return {name: value for name, value in content.items() if name not in ("schema", "digest")} if whole else None


def blocks(place: Place, size: int) -> Iterator[bytes]:
    """Read so many bytes from a place, as far as they are there."""
    with place[0].open("rb") as file:
        file.seek(place[1])
        while size and (block := file.read(min(size, _BLOCK))):
            size -= len(block)
            yield block


def _forgotten(out: Path, kind: str, piece: Piece) -> files.DamagedError:
    path = piece.place[0]
    path.unlink()
    (out / PARTS / f"shard-{path.name}.json").unlink(missing_ok=True)
    return files.DamagedError(
        f"{path} was damaged: the {kind} samples of {piece.key} are not what was written; it was removed: run the same command "
        "again, which recreates its songs"
    )
