"""Map the streams of a `.stem.mp4` to stems: by the titles in the file, else in MUSDB18's order."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from p2p_dist.audio.musdb18 import musdb_settings
from p2p_dist.settings.config import STEMS

_WORDS = {
    **{stem: stem for stem in STEMS},
    "drum": "drums",
    "others": "other",
    **dict.fromkeys(("vocal", "vox", "voice", "voices"), "vocals"),
}


def find(path: Path, tags: Sequence[Mapping[str, str]]) -> tuple[dict[str, int], bool]:
    """Find the stream of each stem in a file, and whether MUSDB18's order was assumed because titles are missing.

    Args:
        tags: of each stream. stempeg writes the stem's name as title, which FFmpeg from 8 on gives back as `name` and before
            not at all, and as handler_name.

    Raises:
        ValueError: too few streams; or their titles name some of the stems, in another order than MUSDB18's.
    """
    titles = [next(filter(None, (stem_in(one.get(tag)) for tag in ("title", "name", "handler_name"))), None) for one in tags]
    if places := _all_stems(titles):
        return places, False
    # Native Instruments' list leaves out the mix, which comes first.
    listed = [None, *map(stem_in, _listed_names(path))]
    if len(listed) == len(tags) and (places := _all_stems(listed)):
        return places, False
    order: dict[str, int] = musdb_settings()["stem_ids"]
    if len(tags) < len(order):
        raise ValueError(f"{path}: {len(tags)} sound streams, a stem file has {len(order)}")
    order = {stem: order[stem] for stem in STEMS}
    if any(title is not None and order[title] != place for place, title in enumerate(titles)):
        named = ", ".join(title or "?" for title in titles)
        raise ValueError(f"{path}: its streams are titled {named}: give each of {', '.join(STEMS)} once, or no titles")
    return order, True


def stem_in(name: str | None) -> str | None:
    """Return the stem that a title means: `Drums`, `01 - Vox`; None where it means none, or several."""
    found = {_WORDS[word] for word in re.findall(r"[a-z]+", (name or "").lower()) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def _all_stems(names: Sequence[str | None]) -> dict[str, int]:
    """The places of the stems where each is named exactly once, else nothing."""
    if sorted(filter(None, names)) != sorted(STEMS):
        return {}
    return {stem: names.index(stem) for stem in STEMS}


def _listed_names(path: Path) -> list[str]:
    """The names in Native Instruments' list of stems, JSON in the box moov/udta/stem; MUSDB18's files have it."""
    try:
        with path.open("rb") as file:
            begin, end = 0, path.stat().st_size
            for kind in (b"moov", b"udta", b"stem"):
                begin, end = box(file, kind, begin, end)
            file.seek(begin)
            return [str(stem["name"]) for stem in json.loads(file.read(min(end - begin, 1 << 20)))["stems"]]
    except (ValueError, LookupError, TypeError, RecursionError):  # no list, or none that can be read
        return []


def box(file: IO[bytes], wanted: bytes, begin: int, end: int) -> tuple[int, int]:
    """Find the content of an mp4 box among the boxes from `begin` to `end`.

    Raises:
        LookupError: there is none.
    """
    while begin + 8 <= end:
        file.seek(begin)
        size, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        inside = begin + 8
        if size == 1:  # a length of 64 bits
            (size,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
            inside += 8
        until = min(begin + size, end) if size else end
        if kind == wanted:
            return inside, until
        if size < 8 and size:
            break
        begin = until
    raise LookupError(os.fsdecode(wanted))
