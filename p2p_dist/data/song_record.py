"""One song of a dataset: its key, its files, and the record of its finished shards, which is written last."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio.layouts import Source
from p2p_dist.audio.mixer import Sum
from p2p_dist.common import files, records, schemas
from p2p_dist.data import manifest, overlap
from p2p_dist.data.manifest import PARTS
from p2p_dist.data.shard_file import ROW
from p2p_dist.settings import science
from p2p_dist.settings.config import Data

Packed = Mapping[str, tuple[Path, int, str]]
"""The pairs or the sound of each song, by the name that they had alone: their shard, their first byte in it, their sha256."""


def slug(title: str) -> str:
    """Convert a title to at most 48 ASCII letters, digits and single dashes, for keys and file names."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-") or "song"


Place = tuple[Path, int]
"""A file, and the byte in it at which the samples of a song begin."""


@dataclass(frozen=True)
class KeyedSong:
    """One song to be made into samples."""

    source: Source

    @functools.cached_property
    def key(self) -> str:
        """`the-title-3f2a9c1b20`: ASCII without dots, since WebDataset cuts a key at its first dot.

        It follows from split, title and name of the song alone, not from other songs. The digits keep apart titles that have
        the same letters, or none in ASCII, and songs of one title in two splits.
        """
        digits = files.digest([self.source.split, self.source.name, self.source.path.name])[:10]
        return f"{slug(self.source.name)}-{digits}"

    @functools.cached_property
    def stamp(self) -> str:
        """The song's stamp, taken before the song is read, so that a file replaced meanwhile counts as changed."""
        return self.source.stamp()

    def pairs_file(self, out: Path) -> Path:
        """Its pairs, until they are packed."""
        return out / PARTS / f"{self.source.split}-{self.key}.tar"

    def sound_file(self, out: Path) -> Path:
        """Its sound, where it is held out, until it is packed."""
        return out / PARTS / f"audio-{self.source.split}-{self.key}.tar"

    def record(self, out: Path) -> Path:
        """Path of the record of the finished song."""
        return out / PARTS / f"{self.source.split}-{self.key}.json"

    @functools.cached_property
    def stamp_of_version_0_1(self) -> str:
        return self.source.stamp_of_version_0_1()

    def finished(self, out: Path, data: Data, packed: Packed, *, stands: bool = False) -> dict[str, Any] | None:
        """The record of the song where it, as it is now, was made by these settings, and all that it names is there.

        Args:
            packed: of the folder. stands: the folder is named after these very songs and its manifest stands: whether they
                are those that were read is not asked again.
        """
        now = self.stamp  # even without a record: it must be taken before the song is read
        record = read_record(self.record(out))
        if record is None or record["schema"] < schemas.SONG.schema or science.are_those(record["settings"], data):
            return None
        if not stands and record["source"] != now:
            return None
        pieces = [piece for piece in (record["shard"], record["audio"]) if piece]
        return record if all(place_of(out, piece, packed) for piece in pieces) else None

    def forget(self, out: Path) -> None:
        """Remove the files of an earlier call, first the manifest and the record."""
        made = (self.record(out), self.pairs_file(out), self.sound_file(out))
        if any(path.exists() for path in made):
            for path in (out / manifest.NAME, *made):
                path.unlink(missing_ok=True)


def place_of(out: Path, piece: dict[str, Any], packed: Packed) -> Place | None:
    """Where the pairs or the sound of a song are: in a file of their own, or in a shard; None if they are lost.

    Args:
        piece: name, bytes and sha256, as the record has them.
    """
    alone = out / PARTS / piece["name"]
    if alone.is_file() and alone.stat().st_size == piece["bytes"]:
        return alone, 0
    found = packed.get(piece["name"])
    return found[:2] if found is not None and found[2] == piece["sha256"] else None


@dataclass(frozen=True)
class SongFacts:
    """Facts about a song's audio besides its spectrograms.

    rate: sample rate, Hz. clipped: number of clipped samples. levels: of input and target, dBFS; None for silence.
    filled: seconds of silence appended to a stem that was shorter than the others.
    by_position: whether streams without titles were read in MUSDB18's order.
    fingerprint: see `overlap.fingerprint`; None for existing pairs.
    """

    rate: int
    seconds: float
    clipped: int
    levels: dict[str, float | None]
    filled: float = 0.0
    by_position: bool = False
    fingerprint: str | None = None


def facts_of(rate: int, heard: Sum, made: Sum) -> SongFacts:
    """Compute the facts of a song from its input and target."""
    return SongFacts(
        rate,
        len(made.sound) / rate,
        heard.clipped + made.clipped,
        {"input": _level(heard), "target": _level(made)},
        max(heard.filled, made.filled) / rate,
        heard.by_position or made.by_position,
        overlap.fingerprint([heard.sound, made.sound], rate),
    )


def _level(total: Sum) -> float | None:
    """Return the level in dBFS (root mean square); None for silence."""
    return round(10 * float(np.log10(total.power)), 2) if total.power else None


def write_record(
    song: KeyedSong,
    out: Path,
    data: Data,
    facts: SongFacts,
    counts: dict[str, int],
    pairs: dict[str, Any] | None,
    rows: list[dict[str, Any]],
    sound: dict[str, Any] | None,
) -> None:
    """Write the record of a finished song.

    Args:
        counts: of its windows. pairs, sound: name, bytes and sha256. rows: of each pair, see `shard_file.ROW`.
    """
    record = {
        "schema": schemas.SONG.schema,
        "song": song.source.name,
        "split": song.source.split,
        "key": song.key,
        "source": song.stamp,
        "settings": science.recorded(data),
        "seconds": facts.seconds,
        "sample_rate": facts.rate,
        "clipped": facts.clipped,
        "levels": facts.levels,
        "filled": facts.filled,
        "by_position": facts.by_position,
        "fingerprint": facts.fingerprint,
        **counts,
        "dtype": rows[0]["dtype"] if rows else None,
        "shape": rows[0]["shape"] if rows else None,
        "shard": pairs,
        "audio": sound,
        "samples": {name: [row[name] for row in rows] for name in ROW},
    }
    files.write_json(song.record(out), files.sealed(record))


def read_record(path: Path) -> dict[str, Any] | None:
    """Read the record of a finished song; None if it is missing, damaged, or was changed."""
    try:
        content = records.read(path)
        record: dict[str, Any] = records.read(path, schemas.SONG)
    except (OSError, ValueError):
        return None
    if not files.is_sealed(content):
        return None
    if record["schema"] == schemas.SONG.schema:
        rows = record["samples"]
        if not isinstance(rows, dict) or set(rows) != set(ROW) or not all(isinstance(column, list) for column in rows.values()):
            return None
    return record
