"""Identify the content of a song's files by size and samples of their bytes: a dataset takes seconds on a login node.

For each sound file, 32 blocks of 4 KiB are read, evenly spaced from the first byte to the last. A different mix, encoding or
level changes all of them; the first block of a flac file has a checksum of all its audio. For an npz file only the end is read,
which has the checksums of its arrays. An edit is not detected if it lies between two blocks and does not change the size.
"""

from __future__ import annotations

import functools
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PARTS = 32
BYTES = 4096

_AT_ONCE = 16
"""Files read at the same time: on a parallel file system each read waits for a server."""


def stamps(paths: list[Path]) -> list[str]:
    """Return a digest of each file's size and content, in order, independent of times and names.

    Raises:
        OSError: a file does not exist any more.
    """
    if len(paths) <= _AT_ONCE:  # starting threads for each song of a dataset would take longer than reading it
        return [stamp(path) for path in paths]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(stamp, paths))


def stamp(path: Path) -> str:
    """Stamp one file. An unreadable file is stamped by its size alone: opening the song reports it."""
    about = path.stat()
    return _stamp(path, about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns)


@functools.lru_cache(maxsize=1 << 17)
def _stamp(path: Path, size: int, *_: int) -> str:
    """Stamp a file once per process. The further numbers (inode, size, times) change when the file does."""
    found = hashlib.sha256(b"%d" % size)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return found.hexdigest()
    try:
        last = max(size - BYTES, 0)
        places = {last} if path.suffix.lower() == ".npz" else {last * number // (PARTS - 1) for number in range(PARTS)}
        for place in sorted(places):
            found.update(os.pread(descriptor, BYTES, place))
    finally:
        os.close(descriptor)
    return found.hexdigest()
