"""Read, check and write manifest.json, which describes a folder of shards. It is written last and contains its own digest."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from p2p_dist.audio.layouts import SPLITS
from p2p_dist.common import console, files, records, schemas
from p2p_dist.common.records import COUNT, KEY

SCHEMA = schemas.MANIFEST.schema
"""Schema of manifest.json as it is written now; that of before is read too, others are refused."""

READ = (3, SCHEMA)

NAME = "manifest.json"

REWRITE = "preprocess or launch again to recreate it"

ANEW = "remove it if it is there, then preprocess or launch again: only this file is made or fetched again"
"""What to do about a file that differs from its manifest: those that are there are not read whole."""

PARTS = "parts"
"""Folder of the records in a dataset's folder, and of songs until they are packed."""

AUDIO = "audio"
"""Folder of the shards of sound, apart from the pairs: other programs read all *.tar of one folder as one table."""


def read(folder: Path) -> dict[str, Any]:
    """Read the manifest of a dataset.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, of another schema, or was changed after it was written, or has a split without windows.
    """
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no manifest: preprocessing has not finished", str(path))
    return parse(records.text_of(path, REWRITE), str(path))


def parse(text: str | bytes, where: str, again: str = REWRITE) -> dict[str, Any]:
    """Check the text of a manifest and return its content, with the fields that earlier versions did not write.

    Args:
        where: its path or address, for messages. again: how to get a good one.

    Raises:
        ValueError: see `read`.
    """
    found = records.parse(text, {"schema": COUNT}, where=where, cure=again)
    if found["schema"] not in READ:
        newer = "a newer version wrote it: use that version, or another dataset" if found["schema"] > SCHEMA else again
        raise ValueError(f"{where} has schema {found['schema']}, this version reads schemas {READ[0]} and {SCHEMA}: {newer}")
    if not files.is_sealed(found):
        raise ValueError(f"{where} was changed after it was written: {again}")
    found = schemas.MANIFEST.complete(found)
    wrong = records.wrong(found, schemas.MANIFEST.shape)
    if not wrong:
        others = set(found["splits"]) - set(SPLITS)
        wrong = "it has other splits" if others else next(filter(None, map(_wrong_part, found["splits"].values())), None)
    if wrong:
        raise files.DamagedError(f"{where} is damaged: {wrong}; {again}")
    assert isinstance(found, dict)
    return found


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest of a dataset, with a digest that `read` checks."""
    files.write_json(folder / NAME, files.sealed(content))


def windows(part: dict[str, Any]) -> int:
    """The number of samples of a split."""
    return int(part["index"]["samples"]) if "index" in part else len(part["samples"])


def files_of_part(part: dict[str, Any], *kinds: str) -> dict[str, dict[str, Any]]:
    """Map path in the dataset -> name, bytes and sha256, of the files of a split.

    Args:
        kinds: `shards`, `audio`, `index`. To schema 3 the audio was beside the pairs, and there was no index.
    """
    found = {}
    for kind in kinds:
        if kind == "index":
            found.update({part["index"]["name"]: part["index"]} if "index" in part else {})
        else:
            folder = f"{AUDIO}/" if kind == "audio" and "index" in part else ""
            found.update({folder + entry["name"]: entry for entry in part[kind]})
    return found


def files_of(folder: Path, content: dict[str, Any]) -> dict[Path, dict[str, Any]]:
    """Map path -> name, bytes and sha256 of every file that a manifest names."""
    parts = content["splits"].values()
    return {folder / path: e for part in parts for path, e in files_of_part(part, "shards", "audio", "index").items()}


def identity(content: dict[str, Any]) -> str:
    """Return a digest (hexadecimal sha256) of what a dataset is, equal for equal files: no matter which version reads it."""
    return files.digest({str(path): entry["sha256"] for path, entry in files_of(Path(), content).items()})


def overlap(content: dict[str, Any], split: str) -> dict[str, list[str]]:
    """Map the key of each held-out song that is also a training song -> the titles of those training songs.

    Datasets of version 0.1 do not contain this; for them the result is empty.
    """
    songs = content["splits"].get(split, {}).get("songs", [])
    return {song["key"]: song["same_as"] for song in songs if song.get("same_as")}


def check_unseen(content: dict[str, Any], split: str) -> None:
    """Check that at least one held-out song is not a training song.

    Raises:
        ValueError: all are training songs.
    """
    songs = content["splits"].get(split, {}).get("songs", [])
    if songs and len(overlap(content, split)) == len(songs):
        named = ", ".join(console.one_line(song["name"]) for song in songs[:3]) + (" ..." if len(songs) > 3 else "")
        raise ValueError(
            f"all {split} songs have the audio of training songs ({named}), so they cannot show how the model does on "
            f"other songs: put other songs into {split}/, or add --allow-overlap"
        )


def _wrong_part(part: dict[str, Any]) -> str | None:
    """Describe what is wrong with a split."""
    if "index" not in part:
        return _wrong_rows(part)
    if not part["index"]["samples"]:
        return "it has a split without windows"
    if part["index"]["samples"] != sum(shard["samples"] for shard in part["shards"]):
        return "the index has another number of samples than the shards"
    songs = {song["key"] for song in part["songs"]}
    if any(key not in songs for shard in (*part["shards"], *part["audio"]) for key, *_ in shard["songs"]):
        return "a shard has a song that is not listed"
    return None


def _wrong_rows(part: dict[str, Any]) -> str | None:
    """Return what is wrong with the rows of the samples, or None. Checked column by column, because there may be millions."""
    rows, names = part["samples"], {shard["name"] for shard in part["shards"]}
    if not rows:
        return "it has a split without windows"
    if not all(isinstance(row, list) and len(row) == 5 for row in rows):
        return "a row of samples must have a key, a shard, two offsets and a checksum"
    for column in (2, 3, 4):
        if not all(type(row[column]) is int and 0 <= row[column] < COUNT.stop for row in rows):
            return "a row of samples has an offset or checksum that is not a whole number"
    if not all(type(row[1]) is str and row[1] in names for row in rows):
        return "a row of samples names a shard that is not listed"
    if not all(type(row[0]) is str and KEY.fullmatch(row[0]) for row in rows):
        return "a row of samples has no key"
    return None
