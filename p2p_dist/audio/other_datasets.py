"""Songs of MoisesDB and Slakh2100, whose stems are folded into the four of MUSDB18."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from p2p_dist.common import records
from p2p_dist.common.files import DamagedError
from p2p_dist.settings.config import STEMS

MOISESDB = {
    "vocals": "vocals",
    "bass": "bass",
    "drums": "drums",
    "bowed_strings": "other",
    "guitar": "other",
    "other": "other",
    "other_keys": "other",
    "other_plucked": "other",
    "percussion": "other",
    "piano": "other",
    "wind": "other",
}
"""Stem of MoisesDB -> stem here, as in `mix_4_stems` of the package moisesdb."""

SLAKH = {"Bass": "bass", "Drums": "drums"}
"""Instrument class of Slakh2100 -> stem here. All other classes are `other`; nobody sings in Slakh2100."""

_LARGEST = 1 << 20
"""Bytes of the largest table that is read; one of Slakh2100 has some thousand."""


@dataclass(frozen=True)
class Known:
    """A song. See `layouts.Source` for its fields."""

    title: str
    stems: Mapping[str, tuple[Path, ...]]
    table: Path | None = None
    wrong: str | None = None


def moisesdb(path: Path) -> Known | None:
    """Return the song in a folder with data.json, and a folder of wav files for each stem; None if it is none.

    A stem that the song does not have is silent.
    """
    if path / "data.json" not in listed(path):
        return None
    found: dict[str, tuple[Path, ...]] = dict.fromkeys(STEMS, ())
    for name, stem in MOISESDB.items():
        found[stem] += tuple(_sounds_in(path / name))
    if not any(found.values()):
        return None
    try:
        about = records.read(path / "data.json", {"song": str, "artist": str})
    except (DamagedError, OSError):
        return Known(path.name, found)
    return Known(f"{about['artist']} - {about['song']}", found)


def slakh(path: Path) -> Known | None:
    """Return the song in a folder with metadata.yaml, and a file of each instrument in stems/; None if it is none."""
    table = path / "metadata.yaml"
    files = {file.stem: file for file in _sounds_in(path / "stems")} if table in listed(path) else {}
    if not files:
        return None
    found: dict[str, tuple[Path, ...]] = dict.fromkeys(STEMS, ())
    try:
        state = table.stat()
        classes = _slakh_classes(table, state.st_mtime_ns, state.st_size)
        for name, file in files.items():
            found[SLAKH.get(classes[name], "other")] += (file,)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        return Known(path.name, {}, table, f"{table} does not tell the instrument of each file in stems/: restore both")
    return Known(path.name, found, table)


@functools.lru_cache(maxsize=4096)
def _slakh_classes(table: Path, _: int, size: int) -> dict[str, str]:
    """Map name of an instrument's file -> its class, `Drums` for all drums. The numbers (time, size) change with the file."""
    if size > _LARGEST:
        raise ValueError
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # many times as fast, and there are thousands
    stems = yaml.load(table.read_text(encoding="utf-8"), loader)["stems"]
    return {name: "Drums" if about["is_drum"] is True else about["inst_class"] for name, about in stems.items()}


def _sounds_in(folder: Path) -> list[Path]:
    """List the wav and flac files of a folder, without hidden ones; suffixes may be in upper case."""
    return [file for file in listed(folder) if file.suffix.lower() in (".wav", ".flac") and not file.name.startswith(".")]


def listed(folder: Path) -> list[Path]:
    """List a folder, sorted; nothing if it cannot be read: opening the song reports that, and other songs continue."""
    with contextlib.suppress(PermissionError, FileNotFoundError, NotADirectoryError):
        return sorted(folder.iterdir())
    return []
