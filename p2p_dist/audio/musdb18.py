"""What the installed packages know of MUSDB18: its validation songs and stems, and a song of it as an example."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable
from pathlib import Path

import yaml

EXCERPT = "The Easton Ellises - Falcon 69.stem.mp4"
"""The six seconds of MUSDB18 that the package stempeg ships for its own tests."""

SUFFIX = ".stem.mp4"


def _installed(package: str) -> Path | None:
    """Find the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


@functools.cache
def musdb_settings() -> dict:  # type: ignore[type-arg]
    """musdb's own `mus.yaml`: stem order and validation titles. `import musdb` raises where ffmpeg is missing.

    Raises:
        ValueError: musdb is not installed.
    """
    package = _installed("musdb")
    if package is None:
        raise ValueError("the package musdb is not installed: pip install 'p2p_dist[run]'")
    settings = yaml.safe_load((package / "configs" / "mus.yaml").read_text(encoding="utf-8"))
    assert isinstance(settings, dict)
    return settings


def known_of_musdb18(titles: Iterable[str]) -> list[str]:
    """Which of these are titles of MUSDB18, as far as is known here: its 14 validation songs, and the example song."""
    known = {EXCERPT.removesuffix(SUFFIX)}
    if _installed("musdb") is not None:
        known |= set(musdb_settings()["validation_tracks"])
    return sorted(known & set(titles))


def excerpt_file() -> Path:
    """Find the six-second excerpt inside stempeg.

    Raises:
        ValueError: stempeg is not installed, or came without it.
    """
    package = _installed("stempeg")
    if package is None or not (package / "data" / EXCERPT).is_file():
        raise ValueError(
            "the example song is part of the package stempeg, which is not installed: name a folder of songs with --data"
        )
    return package / "data" / EXCERPT
