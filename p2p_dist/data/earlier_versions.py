"""Datasets of versions up to 0.1: kept unchanged, because runs were trained on them, or converted to the current index.

In them a song was a shard, with its place in the split in its key, and the manifest (schema 3) had a row for each sample.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.common import console, files
from p2p_dist.data import columns, index, manifest
from p2p_dist.data.dataset import is_named_after
from p2p_dist.data.dataset_card import readme
from p2p_dist.data.manifest import PARTS
from p2p_dist.data.song_record import KeyedSong, read_record
from p2p_dist.data.verify import verify_dataset
from p2p_dist.run import lock
from p2p_dist.settings.config import Data


def stays(root: Path, out: Path, data: Data, work: list[KeyedSong]) -> bool:
    """Whether a folder has a finished dataset of an earlier version, of these songs: it is neither made again nor added to.

    Raises:
        ValueError: it is of other songs, or lacks a shard, which this version would make otherwise.
    """
    try:
        content = manifest.read(out)
    except (FileNotFoundError, ValueError):
        return False
    if content["order"] != "sorted":
        return False
    lost = [path for path, entry in manifest.files_of(out, content).items() if not _has_size(path, entry["bytes"])]
    if lost:
        raise ValueError(
            f"{lost[0]} is missing or cut short, and an earlier version made this dataset: restore the file from a copy, or "
            f"remove {out} to make all of it again (runs that were trained on it then cannot continue)"
        )
    if not is_named_after(out.name, root, data) and not _are_its_songs(out, content, work):
        raise ValueError(f"{out} is a dataset of an earlier version, of other songs: name another folder, or remove it")
    if content["left_out"]:
        console.complain(f"{out} is a dataset of an earlier version: songs that it left out are not tried again")
    return True


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _are_its_songs(out: Path, content: dict[str, Any], work: list[KeyedSong]) -> bool:
    """Whether a dataset was made of these songs as they are now."""
    stamps = {}
    for path in (out / PARTS).glob("*.json"):
        if (record := read_record(path)) is not None:
            stamps[record["split"], record["song"], record["source"]] = True
    left_out = {one["song"] for one in content["left_out"]}
    known = [
        (item.source.split, item.source.name, stamp) in stamps
        for item in work
        if item.source.name not in left_out
        for stamp in (item.stamp, item.stamp_of_version_0_1)
    ]
    return len(stamps) == len(known) // 2 and all(map(any, zip(known[::2], known[1::2], strict=True)))


def convert(folder: Path) -> int:
    """Give a dataset of manifest schema 3 today's index and manifest. Its shards, keys and the order of batches stay.

    Runs go on with it to the bit. No run may be using it meanwhile: sound moves to a folder of its own.

    Returns:
        the number of samples.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: it has today's schema already, is damaged, or has keys that others made; nothing was changed.
    """
    _to_convert(folder)
    (folder / PARTS).mkdir(exist_ok=True)
    descriptor = files.open_ours(folder / PARTS / ".lock", os.O_RDWR)
    try:
        try:
            lock.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in lock.NO_LOCKS:
                raise
            cure = "its file system has no locks across nodes: copy the dataset to a local disk, and convert it there"
            raise OSError(error.errno, cure, str(folder)) from error
        content = _to_convert(folder)  # again: another process may have converted it meanwhile
        if content["schema"] != manifest.SCHEMA:  # else an earlier call was killed before its end
            verify_dataset(folder)
            splits = {split: _converted(folder, split, part) for split, part in content["splits"].items()}
            content = {**content, "schema": manifest.SCHEMA, "order": "sorted", "splits": splits}
            files.write_text(folder / "README.md", readme(content))
            manifest.write(folder, content)
        for path in _sound_beside_pairs(folder, content):
            path.unlink()
    finally:
        os.close(descriptor)
    return sum(map(manifest.windows, content["splits"].values()))


def _to_convert(folder: Path) -> dict[str, Any]:
    content = manifest.read(folder)
    if content["schema"] == manifest.SCHEMA and not (content["order"] == "sorted" and _sound_beside_pairs(folder, content)):
        raise ValueError(f"{folder} already has the current schema {manifest.SCHEMA}: there is nothing to convert")
    return content


def _sound_beside_pairs(folder: Path, content: dict[str, Any]) -> list[Path]:
    """Files of sound where earlier versions had them: programs that read all *.tar files would take them for pairs."""
    named = (folder / entry["name"] for part in content["splits"].values() for entry in part["audio"])
    return [path for path in named if path.is_file()]


def _converted(folder: Path, split: str, part: dict[str, Any]) -> dict[str, Any]:
    """What the new manifest says of a split; its index is written, and its sound is linked to where it belongs."""
    places = {(row["key"], shard["name"]): row for shard in part["shards"] for row in index.index_shard(folder / shard["name"])}
    songs = {song["key"]: number for number, song in enumerate(part["songs"])}
    shards = {shard["name"]: number for number, shard in enumerate(part["shards"])}
    found: dict[str, list[int]] = {name: [] for name in columns.COLUMNS}
    holds: dict[str, str] = {}
    for key, shard, input, target, checksum in part["samples"]:
        split_up = re.fullmatch(r"(.+)-(\d{5,})(?:-copy(\d+))?", key)
        if split_up is None or split_up[1] not in songs:
            raise ValueError(
                f"{folder}: the sample {key} has no key that this program made (SONG-00000, and -copy1 for a copy), or of a "
                "song that its manifest does not list, so it cannot be converted; use the dataset as it is"
            )
        begin, length = places[key, shard]["begin"], places[key, shard]["length"]
        holds[shard] = split_up[1]
        row = (begin, shards[shard], songs[split_up[1]], int(split_up[2]), int(split_up[3] or 0))
        for name, value in zip(columns.COLUMNS, (*row, input - begin, target - begin, length, checksum), strict=True):
            found[name].append(value)
    for shard in part["audio"]:
        files.link_or_copy(folder / shard["name"], folder / manifest.AUDIO / shard["name"])
    return {
        "songs": part["songs"],
        "shards": [_of_one_song(shard, holds[shard["name"]]) for shard in part["shards"]],
        "audio": [_of_one_song(s, s["name"].removeprefix(f"audio-{split}-").removesuffix(".tar")) for s in part["audio"]],
        "index": columns.write(folder, split, {name: np.array(values, np.int64) for name, values in found.items()}),
    }


def _of_one_song(shard: dict[str, Any], key: str) -> dict[str, Any]:
    return {**shard, "songs": [[key, 0, shard["bytes"], shard["sha256"]]]}
