"""The tags of a FLAC file."""

from __future__ import annotations

from pathlib import Path

import av


def read_tags(path: Path) -> dict[str, str]:
    """As any other program reads them, their names in capitals."""
    with av.open(str(path)) as opened:
        return {name.upper(): value for name, value in opened.metadata.items()}
