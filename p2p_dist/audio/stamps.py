"""Identify the content of a song's files by size and samples of their bytes: a dataset takes seconds on a login node.

Of each sound file 32 parts of 4 KiB are read, evenly spaced from the first byte to the last: a second in every eighth of a song
of four minutes. A mix, an encoding or a level that is another differs in all of them; flac has a checksum of all its sound in
the first part. Of an npz file the end alone is read, where the checksums of its arrays are. What stays unseen is an edit that
is shorter than the space between two parts and leaves the size as it was.
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
        OSError: one is not there any more.
    """
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
