"""Who works in a folder on one machine: at most one, told apart by a lock of the kernel's."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from p2p_dist import files, records


class Owner:
    """Ownership of a folder: a lock on a file in it that the kernel drops when its last holder ends, however it ends.

    Children inherit it through `descriptor`, so the folder stays owned while any of its processes lives.
    """

    def __init__(self, folder: Path, what: str, look: str) -> None:
        """Take the folder, which is made where it is not there.

        Args:
            what: goes on in it while it is owned, as `the run x is running`. look: where to see that, for people.

        Raises:
            ValueError: another process owns it; the message says which and how to look.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(folder / ".owner", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)  # perhaps somebody only looked, see owner_of
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(self.descriptor, 4096, 0)
            os.close(self.descriptor)
            owner = _read(text)
            raise ValueError(
                f"{what} already: process {owner.get('process', '?')} on {owner.get('host', '?')} "
                f"since {owner.get('since', '?')}; {look}"
            ) from None
        owner = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, json.dumps(owner).encode(), 0)

    def close(self) -> None:
        """Give this process's hold up."""
        os.close(self.descriptor)


def owner_of(folder: Path) -> dict[str, Any] | None:
    """Who owns a folder just now: process, host and since when, as far as that is known; None: nobody, as the lock tells."""
    try:
        descriptor = os.open(folder / ".owner", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(os.pread(descriptor, 4096, 0))
    except OSError:  # a file system without locks: nobody could have taken it
        return None
    finally:
        os.close(descriptor)
    return None


def _read(text: bytes) -> dict[str, Any]:
    shape = {"process": records.COUNT, "host": str, "since": str}
    try:
        owner: dict[str, Any] = records.parse(text, shape, where=".owner")
    except files.DamagedError:  # not written yet, or by something else: the lock tells, this is for people
        return {}
    return owner
