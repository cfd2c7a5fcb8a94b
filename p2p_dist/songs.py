"""Which songs there are: MUSDB18 (`.stem.mp4`), MUSDB18-HQ (folders of wav), folders laid out like them, npz pairs.

The only module that knows these layouts. It opens no song, so a login node, which has no decoder, can use it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from p2p_dist.config import STEMS
from p2p_dist.files import digest

SPLITS = ("train", "valid", "test")
EXCERPT = "The Easton Ellises - Falcon 69.stem.mp4"
"""The six seconds of MUSDB18 that the package stempeg ships for its own tests."""

VALID_SHARE = 0.14
"""Share of the training titles held out for validation where the songs are not MUSDB18 (which has 14 of 100)."""

SUFFIX = ".stem.mp4"
PAIRS_SUFFIX = ".npz"


@dataclass(frozen=True)
class Source:
    """Where one song lies, not yet decoded: a `.stem.mp4` file, a folder with one sound file a stem, or ready-made pairs.

    pairs: the npz files, where the song comes as pictures and has no sound.
    """

    name: str
    split: str
    path: Path
    pairs: tuple[Path, ...] = ()

    def files(self) -> list[Path]:
        """All files that it is made of, as far as they are there."""
        if self.pairs:
            return [path for path in self.pairs if path.is_file()]
        return [self.path] if self.path.is_file() else list(stem_files(self.path).values())

    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.files())

    def stamp(self) -> str:
        """Changes when the song does: a digest of its title, and of name, size and time of change of its files."""
        states = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in self.files()]
        return digest([self.name, states])


def stem_files(folder: Path) -> dict[str, Path]:
    """The sound file of each stem found in the folder of one song; none where it can't be looked into."""
    found: dict[str, Path] = {}
    with contextlib.suppress(PermissionError):  # opening the song says so, and the others go on
        for stem in STEMS:
            for suffix in (".wav", ".flac"):
                if (file := folder / f"{stem}{suffix}").is_file():
                    found.setdefault(stem, file)
    return found


def list_songs(root: Path) -> list[Source]:
    """All songs under `root`/train and `root`/test. A folder without a stem is one too: it is named when it is opened.

    Raises:
        ValueError: no such folder, no song in it, or a name that is not UTF-8; the message says what is expected.
    """
    layout = (
        f"train/ and test/ with SONG{SUFFIX} files, or SONG folders of {', '.join(STEMS)} as wav or flac, "
        f"or the {PAIRS_SUFFIX} pairs of the thesis"
    )
    if not root.is_dir():
        raise ValueError(f"no folder {root}: --data names the folder of MUSDB18, or one laid out like it ({layout})")
    songs = []
    for split in ("train", "test"):
        loose = []
        for path in sorted((root / split).iterdir()) if (root / split).is_dir() else []:
            if path.name.startswith("."):
                continue
            _check_utf8(path)
            if path.is_dir():
                pairs = () if stem_files(path) else tuple(sorted(path.glob("*" + PAIRS_SUFFIX)))
                for pair in pairs:
                    _check_utf8(pair)
                songs.append(Source(path.name, split, path, pairs))
            elif path.name.endswith(SUFFIX):
                songs.append(Source(path.name.removesuffix(SUFFIX), split, path))
            elif path.name.endswith(PAIRS_SUFFIX):
                loose.append(path)
        songs += [Source(name, split, root / split, pairs) for name, pairs in _by_song(loose).items()]
    if not any(song.files() for song in songs):
        raise ValueError(f"no song in {root}: expected {layout}")
    return songs


def _check_utf8(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the file name {os.fsencode(path)!r} is not UTF-8: rename it (convmv does whole folders)") from None


def find_songs(root: Path) -> list[Source]:
    """All songs sorted by split and name, as `list_songs` finds them; part of train becomes valid.

    Raises:
        ValueError: see `list_songs`; or musdb, which knows the validation songs of MUSDB18, is not installed.
    """
    songs = list_songs(root)
    valid = validation_titles([song.name for song in songs if song.split == "train"])
    songs = [replace(s, split="valid") if s.split == "train" and s.name in valid else s for s in songs]
    return sorted(songs, key=lambda song: (SPLITS.index(song.split), song.name, song.path))


def _by_song(pairs: list[Path]) -> dict[str, tuple[Path, ...]]:
    """Loose npz files of one folder by song: what stands before the number at the end of a name, else the folder's name."""
    songs: dict[str, list[Path]] = {}
    for path in pairs:
        name = path.name.removesuffix(PAIRS_SUFFIX)
        songs.setdefault(re.sub(r"[\s._-]*\d+$", "", name) or path.parent.name, []).append(path)
    return {name: tuple(sorted(paths)) for name, paths in songs.items()}


def validation_titles(titles: list[str]) -> set[str]:
    """Which training songs are held out for validation: MUSDB18's own 14 if all are there, else by hash of the title.

    The hash decides each title by itself, so that adding songs moves none. Where it would take all, it takes none.
    """
    known = set(musdb_settings()["validation_tracks"])
    if known <= set(titles):
        return known
    return validation_by_hash(titles)


def validation_by_hash(titles: list[str]) -> set[str]:
    """`validation_titles` of songs that are not all of MUSDB18's; needs no package."""
    taken = {title for title in titles if hashlib.sha256(title.encode()).digest()[0] < 256 * VALID_SHARE}
    return taken if taken < set(titles) else set()


def _installed(package: str) -> Path | None:
    """Folder of an installed package, found without importing it."""
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


def excerpt_file() -> Path:
    """The six-second excerpt inside stempeg.

    Raises:
        ValueError: stempeg is not installed, or came without it.
    """
    package = _installed("stempeg")
    if package is None or not (package / "data" / EXCERPT).is_file():
        raise ValueError(
            "the example song is part of the package stempeg, which is missing: name a folder of songs with --data"
        )
    return package / "data" / EXCERPT
