"""Read drummer.json, which names the files of a drummer, see drummer.py. For login nodes: no torch, no numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from p2p_dist.common import files, records, schemas
from p2p_dist.common.files import DamagedError

NAME, PATTERN, STROKES = "drummer.json", "pattern.safetensors", "strokes.safetensors"
CURE = "remove drummer.json beside it and run the launch command again, or export the model again"


def read(folder: Path) -> dict[str, Any]:
    """Read size and sha256 of the pattern network and of the strokes, by file name.

    Raises:
        DamagedError: the record is missing or damaged.
    """
    if not (folder / NAME).is_file():
        raise DamagedError(f"{folder / NAME} is missing: run the launch command again, or export the model again")
    about: dict[str, Any] = records.read(folder / NAME, schemas.DRUMMER, CURE)["files"]
    return about


def sha256(folder: Path) -> str:
    """Return what identifies a drummer, 64 hexadecimal digits. Raises: see `read`."""
    about = read(folder)
    return files.digest([about[name]["sha256"] for name in (PATTERN, STROKES)])
