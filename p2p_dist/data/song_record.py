"""One song of a dataset: its key, its files, and the record of its finished shards, which is written last."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio.layouts import Source
from p2p_dist.audio.stems import Sum
from p2p_dist.common import files, records, schemas
from p2p_dist.data import manifest, overlap
from p2p_dist.settings import science
from p2p_dist.settings.config import Data

PARTS = "parts"
"""Name of the folder of records inside a dataset."""


def slug(title: str) -> str:
    """Convert a title to at most 48 ASCII letters, digits and single dashes, for keys and file names."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-") or "song"


@dataclass(frozen=True)
class NumberedSong:
    """One song to preprocess."""

    source: Source
    number: int
    """number of the song in its split; makes keys of equal titles differ"""

    @property
    def key(self) -> str:
        """`00003-the-title`: ASCII without dots, because WebDataset ends a key at its first dot."""
        return f"{self.number:05d}-{slug(self.source.name)}"

    @functools.cached_property
    def stamp(self) -> str:
        """The song's stamp, taken before the song is read, so that a file replaced meanwhile counts as changed."""
        return self.source.stamp()

    def pairs_shard(self, out: Path) -> Path:
        """Path of the shard with its pairs."""
        return out / f"{self.source.split}-{self.key}.tar"

    def sound_shard(self, out: Path) -> Path:
        """Path of the shard with the audio of a held-out song."""
        return out / f"audio-{self.source.split}-{self.key}.tar"

    def record(self, out: Path) -> Path:
        """Path of the record of the finished song."""
        return out / PARTS / f"{self.source.split}-{self.key}.json"

    @functools.cached_property
    def stamp_of_version_0_1(self) -> str:
        return self.source.stamp_of_version_0_1()

    def finished(self, out: Path, data: Data, *, stands: bool = False) -> dict[str, Any] | None:
        """Return the record if song and settings are unchanged and all shards in the record exist, else None.

        Args:
            stands: the folder has the name of these songs and a manifest, so the song's stamp is not compared.
        """
        now = self.stamp  # even without a record: it must be taken before the song is read
        record = read_record(self.record(out))
        if record is None or science.are_those(record["settings"], data):
            return None
        if not stands and record["source"] != (now if record["schema"] > 1 else self.stamp_of_version_0_1):
            return None
        shards = [shard for shard in (record["shard"], record["audio"]) if shard]
        whole = all((p := out / shard["name"]).is_file() and p.stat().st_size == shard["bytes"] for shard in shards)
        return record if whole else None

    def forget(self, out: Path) -> None:
        """Remove the files of an earlier call, the manifest and the record first."""
        made = (self.record(out), self.pairs_shard(out), self.sound_shard(out))
        if any(path.exists() for path in made):
            for path in (out / manifest.NAME, *made):
                path.unlink(missing_ok=True)


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
    song: NumberedSong,
    out: Path,
    data: Data,
    facts: SongFacts,
    counts: dict[str, int],
    pairs_shard: dict[str, Any] | None,
    rows: list[dict[str, Any]],
    sound_shard: dict[str, Any] | None,
) -> None:
    """Write the record of a finished song.

    Args:
        counts: counts of its windows. pairs_shard, sound_shard: name, size and sha256. rows: offsets of each pair in its shard.
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
        "shard": pairs_shard,
        "audio": sound_shard,
        "samples": [
            [row["key"], pairs_shard["name"], row["input"], row["target"], row["checksum"]]
            for row in rows
            if pairs_shard is not None
        ],
    }
    files.write_json(song.record(out), files.sealed(record))


def read_record(path: Path) -> dict[str, Any] | None:
    """Read the record of a finished song; None if it is missing, damaged, or was changed."""
    try:
        content = records.read(path)
        record: dict[str, Any] = records.read(path, schemas.SONG)
    except (OSError, ValueError):
        return None
    return record if files.is_sealed(content) else None
