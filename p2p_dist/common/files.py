"""Write files atomically: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import json
import os
import pwd
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the machine says where there is no space left, or no quota."""

TEMPORARY = ".tmp-"
"""Prefix of everything half written; whatever carries it is garbage once its writer is gone."""


class DamagedError(ValueError):
    """What was read is not what was written: the message names file and place, and says how to make it again."""


def fsync_folder(folder: Path) -> None:
    """Make the renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Flush what was written to `path` through another library's own file object."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def writer() -> str:
    """Name of this process among all that write to one file system: two nodes may have a process of the same number."""
    return f"{socket.gethostname()}-{os.getpid()}"


def temporary_beside(path: Path) -> Path:
    """A name for what is to become `path`, other at each call: nobody can have put a link there."""
    return path.with_name(f"{TEMPORARY}{writer()}-{secrets.token_hex(8)}-{path.name}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, made and empty; on success it takes the name `path`, on any error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        yield temporary
        fsync_file(temporary)
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:  # a full disk names no file, and nobody knows the temporary one
        if error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # a folder that can't be written to: the error above says so
            temporary.unlink(missing_ok=True)


def patiently(write: Callable[[], None]) -> None:
    """Call what writes a file, again for half a minute while the disk is full.

    Raises:
        OSError: it is full still, or the machine refuses for another reason.
    """
    for pause in (1, 2, 4, 8, 15, None):
        try:
            return write()
        except OSError as error:
            if pause is None or error.errno not in FULL:
                raise
            time.sleep(pause)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` in one atomic replacement."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` in one atomic replacement."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON; not-a-number is refused, because JSON has no word for it."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Parse the JSON file `path`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON; the message names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): it is damaged; remove it and run again") from error


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes the name `path` on success.

    The rename never replaces a folder that has files: whoever committed first wins, and the later writer gets OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                fsync_file(file)
        fsync_folder(temporary)
        temporary.rename(path)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_garbage(folder: Path, name: str = "") -> None:
    """Remove what earlier, killed writers left half written directly inside `folder`.

    Only who owns what is written there may call it: a living writer's temporary file would go too.

    Args:
        name: only what was to become this file.
    """
    for path in folder.glob(f"{TEMPORARY}*{name}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def append(path: Path, text: str) -> None:
    """Add `text` (UTF-8) to the end of a file, which is made where it is not there; in one piece, so no reader sees half.

    Raises:
        OSError: it can't be written; or it is a link, which would lead elsewhere.
    """
    with os.fdopen(open_ours(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8") as file:
        file.write(text)


def open_ours(path: Path, flags: int) -> int:
    """Open a file to be written, which is made where it is not there; never one behind a link, a device or a pipe.

    Raises:
        OSError: it can't be opened, or is no regular file.
    """
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, "a symbolic link, which is not followed: remove it, then try again", str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file: remove it, then try again", str(path))
    return descriptor


def private_folder(path: Path) -> None:
    """Make a folder that only the user can look into, in a place where all can write; or close the one that is there.

    Raises:
        OSError: what is there is no folder, a link, or another user's.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise OSError(error.errno, "a link or a file, expected a folder: remove it", str(path)) from None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            said = f"belongs to {_name_of(status.st_uid)}, not to {_name_of(os.geteuid())}, and is not used"
            raise OSError(errno.EPERM, said, str(path))
        if status.st_mode & 0o077:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def check_can_be_written(path: Path) -> None:
    """Make sure, before long work, that `path`, a file or folder which need not be there, can be made. Writes nothing.

    Raises:
        OSError: the first folder above it that is there is none, or may not be written; names it.
    """
    there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it; nothing where there is none. Links in it are removed, never what they lead to.

    Raises:
        OSError: it is a link itself, or something can't be removed.
    """
    if folder.is_symlink():
        raise OSError(errno.ELOOP, "a symbolic link, which is not followed: remove the link, then try again", str(folder))
    if folder.exists():
        shutil.rmtree(folder)


def refuse_link(path: Path) -> None:
    """Make sure that `path`, in which something is about to be written or removed, is no link; it need not be there.

    Raises:
        ValueError: it is one.
    """
    if path.is_symlink():
        raise ValueError(
            f"{path} is a link: what is written or removed there would be so where it leads, to {str(path.readlink())!r}; "
            "remove the link, then type the command again"
        )


def refuse_links(folder: Path, apart_from: tuple[str, ...] = (), known: str | None = None) -> None:
    """Make sure that no link lies in a folder that this program fills: it makes none, and would write or remove behind it.

    Args:
        folder: itself it may be a link. apart_from: names directly in it that are not looked at. known: how the names of
            links begin that are made by a library, which never writes behind them.

    Raises:
        ValueError: there is one; names it.
    """
    left = [folder]
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if not (known and entry.name.startswith(known)):
                    refuse_link(Path(entry.path))
                if entry.is_dir(follow_symlinks=False) and not (entry.name in apart_from and Path(entry.path).parent == folder):
                    left.append(Path(entry.path))


def not_only_ours(path: Path) -> str | None:
    """How others than this user could have written `path` itself, a file or folder, in words; None: they could not."""
    status = path.lstat()
    if status.st_uid != os.geteuid():
        return f"belongs to {_name_of(status.st_uid)}, not to {_name_of(os.geteuid())}"
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_mode & 0o002:
        return "can be written by everybody"
    if status.st_mode & 0o020 and not is_our_own_group(status.st_gid):
        return f"can be written by the group {_group(status.st_gid)}"
    return None


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def is_our_own_group(number: int) -> bool:
    """Whether a group is of this user alone, as many systems give one to each, with a umask of 002."""
    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and user.pw_gid == number and not set(group.gr_mem) - {user.pw_name}


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hexadecimal sha256 of a JSON-able value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """JSON-able content with its own digest, by which `is_sealed` tells whether anybody changed it since."""
    bare = {name: value for name, value in content.items() if name != "digest"}
    return {**bare, "digest": digest(bare)}


def is_sealed(content: Any) -> bool:
    """Whether this is what `sealed` gave, unchanged."""
    return isinstance(content, dict) and content == sealed(content)


def link_or_copy(source: Path, target: Path) -> None:
    """Put `source` at `target` without taking space twice where the file system allows it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
