"""The folder that shards are written to: whether it may be used, its settings, and its lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2p_dist.audio import layouts
from p2p_dist.common import console, files, records
from p2p_dist.data.manifest import PARTS
from p2p_dist.run import lock
from p2p_dist.settings import science
from p2p_dist.settings.config import Data

SETTINGS = "settings.json"


def refuse(root: Path, out: Path, data: Data) -> None:
    """Check, before anything is written, that a folder may contain these shards.

    Raises:
        ValueError: it is inside the folder of songs, contains other files, or was made with other settings.
    """
    songs, where = root.resolve(), out.resolve()
    inside = [songs / name for name in where.relative_to(songs).parts[:1]] if where.is_relative_to(songs) else []
    folders = [songs] if data.split_by_title else [folder for folder in inside if layouts.split_of(folder) is not None]
    if root.is_dir() and not data.split_by_title:
        folders += [folder.resolve() for folder in layouts.split_folders(root).values()]  # they may be links
    if any(where.is_relative_to(folder) for folder in folders):
        raise ValueError(f"{out} is inside the folder of songs, so it would be read as a song: choose a folder outside {root}")
    if os.path.lexists(out) and not out.is_dir():
        raise ValueError(f"{out} is {'a broken link' if out.is_symlink() else 'not a folder'}: name another folder")
    path = out / PARTS / SETTINGS
    if not path.is_file():
        others = [] if (out / PARTS).is_dir() or not out.is_dir() else [p.name for p in out.iterdir() if p.name != "slurm"]
        if others:
            raise ValueError(
                f"{out} contains other files ({', '.join(sorted(others)[:3])}): name a new folder, or an empty one"
            )
        return
    if changed := science.differences(records.read(path, {str: None}), data):
        raise ValueError(f"{out} was made with other settings ({', '.join(changed)}): name another folder")


@contextmanager
def claim(root: Path, out: Path, data: Data, *, shared: bool, needs_locks: bool = False) -> Iterator[int]:
    """Lock `out` and record the settings of its shards; refuse a folder with other settings. Yield the lock's descriptor.

    Args:
        shared: several processes may hold the lock at once. needs_locks: refuse a file system without locks.
    """
    (out / PARTS).mkdir(exist_ok=True)
    descriptor, link = files.open_ours(out / PARTS / ".lock", os.O_RDWR), None
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            lock.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say(f"{out} is being written by another process: waiting for it")
            fcntl.flock(descriptor, kind)
        except OSError as error:
            if error.errno not in lock.NO_LOCKS:
                raise OSError(error.errno, error.strerror, str(out / PARTS / ".lock")) from error
            if needs_locks:
                cure = (
                    "its file system has no locks across nodes, which the jobs of an array need to share songs: use "
                    "one job (--preprocess-array 1; with the preprocess command --array 1), or mount it with flock"
                )
                raise OSError(error.errno, cure, str(out)) from error
            if shared:
                console.say(
                    f"note: the file system of {out} has no locks: start no other preprocessing there until this one ends"
                )
            else:
                where = out / PARTS / ".lock-link"
                link = where, lock.take_link(where, f"{out} is being written", "wait for it")
        refuse(root, out, data)  # again: another process may have created it with other settings
        if not (out / PARTS / SETTINGS).is_file():
            files.write_json(out / PARTS / SETTINGS, science.recorded(data))
        yield descriptor
    finally:
        if link is not None:
            link[0].unlink(missing_ok=True)
            os.close(link[1])
        os.close(descriptor)


def is_last(descriptor: int) -> bool:
    """Change a shared lock on a folder to an exclusive one; return False if another process shares it."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
