"""Lock a folder so that only one process on this machine uses it (flock).

Some file systems have no locks (Lustre mounted without flock, NFS without a lock manager), or only locks that other nodes do
not see (Lustre with localflock). There, a file created with link() takes the place of the lock, because link() is atomic for
all nodes. The file of a killed process remains. The next process removes it if, on this node, no process with the recorded
number and start time runs and no child has the file open; or if it belongs to an earlier start of the same Slurm job.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from p2p_dist.common import files, linux, records, schemas

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Error numbers of a file system without locks."""

MOUNTS = Path("/proc/self/mountinfo")

OF_ONE_NODE = {"localflock", "localflocks", "local_lock=flock", "local_lock=all"}
"""Mount options with which each node has separate locks: Lustre, mount.lustre(8); GFS2 and OCFS2; NFS, nfs(5)."""


def flock(descriptor: int, kind: int) -> None:
    """Call flock(2). If only this node would see the lock, fail as on a file system without locks.

    Raises:
        OSError: no locks across nodes (errno in NO_LOCKS). BlockingIOError: another process has the lock, with LOCK_NB.
    """
    if OF_ONE_NODE & _mount_options(descriptor):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    fcntl.flock(descriptor, kind)


def _mount_options(descriptor: int) -> set[str]:
    """Return the mount options of an open file's file system, from proc(5): those of the mount and of its superblock."""
    try:
        info = (linux.PROC / f"self/fdinfo/{descriptor}").read_text()
        (mount,) = (line.split()[1] for line in info.splitlines() if line.startswith("mnt_id:"))
        lines = MOUNTS.read_text(errors="replace").splitlines()
    except (OSError, ValueError):  # the kernel does not report it
        return set()
    fields = next((found for line in lines if (found := line.split(" "))[0] == mount), ["", "", "", "", "", ""])
    return {*fields[5].split(","), *fields[-1].split(",")}


class Owner:
    """A lock on a folder: flock on a file in it, which the kernel releases when the last process that holds it ends.

    Children inherit it through `descriptor`, so the folder stays locked while any of them runs.
    """

    def __init__(self, folder: Path, what: str, look: str) -> None:
        """Lock the folder, which is created if needed.

        Args:
            what: meaning of the lock, such as `the run x is running`. look: how to see that. Both are for messages.

        Raises:
            ValueError: another process owns it; the message says which and how to look.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.link: Path | None = None
        self.descriptor = files.open_ours(folder / ".owner", os.O_RDWR)
        try:
            try:
                flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)  # another process may only have queried it, see owner_of
                flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = os.pread(self.descriptor, 4096, 0)
            os.close(self.descriptor)
            if error.errno in NO_LOCKS:
                self.link, self.descriptor = folder / ".owner-link", take_link(folder / ".owner-link", what, look)
                return
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise OSError(error.errno, error.strerror, str(folder / ".owner")) from error
            raise ValueError(f"{what} already: {_in_words(parse_owner(text))}; {look}") from None
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, json.dumps(_ourselves()).encode(), 0)

    def close(self) -> None:
        """Release the lock of this process."""
        os.close(self.descriptor)
        if self.link is not None and not _is_open(self.link):  # open in a child that is still running
            self.link.unlink(missing_ok=True)


def take_link(path: Path, what: str, look: str) -> int:
    """Create the file that takes the place of a lock, with link(). Return a descriptor of it, which children inherit.

    Raises:
        ValueError: a running process, or one on another machine, created it. The message says which, and what to do.
        OSError: the file system does not support links either.
    """
    mine = files.temporary_beside(path)
    files.append(mine, json.dumps(_ourselves()))
    try:
        _remove_left_behind(path)
        try:
            os.link(mine, path)
        except FileExistsError:
            pass
        except OSError as error:
            said = "its file system has neither locks nor links: use another place ($P2P_RUNS, --out), or mount it with flock"
            raise OSError(error.errno, said, str(path.parent)) from error
        if mine.stat().st_nlink == 2:  # the result of link() can be wrong over NFS
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    finally:
        mine.unlink()
    owner = parse_owner(_content(path))
    gone = f"if that process is gone, remove {path} (the file system has no locks across nodes) and run this command again"
    raise ValueError(f"{what} already: {_in_words(owner)}; {look}; {gone}")


def _remove_left_behind(path: Path) -> None:
    """Remove the file of a killed process. One process at a time does so, so that none removes a newer file."""
    if not os.path.lexists(path) or not _is_left_behind(path):
        return
    with _alone(path.with_name(path.name + "-check")):
        if _is_left_behind(path):
            path.unlink(missing_ok=True)


@contextmanager
def _alone(guard: Path) -> Iterator[None]:
    """Hold a guard folder, which only one process at a time can create, for a few milliseconds.

    Raises:
        ValueError: another process has held it for too long.
    """
    for wait in (0.05, 0.1, 0.2, 0.5, 1.0, 0.0):
        try:
            guard.mkdir()
            break
        except FileExistsError:
            time.sleep(wait)
    else:
        raise ValueError(f"another process is replacing the lock of a killed process: if none is running, remove {guard}")
    try:
        yield
    finally:
        guard.rmdir()


def _is_left_behind(path: Path) -> bool:
    """Whether the process that created this file ran on this machine and has ended, with all children that inherited the file.

    Also true for an earlier start of this job on any node: Slurm restarts a job only when all its processes have ended.
    """
    owner = parse_owner(_content(path))
    if (job := _job()) is not None and owner.get("job") == job[0] and owner["attempt"] != job[1]:
        return True
    if owner.get("host") != socket.gethostname():
        return False
    if _start(owner["process"]) == owner.get("start", -1) and owner["process"] != os.getpid():
        return False
    return not _is_open(path)


def _is_open(path: Path) -> bool:
    """Whether a process of this user on this machine has a file open; other users' processes are not visible."""
    try:
        own = path.stat()
    except FileNotFoundError:
        return True  # just released: nothing to remove
    for descriptor in linux.PROC.glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            found = descriptor.stat()
            if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
                return True
    return False


def _content(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, 4096, 0)
    finally:
        os.close(descriptor)


def owner_of(folder: Path) -> dict[str, Any] | None:
    """Return the owner of a folder (process, host and start time, if known); None if it is not locked."""
    if (folder / ".owner-link").is_file() and not _is_left_behind(folder / ".owner-link"):
        return parse_owner(_content(folder / ".owner-link"))
    try:
        descriptor = os.open(folder / ".owner", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return parse_owner(os.pread(descriptor, 4096, 0))
    except OSError:  # a file system without locks: no process can hold one
        return None
    finally:
        os.close(descriptor)
    return None


def _job() -> tuple[str, str] | None:
    """Return the Slurm job of this process and the attempt; None outside a job."""
    job, attempt = os.environ.get("P2P_JOB"), os.environ.get("P2P_ATTEMPT")
    return (job, attempt) if job and attempt else None


def _ourselves() -> dict[str, Any]:
    pid, (job, attempt) = os.getpid(), _job() or (None, None)
    return {
        "schema": schemas.OWNER.schema,
        "process": pid,
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "start": _start(pid),
        "job": job,
        "attempt": attempt,
    }


def _start(process: int) -> int | None:
    """Return the start time of a process, in clock ticks since boot, from proc(5); None if it does not exist."""
    try:
        return int((linux.PROC / f"{process}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _in_words(owner: dict[str, Any]) -> str:
    return f"process {owner.get('process', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}"


def parse_owner(text: bytes) -> dict[str, Any]:
    """Parse the content of an owner file; an empty dict if it is not valid."""
    try:
        owner: dict[str, Any] = records.parse(text, schemas.OWNER, where=".owner")
    except ValueError:  # not written yet, or by another program: the text is only for messages
        return {}
    return owner
