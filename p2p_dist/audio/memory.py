"""Files in memory for libsndfile, which are read and written by their descriptor.

soundfile also takes an io.BytesIO, whose methods libsndfile then calls. An exception raised in such a call, such as that
of Ctrl-C, is printed and lost, and the sound can be truncated.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO


def file(content: bytes | bytearray = b"") -> IO[bytes]:
    """Return an unnamed file, positioned at its first byte, that is lost when it is closed. It is in memory on Linux.

    It has no buffer of its own, so it can be read after libsndfile has written to its descriptor.
    """
    if hasattr(os, "memfd_create"):
        opened: IO[bytes] = os.fdopen(os.memfd_create("sound"), "w+b", buffering=0)
    else:
        opened = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 it is returned
    with os.fdopen(opened.fileno(), "wb", closefd=False) as whole:  # all of it, unlike one write without a buffer
        whole.write(content)
    opened.seek(0)
    return opened


def descriptor(content: bytes | bytearray = b"") -> int:
    """Return the descriptor of a `file` with this content. soundfile takes ownership of it and closes it."""
    with file(content) as opened:
        return os.dup(opened.fileno())
