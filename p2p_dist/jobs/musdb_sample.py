"""The free sample of MUSDB18, seven seconds of each song, which the package musdb downloads: `--data musdb7s`.

musdb is imported only by a process of its own: a login node may not have it, and importing it needs ffmpeg.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

from p2p_dist.audio import layouts, musdb18
from p2p_dist.common import console, files
from p2p_dist.run import lock, rundir

NAME = "musdb7s"
"""What `--data` is called for it; a folder of this name here is meant by `./musdb7s`."""

ARCHIVE = "MUSDB18-7-STEMS.zip"

ADDRESS = f"https://github.com/sigsep/sigsep-mus-db/releases/download/v0.4.0/{ARCHIVE}"
"""Where musdb finds the archive, for messages: musdb's own configuration names it, too."""

LICENCE = (
    "MUSDB18 is for non-commercial, educational use; it and its licences are described at "
    "https://sigsep.github.io/datasets/musdb.html"
)

_LARGEST = 8_000_000
"""Bytes of a file that are too many for seven seconds of five streams, which have about one million."""

_PROGRAM = """
import socket, sys
socket.setdefaulttimeout(60)
try:
    import musdb
    musdb.DB(root=sys.argv[1], download=True, subsets=[])
except BaseException as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
"""Downloads the archive and unpacks it. No tracks are listed, which would start ffprobe for each."""


def sample_folder() -> Path:
    """Return the folder of the sample: $MUSDB_PATH if it has it already or has no songs, else one beside the runs."""
    if named := os.environ.get("MUSDB_PATH"):
        place = files.expanded(named).absolute()
        if is_there(place) or not any((place / split).exists() for split in layouts.SPLITS):
            return place
    return rundir.runs_root().parent / "songs" / NAME


def is_there(folder: Path) -> bool:
    """Whether a folder has the sample, and not all of MUSDB18: its files are small."""
    if not (folder / "train").is_dir() or not (folder / "test").is_dir():
        return False
    try:
        songs = layouts.list_songs(folder)
    except ValueError:  # none
        return False
    return all(song.stem_file is not None and song.size() < _LARGEST for song in songs)


def fetch() -> Path:
    """Return the folder of the sample. If it is not there, it is unpacked from an archive in it, or downloaded.

    Raises:
        OSError: it can't be downloaded, or the archive is damaged; the message says where to put one.
    """
    folder = sample_folder()
    if is_there(folder):
        return folder
    files.check_can_be_written(folder / "train")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _wait_for_others(descriptor, folder)
        if not is_there(folder):
            _fetch_to(folder)
    finally:
        os.close(descriptor)
    return folder


def _wait_for_others(descriptor: int, folder: Path) -> None:
    """Lock the folder: two commands at once would remove each other's files. Not all file systems lock folders."""
    with contextlib.suppress(OSError):
        try:
            lock.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say(f"another process fetches songs to {folder}: waiting for it")
            lock.flock(descriptor, fcntl.LOCK_EX)


def _fetch_to(folder: Path) -> None:
    files.remove_garbage(folder, NAME)
    console.say(f"{LICENCE}\nfetching its seven-second sample to {folder}")
    unpacked = files.temporary_beside(folder / NAME)
    try:
        if (archive := folder / ARCHIVE).is_file():
            _unpack(archive, unpacked)
        else:
            _download(unpacked, folder)
        for name in ("test", "train"):  # a folder with train/ is complete
            if not (folder / name).exists():
                (unpacked / name).rename(folder / name)
    finally:
        files.remove_tree(unpacked)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: it needs a password
        raise OSError(errno.EIO, f"the archive is damaged ({error}): fetch {ADDRESS} again", str(archive)) from error
    _check(folder, str(archive))


def _download(unpacked: Path, folder: Path) -> None:
    command = [sys.executable, "-P", "-c", _PROGRAM, str(unpacked)]  # -P: import nothing from the current folder
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    lines = done.stderr.strip().splitlines()
    if done.returncode:
        said = console.one_line(lines[-1]) if lines else f"its process ended with {done.returncode}"
        raise OSError(
            errno.EIO,
            f"musdb could not download its sample here ({said}): fetch {ADDRESS} where there is a network, put it into this "
            "folder, then run the same command again",
            str(folder),
        )
    _check(unpacked, ADDRESS)


def _check(folder: Path, source: str) -> None:
    """Check that what was unpacked is the sample."""
    if not is_there(folder):
        raise OSError(
            errno.EIO, f"the archive does not hold train/ and test/ with SONG{musdb18.SUFFIX} of seven seconds", source
        )
