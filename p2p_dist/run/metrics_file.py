"""Read and append to metrics.jsonl, the losses and speed of a training: one JSON object per line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from p2p_dist.common import console, files, records
from p2p_dist.common.records import COUNT, Maybe
from p2p_dist.run.rundir import RunDir


class Writer:
    """Appends lines to metrics.jsonl. Lines that can't be written now (disk full) are kept and written with the next ones.

    Each line is written with a single call, so a reader does not see partial lines.
    """

    def __init__(self, run: RunDir) -> None:
        self.path = run.metrics
        self.kept = b""
        self.whole: int | None = None  # bytes of complete lines, if the file ends with a partial line
        self.lock = threading.Lock()

    def append(self, row: dict[str, Any]) -> None:
        """Append one line, or keep it and warn if it can't be written now."""
        waits = bool(self.kept)
        with self.lock:
            self.kept += json.dumps(row, allow_nan=False).encode() + b"\n"
        try:
            self.write()
        except OSError as error:
            if not waits:
                console.complain(f"warning: {console.describe(error)}; metrics are kept in memory until they can be written")

    def write(self) -> None:
        """Write the kept lines. A checkpoint is only valid with the lines of its steps, so a save calls this first.

        Raises:
            OSError: they still can't be written.
        """
        with self.lock:
            if not self.kept:
                return
            with os.fdopen(files.open_ours(self.path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0) as file:
                if self.whole is not None:
                    file.truncate(self.whole)
                    self.whole = None
                whole = file.seek(0, os.SEEK_END)
                try:
                    if file.write(self.kept) != len(self.kept):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                except OSError:
                    self.whole = whole
                    with contextlib.suppress(OSError):
                        file.truncate(whole)
                        self.whole = None
                    raise
            self.kept = b""


def read(run: RunDir) -> list[dict[str, Any]]:
    """Read all complete lines. Invalid lines, such as a truncated last line, are skipped."""
    if not run.metrics.is_file():
        return []
    with run.metrics.open("rb") as file:
        return [row for line in file if (row := parse_row(line)) is not None]


def last(run: RunDir) -> dict[str, Any] | None:
    """Return the last complete line, read from the end of the file; None if there is none."""
    return next((row for _, row in _from_the_end(run.metrics)), None)


def cut(run: RunDir, step: int) -> None:
    """Remove the lines after `step`, so that a resumed run writes no line twice. Only those lines are read."""
    if run.metrics.is_file():
        kept = (end for end, row in _from_the_end(run.metrics) if row["step"] <= step)
        os.truncate(run.metrics, next(kept, 0) if step else 0)


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Parse one line; None if it is not valid."""
    number = Maybe(float)
    shape = {"step": COUNT, "digests?": str, "l1?": number, "images_per_second?": number, "memory?": number}
    try:
        row = records.parse(line, shape, where="a line of numbers") if line.endswith(b"\n") else None
    except files.DamagedError:
        return None
    assert row is None or isinstance(row, dict)
    return row


def _from_the_end(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the complete lines of a file, last first, each with the offset of its end in bytes."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise files.DamagedError(f"{path} is not a regular file: remove it, the run goes on without its figures so far")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        place, rest = file.seek(0, os.SEEK_END), b""
        while place:
            begin = max(0, place - max(1 << 16, len(rest)))  # double the block while no line break is found
            file.seek(begin)
            block = file.read(place - begin) + rest
            end, place = begin + len(block), begin
            first, *lines = block.splitlines(keepends=True) if begin else [b"", *block.splitlines(keepends=True)]
            for line in reversed(lines):
                if (row := parse_row(line)) is not None:
                    yield end, row
                end -= len(line)
            rest = first
