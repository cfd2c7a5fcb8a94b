"""Requests to generate: songs, options, output files, and whether these exist. For login nodes: no numpy."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_dist.audio import layouts, stamps
from p2p_dist.common import file_names, records, schemas
from p2p_dist.settings.config import TASKS, parse_task

PAGE, TRACKS = "index.html", "media/song"
"""The listening page of a song, and the folder of what it plays, see evaluate/report/listening.py."""

ITERATIONS = 100
"""Griffin-Lim iterations: the error is half of that after 32 iterations."""

SUFFIXES = tuple(
    f".{kind}"
    for kind in (
        *("mp3", "m4a", "flac", "wav", "ogg", "opus", "aiff", "mp4"),
        *("aif", "aac", "oga", "wma", "wv", "mka", "mkv", "webm", "mov", "avi", "au", "w64", "m4b", "ape"),
        *("aifc", "caf", "m4v", "mp2", "ac3", "3gp", "wmv"),
    )
)
"""Files with these suffixes in a folder are songs. A file that is given directly may have any name."""

_LONGEST = 150  # bytes of a name, without `-accompaniment-12.flac` and the prefix of a temporary file


@dataclass(frozen=True)
class Options:
    """Options of the generate command."""

    level: float = 0.0
    """dB by which the stem is made louder than the model proposes"""
    seed: int = 0
    takes: int = 1
    begin: float = 0.0
    """seconds of the song before the part that is taken"""
    end: float | None = None
    """seconds of the song at which that part ends"""
    format: str = "flac"
    bpm: float | None = None
    """beats a minute to which a model with a sketch plays; None: as it hears them, here and below"""
    first_beat: float | None = None
    """seconds of the song at which a beat is"""
    half_beat: bool = False
    """move all beats by half a beat"""
    density: float | None = None
    """strokes a second, relative to the training songs"""

    def recorded(self) -> dict[str, Any]:
        """Return the options for a record. Those that came later are left out at their defaults, as in older records."""
        later = ("bpm", "first_beat", "half_beat", "density")
        whole, usual = dataclasses.asdict(self), dataclasses.asdict(Options())
        return {name: value for name, value in whole.items() if name not in later or value != usual[name]}


def option_of(name: str) -> str:
    """Return how the command line spells one of these names, without its dashes."""
    return {"begin": "from", "end": "to"}.get(name, name.replace("_", "-"))


@dataclass(frozen=True)
class Place:
    """The output folder of a song, and the prefix of its file names."""

    folder: Path
    name: str

    @property
    def record(self) -> Path:
        return self.folder / f"{self.name}.json"

    def file(self, what: str, suffix: str, take: int = 0, takes: int = 1) -> Path:
        """Return a file name such as SONG-drums.flac, or for several takes SONG-drums-2.flac."""
        return self.folder / f"{self.name}-{what}{f'-{take + 1}' if takes > 1 else ''}.{suffix}"


@dataclass(frozen=True)
class Song:
    """A song to process, and where its files go."""

    source: Path
    place: Place


def find(given: list[Path], out: Path | None) -> list[Song]:
    """Find the songs in files and folders, each with its own output folder: `generated/SONG`, or below `out`.

    Args:
        out: the output folder; for a single file, the output folder of that song itself.

    Raises:
        ValueError: there are no songs, the locale lacks letters of a name, or two songs would be written to the same folder.
            The message names them.
    """
    found: dict[Path, Path] = {}  # source -> its folder below the output folder
    for path in given:
        if path.is_dir():
            for source in _inside(path, out):
                found.setdefault(source, source.relative_to(path).with_name(title(source)))
        elif path.exists():
            found.setdefault(path, Path(title(path)))
        else:
            whole = " ".join(map(str, given))
            is_one = os.path.lexists(whole)  # unlike Path.exists, not an error if this is too long for a name
            raise ValueError(f"no file or folder {path}" + (f"; put it in quotes: '{whole}'" if is_one else ""))
    if not found:
        raise ValueError(
            f"no sound file in {', '.join(map(str, given))}: a song's name ends in {', '.join(SUFFIXES[:8])} and the like; "
            "name a file with another ending directly"
        )
    if len(found) == 1 and out is not None and not given[0].is_dir():
        ((source, _),) = found.items()
        return [Song(source, Place(out, _short(title(source))))]
    # If a.mp3 and a.wav have the same title, use the file name with its suffix.
    same = Counter(str(below).casefold() for below in found.values())
    songs = []
    for source, below in found.items():
        name = plain(source.name) if same[str(below).casefold()] > 1 else title(source)
        folder = (Path("generated") if out is None else out) / below.parent / _short(name)
        songs.append(Song(source, Place(folder, _short(name))))
    for place, number in Counter(str(one.place.folder).casefold() for one in songs).items():
        if number > 1:
            both = " and ".join(str(one.source) for one in songs if str(one.place.folder).casefold() == place)
            raise ValueError(f"{both} would be written to the same folder, {place}: use two commands with different --out")
    return songs


def _inside(folder: Path, out: Path | None) -> Iterator[Path]:
    """List the sound files in a folder and its subfolders, without generated files and what file servers keep there.

    A link to a folder elsewhere is not followed but listed, so that it is left out with a message (see `requested`).

    Raises:
        ValueError: the locale lacks letters of a name.
        OSError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    made = (Path("generated") if out is None else out).resolve()
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(
            name for name in folders if not layouts.is_passed_over(name) and (Path(place) / name).resolve() != made
        )
        for name in folders:
            path = Path(place) / name
            if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
                yield path
        generated = _generated_in(Path(place), names)
        for name in sorted(set(names) - generated):
            path = Path(place) / name
            # A broken link is left out with a message: its target may be a song on a disk that is missing.
            is_one = path.is_file() or (path.is_symlink() and not path.exists())
            if path.suffix.lower() in SUFFIXES and not layouts.is_passed_over(name) and is_one:
                file_names.check_locale(path)
                yield path


def _generated_in(folder: Path, names: list[str]) -> set[str]:
    """Return which of the files in a folder are stems and mixes that a record beside them describes."""
    sounds = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    found: set[str] = set()
    for name in names if sounds else ():
        title, kind = Path(name).stem, Path(name).suffix
        if kind == ".json" and any(sound.startswith(f"{title}-") for sound in sounds):
            with contextlib.suppress(OSError, ValueError):  # another program's
                record = records.read(folder / name, schemas.GENERATED)
                found |= {one["name"] for take in record["takes"] for one in take["files"].values()}
                if not record["takes"]:  # of a process that was killed while it replaced files: those that it could make
                    what = f"{re.escape(title)}-({re.escape(stem_name(record['model']['task']))}|mix)(-[0-9]+)?"
                    found |= {sound for sound in sounds if re.fullmatch(what, Path(sound).stem)}
    return found


def recorded(place: Place) -> list[Path]:
    """List the stems, mixes and MIDI files beside a record that it names and that its command can have written."""
    try:
        record = records.read(place.record, schemas.GENERATED)
        stem = re.escape(stem_name(record["model"]["task"]))
    except (OSError, ValueError):
        return []
    what = re.compile(rf"{re.escape(place.name)}-({stem}|mix)(-[0-9]+)?\.[a-z0-9]+", re.DOTALL)
    names = [one["name"] for take in record["takes"] for one in take["files"].values()]
    return [place.folder / name for name in names if what.fullmatch(name)]


def title(source: Path) -> str:
    """Return the title of a song: its file name without suffix, or without `.stem.mp4`.

    It is used as the name of a folder, so it is valid UTF-8 without leading dots.
    """
    name = plain((source.stem.removesuffix(".stem") or source.stem).lstrip("."))
    return name if name.strip() else "song"


def _short(name: str) -> str:
    """Shorten a name so that suffixes fit, without splitting a character."""
    if len(os.fsencode(name)) <= _LONGEST:
        return name
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return name.rstrip()


def stem_name(task: str) -> str:
    """Return the name of a task's stem in file names: `drums`, `accompaniment`, or several stems as `drums-bass`."""
    return task if task in TASKS else "-".join(parse_task(task)[1])


def requested(source: Path, sha256: str, options: Options, drummer: str | None = None) -> dict[str, Any]:
    """Return the fields that a record must have if its files belong to this request.

    Args:
        sha256: of the model's weights. drummer: of a model with a sketch, see `drummer_record.sha256`.

    Raises:
        ValueError: the song is not there, or can't be read.
    """
    try:
        if source.is_dir():
            raise ValueError(f"{source} is a link to a folder, which is not followed: name that folder as well")
        if source.exists() and not source.is_file():  # before it is opened, which would wait for a pipe
            raise ValueError(f"{source} is not a file: save the sound in a file, and name that")
        stamp = stamps.stamp(source)
    except FileNotFoundError as error:
        why = f"a broken link (target {source.readlink()})" if source.is_symlink() else "not there any more"
        raise ValueError(f"{source} is {why}") from error
    except OSError as error:
        raise ValueError(f"{source} can't be read ({error.strerror})") from error
    return {
        "stamp": stamp,
        "sha256": sha256,
        "drummer": drummer,
        "settings": {**options.recorded(), "iterations": ITERATIONS},
    }


def planned(place: Place, task: str, options: Options) -> list[dict[str, Path]]:
    """List the files of each take: stem, mix, and for drums MIDI."""
    what = stem_name(task)
    kinds = {"stem": (what, options.format), "mix": ("mix", options.format)}
    if "drums" in parse_task(task)[1] and "drums" in what:
        kinds["midi"] = (what, "mid")
    return [
        {kind: place.file(name, suffix, take, options.takes) for kind, (name, suffix) in kinds.items()}
        for take in range(options.takes)
    ]


def is_made(place: Place, wanted: dict[str, Any], takes: list[dict[str, Path]]) -> bool:
    """Whether the requested files exist already.

    Args:
        wanted: see `requested`. takes: see `planned`.

    Raises:
        ValueError: files of another request exist. The message names the differences.
    """
    try:
        found = records.read(place.record, schemas.GENERATED, "remove it, or add --overwrite")
    except FileNotFoundError:
        ours = [*(path for paths in takes for path in paths.values()), place.folder / PAGE, place.folder / TRACKS]
        if there := [path for path in ours if os.path.lexists(path)]:
            raise ValueError(
                f"{there[0]} already exists, but no {place.record.name} describes how it was made: add --overwrite, or name "
                "another folder with --out"
            ) from None
        return False
    by = found["model"]
    before = {
        "stamp": found["song"]["stamp"],
        "sha256": by["sha256"],
        "drummer": by.get("drummer"),
        "settings": found["settings"],
    }
    if before == wanted:
        told = [{kind: one["bytes"] for kind, one in take["files"].items()} for take in found["takes"]]
        sizes = [{kind: _size(path) for kind, path in paths.items()} for paths in takes]
        return told == sizes and (place.folder / PAGE).is_file()
    if not found["takes"]:  # killed while it was replacing its files
        return False
    was, now = found["settings"], wanted["settings"]
    differing = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    changed = [f"{option_of(name)}: {was.get(name)} -> {now.get(name)}" for name in differing]
    if before["sha256"] != wanted["sha256"]:
        changed.append(f"model: {by['name']}")
    if before["drummer"] != wanted["drummer"]:
        changed.append(f"drummer of the model: {by['name']}")
    if before["stamp"] != wanted["stamp"]:
        changed.append(f"song: {found['song']['file']}")
    raise ValueError(
        f"{place.record} describes files made with other settings ({', '.join(changed) or 'by another version'}): "
        "add --overwrite, or name another folder with --out"
    )


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes; None if it does not exist."""
    return path.stat().st_size if path.is_file() else None


def plain(text: str) -> str:
    """Return a text in which bytes that are not UTF-8 are replaced, because JSON can't represent them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
