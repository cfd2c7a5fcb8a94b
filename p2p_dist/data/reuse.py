"""Copy songs from a dataset that has them: with one song more it is another dataset, but all others are made already."""

from __future__ import annotations

import errno
import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from p2p_dist.common import files
from p2p_dist.data import packing
from p2p_dist.data.manifest import PARTS
from p2p_dist.data.song_record import KeyedSong, Packed, place_of
from p2p_dist.settings.config import Data


def reuse(song: KeyedSong, out: Path, data: Data) -> bool:
    """Copy a song with its record from a dataset beside `out`, if one has the same song made by the same settings."""
    for other, packed in _others(out):
        try:
            record = song.finished(other, data, packed)
            if record is not None:
                for piece in filter(None, (record["shard"], record["audio"])):
                    _copy(other, piece, packed, out / PARTS / piece["name"])
                files.write_json(song.record(out), files.sealed(record))
                return True
        except files.DamagedError:
            continue  # or another command packs its songs now
    return False


@functools.lru_cache(maxsize=16)
def _others(out: Path) -> list[tuple[Path, Packed]]:
    """The datasets of the same task beside one that has the name of its content, in which only this user can have written."""
    if (named := re.fullmatch("(.+)-[0-9a-f]{12}", out.name)) is None:
        return []
    found = []
    for other in sorted(out.parent.glob(f"{named[1]}-*")):
        if other != out and (other / PARTS).is_dir() and not any(map(files.not_only_ours, (other, other / PARTS))):
            found.append((other, packing.packed(other)))
    return found


def _copy(other: Path, piece: dict[str, Any], packed: Packed, to: Path) -> None:
    """Copy a file of a song from another dataset. Raises DamagedError if it is not what was written, or is gone."""
    place = place_of(other, piece, packed)
    if place is None:
        raise files.DamagedError(f"{other / PARTS / piece['name']} is gone")
    found = hashlib.sha256()
    with files.replacing(to) as temporary, temporary.open("wb") as target:
        try:
            for block in packing.blocks(place, piece["bytes"]):
                found.update(block)
                target.write(block)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):  # ESTALE: NFS, if another node has removed it
                raise
            raise files.DamagedError(f"{place[0]} is gone") from error
        if found.hexdigest() != piece["sha256"]:
            raise files.DamagedError(f"{place[0]} is damaged")
