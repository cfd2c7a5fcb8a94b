"""Write files atomically: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
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
"""Error numbers of a full disk or an exceeded quota."""

_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)

TEMPORARY = ".tmp-"
"""Prefix of temporary names; such a file is garbage once its writer has ended."""


class DamagedError(ValueError):
    """A file does not have the content that was written. The message names the file and how to restore it."""


def _fsync(path: Path) -> None:
    """Flush the renames in a folder, or what was written to a file through another library's own file object, to disk.

    Some file systems (through FUSE, of SMB servers) can't, especially for folders. Checksums detect what is lost there in a
    power failure.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


def writer() -> str:
    """Return a name of this process that is unique on a shared file system: host name and process id."""
    return f"{socket.gethostname()}-{os.getpid()}"


def temporary_beside(path: Path) -> Path:
    """Return an unpredictable temporary name beside `path`, so nobody can have created a link there."""
    return path.with_name(f"{TEMPORARY}{writer()}-{secrets.token_hex(8)}-{path.name}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`. On success it is renamed to `path`, on an error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:  # the error may name no file, or the temporary one
        if error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # a folder that can't be written to: the error above says so
            temporary.unlink(missing_ok=True)


def add_name(error: OSError, path: Path) -> None:
    """Set the file name of an error that has none: an error while a file is written does not name it."""
    if error.errno is not None and error.filename is None:
        error.filename = str(path)


def patiently(write: Callable[[], None]) -> None:
    """Call a function that writes a file; while the disk is full, retry for half a minute.

    Raises:
        OSError: the disk is still full, or another error.
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
    """Write `value` as JSON. NaN is refused, because JSON can't represent it."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return the text that `write_json` writes."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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
        for one in (*temporary.rglob("*"), temporary):
            if one.is_file() or one.is_dir():
                _fsync(one)
        temporary.rename(path)
        _fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_garbage(folder: Path, name: str = "") -> None:
    """Remove the temporary files that killed writers left directly in `folder`.

    Only the owner of the folder's lock may call it, because it also removes the temporary files of running writers.

    Args:
        name: only temporary files of the file with this name.
    """
    for path in folder.glob(f"{TEMPORARY}*{name}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def append(path: Path, text: str) -> None:
    """Append `text` (UTF-8) to a file with one write, so no reader sees half of it. The file is created if needed.

    Raises:
        OSError: it can't be written, or it is a link.
    """
    with os.fdopen(open_ours(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8") as file:
        file.write(text)


def open_ours(path: Path, flags: int) -> int:
    """Open a file for writing, or create it. Links are not followed; devices and pipes are refused.

    Raises:
        OSError: it can't be opened, or is not a regular file.
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


def expanded(path: str | os.PathLike[str]) -> Path:
    """Replace ~ or ~USER at the beginning by the home folder. It stays where there is no such user, as in a shell."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises RuntimeError there


def private_folder(path: Path) -> None:
    """Create a folder that only the user can access, in a place where all can write, or restrict an existing one.

    Raises:
        OSError: it exists and is not a folder, is a link, belongs to another user, or other users may write there.
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
            said = f"belongs to {_name_of(status.st_uid)}, not to {_name_of(os.geteuid())}, so it is not used"
            raise OSError(errno.EPERM, said, str(path))
        if status.st_mode & 0o022:
            said = "could be written by other users, so what lies there may be theirs: remove it"
            raise OSError(errno.EPERM, said, str(path))
        if status.st_mode & 0o055:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def check_can_be_written(path: Path) -> None:
    """Check, before long work, that the file or folder `path` can be created. Writes nothing.

    Raises:
        OSError: the nearest existing parent is not a folder, or is not writable. The message names it.
    """
    there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def remove_tree(folder: Path) -> None:
    """Remove a folder and its content, if it exists. Links in it are removed, not their targets.

    Raises:
        OSError: it is a link itself, or something can't be removed.
    """
    if folder.is_symlink():
        raise OSError(errno.ELOOP, "a symbolic link, which is not followed: remove the link, then try again", str(folder))
    if folder.exists():
        shutil.rmtree(folder)


def refuse_link(path: Path) -> None:
    """Check that `path`, in which something is about to be written or removed, is not a link. It need not exist.

    Raises:
        ValueError: it is one.
    """
    if path.is_symlink():
        raise ValueError(
            f"{path} is a link: writing or removing there would change its target {str(path.readlink())!r}; "
            "remove the link, then run the command again"
        )


def refuse_links(folder: Path, apart_from: tuple[str, ...] = (), known: str | None = None) -> None:
    """Check that a folder that this program writes contains no links: it creates none and must not write through one.

    Args:
        folder: itself it may be a link. apart_from: patterns of folders in it whose content is not looked at, such as
            `trackers/wandb/from-*`. known: how the names of links begin that are made by a library, which never writes behind
            them.

    Raises:
        ValueError: there is one; names it.
    """
    left = [folder]
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if not (known and entry.name.startswith(known)):
                    refuse_link(Path(entry.path))
                inside = os.path.relpath(entry.path, folder)
                if entry.is_dir(follow_symlinks=False) and not any(fnmatch.fnmatchcase(inside, one) for one in apart_from):
                    left.append(Path(entry.path))


def not_only_ours(path: Path) -> str | None:
    """Explain how another user could have written the file or folder `path`; None if no other user could."""
    status = path.lstat()
    if status.st_uid != os.geteuid():
        return f"belongs to {_name_of(status.st_uid)}, not to {_name_of(os.geteuid())}"
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_mode & 0o002:
        return "is writable by everybody"
    if status.st_mode & 0o020 and not is_our_own_group(status.st_gid):
        return f"is writable by the group {_group(status.st_gid)}"
    return None


def others_can_rename_in(folder: Path) -> bool:
    """Whether another user can rename or replace what lies in a folder: it is writable, without the sticky bit of /tmp."""
    status = folder.stat()
    writable = status.st_mode & 0o002 or (status.st_mode & 0o020 and not is_our_own_group(status.st_gid))
    return bool(writable) and not status.st_mode & stat.S_ISVTX


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
    """Whether a group has only this user as member: many systems have a group per user, with a umask of 002."""
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
    """Hexadecimal sha256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Add the digest of JSON content to it, so that `is_sealed` can detect a later change."""
    bare = {name: value for name, value in content.items() if name != "digest"}
    return {**bare, "digest": digest(bare)}


def is_sealed(content: Any) -> bool:
    """Whether the content is unchanged since `sealed`."""
    return isinstance(content, dict) and content == sealed(content)


def set_mode(path: Path, mode: int) -> None:
    """Set the permissions of a file or folder. A file system without permissions may refuse, unless others can write there.

    Raises:
        OSError: they can.
    """
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in (errno.EPERM, *_NOT_SUPPORTED):
            raise
        if path.stat().st_mode & 0o022 & ~mode:
            said = "its file system can't keep other users from writing there: name another folder with $P2P_RUNS or --out"
            raise OSError(error.errno, said, str(path)) from error


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` to `target`, or copy it where the file system does not allow links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)  # without its times and permissions, which not all file systems keep
