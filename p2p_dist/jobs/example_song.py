"""The example song, in the layout of MUSDB18, for users without songs; and the name of a run's dataset."""

from __future__ import annotations

from pathlib import Path

from p2p_dist.audio import musdb18
from p2p_dist.common import files
from p2p_dist.data import dataset as datasets
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Data


def example_folder() -> Path:
    """Return the folder of the example song, in the layout of MUSDB18, beside the runs."""
    return rundir.runs_root().parent / "songs" / "falcon69"


def known_dataset(run: RunDir, data: Data) -> str | None:
    """Return the name of the shards of a run; None for the example song if it is not copied yet."""
    if data.shards is not None:
        return datasets.name_of_address(run, data.shards)
    assert data.root is not None
    root = Path(data.root)
    return None if root == example_folder() and not root.is_dir() else datasets.name_for(run, root, data)


def lay_out(run: RunDir, data: Data) -> str:
    """Return the name of the shards of a run. Copy the example song first if it is used."""
    if data.shards is not None:
        return datasets.name_of_address(run, data.shards)
    assert data.root is not None
    root = Path(data.root)
    if root == example_folder():
        lay_out_example(root)
    return datasets.name_for(run, root, data)


def lay_out_example(folder: Path) -> None:
    """Copy the example song into train/ and test/ of `folder`: the same audio for both.

    Raises:
        ValueError: stempeg, which ships it, is not installed.
    """
    song = musdb18.excerpt_file()
    for split in ("train", "test"):
        target = folder / split / song.name
        if not target.is_file() or target.stat().st_size != song.stat().st_size:
            files.write_bytes(target, song.read_bytes())
