"""Name a dataset by its songs and settings, without decoding a song, because a login node has no decoder.

The name depends on the content of the songs, not on their folder or file times. So a folder of that name does not change once
its manifest is written. Version 0.1 compared songs by path and size alone; its runs use the names that they recorded.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from p2p_dist.audio import held_out_titles, layouts
from p2p_dist.audio.stamps import stamps
from p2p_dist.common import files, records, schemas
from p2p_dist.data import manifest, unchanged
from p2p_dist.run.rundir import RunDir, find_steps
from p2p_dist.settings import config, science


def dataset_name(root: Path, data: config.Data, of: list[layouts.Source] | None = None) -> str:
    """Return the name of the folder of shards for these songs and settings, such as `drums-default-1f3c9a52e07b`.

    Args:
        of: all songs; None: they are listed.

    Raises:
        ValueError: there is no song; see `layouts.list_songs`.
    """
    found = _files(root, layouts.list_songs(root, data.split_by_title) if of is None else of)
    return f"{_name(data)}-{files.digest([2, science.changed(data), _content(root, found)])[:12]}"


def finished(shelf: Path, root: Path, data: config.Data) -> Path | None:
    """Return the finished dataset of these songs and settings among those of a folder, if all is unchanged since it was noted.

    It is found without reading a song, but not always; see data/unchanged.py.
    """
    songs = unchanged.look(root, data.split_by_title)
    found = sorted(shelf.glob(f"{_name(data)}-*")) if songs is not None else ()
    return next((out for out in found if songs and unchanged.is_done(out, data, songs, named=True)), None)


def name_of_version_0_1(root: Path, data: config.Data, of: list[layouts.Source]) -> str:
    """Return the name that version 0.1 gave to the folder of shards of these songs."""
    found = _files(root, of)
    found.sort(key=lambda file: (file.relative_to(root).parts[0] != "train", file))
    return f"{_name(data)}-{files.digest([science.recorded(data), _sizes(root, found)])[:12]}"


def name_of_address(run: RunDir, address: str) -> str:
    """Return the name of the shards of a run that come from an address.

    A run that has trained keeps the recorded name, even if the dataset has moved to another address since. A new run gets the
    name of the dataset that was fetched last from there.
    """
    if run.dataset.is_file() and (find_steps(run.checkpoints) or run.read_dataset().startswith(_of_address(address))):
        return run.read_dataset()
    return newest_of_address(run.path.parent.parent / "shards", address)


def newest_of_address(shelf: Path, address: str) -> str:
    """Return the name of the dataset that was fetched last from an address. shelf: the folder of all shards."""
    note = _newest(shelf, address)
    return str(records.read(note, schemas.NEWEST)["name"]) if note.is_file() else _of_address(address)


def name_of_fetched(shelf: Path, address: str, identity: str) -> str:
    """Return the name of a dataset from an address; identity: see `manifest.identity`."""
    first = _of_address(address)  # version 0.2.0 named what it fetched by the address alone
    with contextlib.suppress(FileNotFoundError, ValueError):
        if manifest.identity(manifest.read(shelf / first)) == identity:
            return first
    return f"{first}-{identity[:12]}"


def note_newest(folder: Path, address: str) -> None:
    """Note that a folder has what was fetched last from an address."""
    if newest_of_address(folder.parent, address) != folder.name:
        records.write(_newest(folder.parent, address), schemas.NEWEST, {"name": folder.name})


def _newest(shelf: Path, address: str) -> Path:
    return shelf / f"{_of_address(address)}.json"


def _of_address(address: str) -> str:
    return f"from-{files.digest(address)[:12]}"


def name_for(run: RunDir, root: Path, data: config.Data) -> str:
    """Return the name of a run's shards: the recorded name if the songs are unchanged, else that of the songs as they are."""
    noted = run.dataset_record() if run.dataset.is_file() else {"name": None, "trained_on": None}
    known = (noted["name"], noted["trained_on"])
    return next((name for name in known if name and is_named_after(name, root, data)), None) or dataset_name(root, data)


def is_named_after(name: str, root: Path, data: config.Data) -> bool:
    """Whether `name` is the name of these songs and settings, by today's rule or that of version 0.1.

    Raises:
        ValueError: there is no song; see `layouts.list_songs`.
    """
    if not is_content_name(name):
        return False
    of = layouts.list_songs(root, data.split_by_title)
    return name in (name_of_version_0_1(root, data, of), dataset_name(root, data, of))


def is_content_name(name: str) -> bool:
    """Whether a name ends with a digest of content, as those of `dataset_name` do."""
    return re.search("-[0-9a-f]{12}$", name) is not None


def training_digest(root: Path, data: config.Data, schema: int = 1) -> str:
    """Return a digest (12 hexadecimal digits) of the training songs and settings, without held-out songs.

    Args:
        schema: schema of the dataset.json that contains the digest.

    Raises:
        ValueError: there is no song; see `layouts.list_songs`.
    """
    of = layouts.list_songs(root, data.split_by_title)
    found = _files(root, [song for song in of if song.split == "train"])
    if schema == 0:
        return files.digest([science.recorded(data), holds_some_back(of), _sizes(root, found)])[:12]
    return files.digest([science.changed(data), holds_some_back(of), _content(root, found)])[:12]


def _name(data: config.Data) -> str:
    """Return how the names of all datasets of a task and representation begin."""
    task = re.sub(r"[^a-z]+", "-", data.task).strip("-")
    return f"{task}-{data.representation}"


def _files(root: Path, of: list[layouts.Source]) -> list[Path]:
    return sorted(file for song in of for file in song.files())


def _content(root: Path, found: list[Path]) -> list[list[str]]:
    return [[file.relative_to(root).as_posix(), stamp] for file, stamp in zip(found, stamps(found), strict=True)]


def _sizes(root: Path, found: list[Path]) -> list[list[str | int]]:
    return [[file.relative_to(root).as_posix(), file.stat().st_size] for file in found]


def holds_some_back(of: list[layouts.Source]) -> bool:
    """Whether validation songs are taken from train/, because there is no valid/."""
    titles = [song.name for song in of if song.split == "train"]
    return not any(song.split == "valid" for song in of) and bool(held_out_titles.validation_by_hash(titles))
