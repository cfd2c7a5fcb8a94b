"""Tell at once that a dataset is up to date: no file of its songs, and none of its own, changed since all songs were done.

As git's index does: parts/unchanged.json has a digest of name, size, times and inode of all files where the songs lie, taken
before any was read, and one of the dataset's own files. A file that changes gets a new time of change (ctime), which no program
can set. But clocks of file systems are coarse: a file that changed within `SETTLED` seconds before it was looked at may change
again with the same time. Then nothing is recorded, and the next call looks at every song again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from p2p_dist import __version__
from p2p_dist.audio import layouts
from p2p_dist.common import files, records, schemas
from p2p_dist.data import manifest
from p2p_dist.settings import science
from p2p_dist.settings.config import Data

NAME = "unchanged.json"

SETTLED = 3.0
"""Seconds without a change after which a file's time of change tells a later one: two more than that of FAT, in steps of 2 s,
and NFS, of 1 s."""

_DEPTH = 2
"""Folders below that of a song's stems or instruments are in no layout."""

_OURS = (NAME, ".lock", ".lock-link")
"""Files of a dataset that change without a change of the dataset."""


@dataclass(frozen=True)
class Songs:
    """What the folder of songs looks like. settled: no file in it changed in the last `SETTLED` seconds."""

    root: Path
    digest: str
    settled: bool


def look(root: Path, split_by_title: bool) -> Songs | None:
    """Look at all files where songs lie, without opening one; None if that is not possible."""
    found = hashlib.sha256(repr((str(root), split_by_title)).encode())
    newest, now = 0, time.time_ns()
    try:
        for folder in [root] if split_by_title else layouts.split_folders(root).values():
            found.update(repr(folder).encode())
            for state in _states(folder, _DEPTH):
                found.update(repr(state).encode())
                newest = max(newest, state[3])
    except (OSError, ValueError):  # what it is, the list of songs reports
        return None
    return Songs(root, found.hexdigest(), newest < now - SETTLED * 1e9)


def _states(folder: Path | str, depth: int) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield path, size, times of content and of change (ns), and inode of all files in a folder, and of folders the path."""
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if entry.is_dir():
            yield entry.path, -1, 0, 0, 0
            if depth:
                yield from _states(entry.path, depth - 1)
        else:
            try:
                status = entry.stat()
            except FileNotFoundError:  # a link to nothing
                status = entry.stat(follow_symlinks=False)
            yield entry.path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _of_dataset(out: Path) -> str:
    """The digest of a dataset's files; without `slurm/`, whose logs grow."""
    found = hashlib.sha256()
    for folder in (out, out / manifest.PARTS, out / manifest.AUDIO):
        for path, *state in _states(folder, 0) if folder.is_dir() else ():
            if state[0] >= 0 and Path(path).name not in _OURS:
                found.update(repr((os.path.relpath(path, out), *state)).encode())
    return found.hexdigest()


def note(out: Path, data: Data, songs: Songs | None, *, named: bool) -> None:
    """Record that all songs are done, unless they changed just before. Only the owner of the dataset's lock may call it.

    Args:
        songs: as they looked before the first was read. named: the folder has the name of these songs and settings.
    """
    if songs is None or not songs.settled:
        return
    with contextlib.suppress(OSError):  # without it the next call only takes longer
        content = {"songs": songs.digest, "dataset": _of_dataset(out), "named": named, "version": __version__}
        content |= {"schema": schemas.UNCHANGED.schema, "settings": science.recorded(data)}
        files.write_json(out / manifest.PARTS / NAME, files.sealed(content))


def is_done(out: Path, data: Data, songs: Songs, *, named: bool = False) -> bool:
    """Whether all songs were done, and nothing changed since. What other users can write is not trusted.

    Args:
        named: whether the folder must have the name of these songs and settings.
    """
    out = out.resolve()
    path = out / manifest.PARTS / NAME
    try:
        if any(map(files.not_only_ours, (out, path.parent, path))):
            return False
        noted = records.read(path, schemas.UNCHANGED)
        return (
            files.is_sealed(noted)
            and (noted["version"], noted["songs"]) == (__version__, songs.digest)
            and (noted["named"] or not named)
            and not science.differences(noted["settings"], data)
            and noted["dataset"] == _of_dataset(out)
        )
    except (OSError, ValueError):
        return False
