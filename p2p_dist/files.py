"""Files that are either whole or not there: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def writer() -> str:
    """Name of this process among all that write to one file system: two nodes may have a process of the same number."""
    return f"{socket.gethostname()}-{os.getpid()}"


def temporary_beside(path: Path) -> Path:
    """Where this process writes what is to become `path`; no other writes there."""
    return path.with_name(f"{TEMPORARY}{writer()}-{path.name}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the name `path`, on any error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        fsync_file(temporary)
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


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
    shutil.rmtree(temporary, ignore_errors=True)
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
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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
