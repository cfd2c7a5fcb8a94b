"""Name a dataset by its songs and settings. No song is opened, so a login node without a decoder can do it."""

from __future__ import annotations

import re
from pathlib import Path

from p2p_dist.audio import layouts
from p2p_dist.common import files
from p2p_dist.settings import config


def dataset_name(root: Path, data: config.Data) -> str:
    """Name of the folder of shards for these songs under these settings, as `drums-default-1f3c9a52e07b`.

    Songs are told apart by path and size in bytes, not opened: a login node, which has no decoder, can tell the name.

    Raises:
        ValueError: no song; see `songs.list_songs`.
    """
    return name_of(root, data, layouts.list_songs(root, data.split_by_title))


def name_of(root: Path, data: config.Data, of: list[layouts.Source]) -> str:
    found = [file.relative_to(root) for song in of for file in song.files()]
    found.sort(key=lambda file: (file.parts[0] != "train", file))
    sizes = [[file.as_posix(), (root / file).stat().st_size] for file in found]
    task = re.sub(r"[^a-z]+", "-", data.task).strip("-")
    return f"{task}-{data.representation}-{files.digest([data.science(), sizes])[:12]}"


def training_digest(root: Path, data: config.Data) -> str:
    """12 hexadecimal digits that tell apart what training uses: as `dataset_name` does, without the songs held out.

    Raises:
        ValueError: no song; see `songs.list_songs`.
    """
    of = layouts.list_songs(root, data.split_by_title)
    found = sorted(file.relative_to(root) for song in of if song.split == "train" for file in song.files())
    sizes = [[file.as_posix(), (root / file).stat().st_size] for file in found]
    return files.digest([data.science(), holds_some_back(of), sizes])[:12]


def holds_some_back(of: list[layouts.Source]) -> bool:
    """Whether some of train/ are for validation, which they are where there is no valid/."""
    titles = [song.name for song in of if song.split == "train"]
    return not any(song.split == "valid" for song in of) and bool(layouts.validation_by_hash(titles))
