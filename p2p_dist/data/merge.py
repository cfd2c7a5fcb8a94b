"""Merge finished songs: pack them into shards, index them, describe them; the manifest is written last."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio import layouts
from p2p_dist.common import console, files
from p2p_dist.data import columns, manifest, overlap, packing
from p2p_dist.data.dataset_card import card, overlapping, readme
from p2p_dist.data.manifest import PARTS
from p2p_dist.data.song_record import KeyedSong, Packed, place_of, read_record
from p2p_dist.settings import science
from p2p_dist.settings.config import Data

_RECORD = re.compile(r"(train|valid|test)-.*\.json$")

_BEFORE = re.compile(r"(audio-)?(train|valid|test)-\d{5}-.*\.tar")
"""Shards of earlier versions."""

Record = dict[str, Any]


def is_merged(out: Path, work: list[KeyedSong]) -> bool:
    """Whether the manifest contains exactly the current records and is not older than any.

    Such a manifest is not written again, because trainings read it. `KeyedSong.forget` removes it when a song changes.
    """
    try:
        manifest.read(out)
        written = (out / manifest.NAME).stat().st_mtime_ns
    except (FileNotFoundError, ValueError):  # missing or damaged
        return False
    with os.scandir(out / PARTS) as entries:
        there = {Path(entry.path): entry.stat().st_mtime_ns for entry in entries if _RECORD.match(entry.name)}
    return there.keys() == {item.record(out) for item in work} and max(there.values()) <= written


def merge(out: Path, data: Data, work: list[KeyedSong], left_out: list[tuple[str, str]], *, stands: bool = False) -> None:
    """Merge the finished songs of a folder into a dataset; remove the files of removed songs.

    Args:
        left_out: names and reasons. stands: see `KeyedSong.finished`.

    Raises:
        ValueError: nothing that can be read, pictures of several kinds, or a song that was damaged since it was made.
    """
    packed = packing.packed(out)
    finished = [record for item in work if (record := item.finished(out, data, packed, stands=stands)) is not None]
    finished.sort(key=lambda record: record["key"])
    kinds = {(record["dtype"], tuple(record["shape"])) for record in finished if record["shard"]}
    if len(kinds) > 1:
        listed = ", ".join(f"{dtype} {shape}" for dtype, shape in sorted(kinds))
        raise ValueError(f"the songs have spectrograms of {len(kinds)} kinds ({listed}): put each kind into its own folder")
    if not kinds and finished:
        raise ValueError(f"no window of {len(finished)} songs is left: all targets are silent; raise --data.silent-share")
    if not kinds:
        raise ValueError("\n  ".join([f"none of {len(work)} songs could be read:", *(why for _, why in left_out)]))
    ((dtype, shape),) = kinds
    same = overlap.training_songs(finished)
    splits: dict[str, Any] = {}
    for split in layouts.SPLITS:
        part = [record for record in finished if record["split"] == split]
        if any(record["shard"] for record in part):
            songs = [
                {"name": r["song"], "key": r["key"], "seconds": r["seconds"], "level": _level(r)}
                | ({"same_as": titles} if split != "train" and (titles := same.get((split, r["key"]))) else {})
                for r in part
            ]
            shards = _pack(out, split, part, "shard", packed, data.shard_size)
            audio = _pack(out, f"{manifest.AUDIO}-{split}", part, "audio", packed, data.shard_size)
            index = columns.write(out, split, _index(part, shards))
            splits[split] = {"songs": songs, "shards": shards, "audio": audio, "index": index}
    content = {
        "schema": manifest.SCHEMA,
        "order": "feistel",
        "settings": science.recorded(data),
        "dtype": dtype,
        "shape": list(shape),
        "left_out": [{"song": name, "reason": why} for name, why in left_out],
        "splits": splits,
    }
    _name_equal_titles(splits)
    for line in overlapping(content):
        console.complain(f"warning: {console.one_line(line)}; it is not evaluated unless --allow-overlap is given")
    files.write_text(out / "DATASET.md", card(content, finished))
    files.write_text(out / "README.md", readme(content))
    manifest.write(out, content)
    remove_others(out, work)


def _name_equal_titles(splits: dict[str, Any]) -> None:
    """Warn of held-out songs with the title of a training song and, as far as is known, other audio."""

    def plain(song: dict[str, Any]) -> str:
        return unicodedata.normalize("NFC", song["name"]).casefold()

    trained = {plain(song) for song in splits.get("train", {"songs": []})["songs"]}
    for split in ("valid", "test"):
        for song in splits.get(split, {"songs": []})["songs"]:
            if plain(song) in trained and "same_as" not in song:
                title = console.one_line(song["name"])
                console.complain(
                    f"warning: {title} is in train and in {split}: if it is the same recording, remove one of them"
                )


def _level(record: Record) -> float | None:
    """Return the level of a song's target relative to its input, dB; None where one is silent, or they are pictures."""
    levels = record["levels"]
    return None if None in levels.values() else levels["target"] - levels["input"]


def _pack(out: Path, kind: str, part: list[Record], field: str, packed: Packed, most: float) -> list[Record]:
    """Pack the pairs (`shard`) or the sounds (`audio`) of the songs of a split."""
    pieces = {}
    for record in part:
        if piece := record[field]:
            place = place_of(out, piece, packed)
            assert place is not None
            pieces[record["key"]] = packing.Piece(
                record["key"], place, piece["bytes"], piece["sha256"], piece.get("samples", 0)
            )
    sizes = {key: piece.bytes for key, piece in pieces.items()}
    return [packing.pack(out, kind, [pieces[key] for key in keys]) for keys in packing.plan(sizes, round(most * 1e6))]


def _index(part: list[Record], shards: list[Record]) -> dict[str, np.ndarray]:
    """The columns of a split, see columns.py."""
    places = {key: (number, begin) for number, shard in enumerate(shards) for key, begin, *_ in shard["songs"]}
    found: dict[str, list[np.ndarray]] = {name: [] for name in columns.COLUMNS}
    for number, record in enumerate(part):
        if record["shard"]:
            shard, begin = places[record["key"]]
            rows = {name: np.array(values, np.int64) for name, values in record["samples"].items()}
            rows["begin"] += begin
            rows["shard"], rows["song"] = (np.full(len(rows["begin"]), value) for value in (shard, number))
            order = np.lexsort((rows["copy"], rows["window"]))
            for name, of in found.items():
                of.append(rows[name][order])
    return {name: np.concatenate(of) for name, of in found.items()}


def remove_others(out: Path, work: list[KeyedSong]) -> None:
    """Remove the records of songs that are no longer in the data, and what the manifest does not name of our own.

    Other programs read all *.tar files.
    """
    named = manifest.files_of(out, manifest.read(out))
    wanted = {item.record(out) for item in work}
    here = {(item.source.name, item.source.split) for item in work}
    for path in (out / PARTS).iterdir():
        if path not in wanted and _RECORD.match(path.name):
            record = read_record(path)
            # One of the same song has another key now, of earlier versions.
            if record is not None and (record["song"], record["split"]) not in here:
                console.complain(f"removed: {console.one_line(record['song'])} ({record['split']}) is no longer in the data")
            path.unlink()
    for path in (out / PARTS).glob("*.tar"):
        path.unlink()
    packing.remove_others(out, {path.name for path in named})
    for path in out.iterdir():
        if path not in named and (_BEFORE.fullmatch(path.name) or re.fullmatch(r"index-\w+-[0-9a-f]{16}\.bin", path.name)):
            path.unlink()
