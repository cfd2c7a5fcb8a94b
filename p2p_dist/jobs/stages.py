"""The stages of a run, and whether each is done, judged by its files only. Used on login nodes: no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_dist.common import records, schemas
from p2p_dist.data import manifest
from p2p_dist.run import checkpoints, rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Data

STAGES = ("preprocess", "pattern", "train", "evaluate", "page")
"""All that a run can have, in order; `of` omits those that it does not need."""

ONE_PROCESS = ("preprocess", "pattern", "page")
"""The stages that run as one process per job, on CPU nodes."""

GENERATE = "generate"
"""The only stage of a run that the generate command creates on a cluster."""

CHECKS = ("preflight", "scaling")
"""The jobs of launch/check.py, which are started like a training."""

SOUNDLESS = "left out: the songs are spectrograms (npz) without audio, so there is nothing to measure or to listen to"
"""Reason for no evaluation and page if the held-out songs are ready-made pairs."""


NOT_ASKED = "left out because of --evaluate never (--evaluate after makes it later)"
"""Reason for no evaluation and page if none is requested."""

NO_SKETCH = "left out, since the model has no sketch (model.sketch)"
"""Reason for no stage `pattern`."""

SHARDS_ONLY = "not requested: the preprocess command created this run"
"""Reason for no training in a run that only preprocesses."""

PREPROCESS_RUN = "preprocess-"
"""Prefix of the name of a run that the preprocess command creates; the name of its dataset follows."""


def of(run: RunDir) -> tuple[str, ...]:
    """The stages of a run."""
    if run.songs.is_file():
        return (GENERATE,)
    has_sketch = run.config.is_file() and rundir.read_settings(run).model.sketch
    return tuple(stage for stage in STAGES if stage != "pattern" or has_sketch)


def is_soundless(content: dict[str, Any]) -> bool:
    """Whether the held-out songs of a manifest are spectrograms without audio."""
    held_out = [part for split, part in content["splits"].items() if split != "train"]
    return bool(held_out) and not any(part["audio"] for part in held_out)


@dataclass(frozen=True)
class Shards:
    """A folder of shards: its manifest, and names of files in the manifest that are missing or have another size."""

    content: dict[str, Any]
    missing: frozenset[str]

    def windows(self) -> dict[str, int]:
        """Split -> windows."""
        return {split: manifest.windows(part) for split, part in self.content["splits"].items()}


def look(shards: Path) -> Shards | None:
    """Read the state of a folder of shards; None without a manifest.

    Raises:
        ValueError: the manifest is damaged or of another version.
    """
    try:
        content = manifest.read(shards)
        sizes = {**_sizes(shards), **_sizes(shards / manifest.AUDIO)}
    except FileNotFoundError:
        return None
    named = manifest.files_of(shards, content).items()
    return Shards(content, frozenset(entry["name"] for path, entry in named if sizes.get(path) != entry["bytes"]))


def _sizes(folder: Path) -> dict[Path, int]:
    """Path -> bytes of the files in a folder, asked for at once: there may be thousands."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {folder / entry.name: entry.stat().st_size for entry in entries if entry.is_file()}


def is_preprocessed(shards: Path | Shards, trained: bool, data: Data) -> str | None:
    """Describe a finished folder of shards; None if it is not finished.

    Args:
        trained: whether a training has used it. data: the settings of the run, which may have each node fetch the pairs to
            train on.
    """
    try:
        found = look(shards) if isinstance(shards, Path) else shards
    except ValueError:  # damaged, or of another version: it is rebuilt
        return None
    if found is None or not found.content["splits"]:
        return None
    elsewhere = [file["name"] for split in data.elsewhere for file in found.content["splits"].get(split, {}).get("shards", [])]
    if found.missing - set(elsewhere):
        return None
    if found.content["left_out"] and not trained and data.shards is None:
        return None  # try songs again that could not be read, unless a training has used the shards
    counts = [
        f"{len(part['songs'])} {split} songs in {manifest.windows(part)} windows"
        for split, part in found.content["splits"].items()
    ]
    return ", ".join(counts)


def asks_address(run: RunDir, data: Data) -> bool:
    """Whether a launch has the first stage ask the address of the dataset for changes: until the run has a checkpoint."""
    return data.shards is not None and not rundir.find_steps(run.checkpoints)


def windows(shards: Path) -> dict[str, int]:
    """Map split -> number of windows in a folder of shards; empty without a valid manifest."""
    try:
        found = look(shards)
    except ValueError:
        return {}
    return found.windows() if found else {}


def is_done(stage: str, run: RunDir, shards: Shards | None = None, *, content: bool = True) -> str | None:
    """Describe the result of a finished stage; None if it is not finished.

    Args:
        shards: the state of the run's shards, if known already. content: verify the content of the newest checkpoint, as a
            resumed training does; otherwise only names and sizes are checked.
    """
    if stage == GENERATE:
        asked = len(records.read(run.songs, schemas.SONGS)["songs"])
        return f"{asked} songs" if run.made.is_dir() and len(list(run.made.glob("[0-9]*"))) >= asked else None
    try:
        shards = look(run.shards) if shards is None else shards
    except ValueError:
        shards = None
    trained = checkpoints.find(run.checkpoints)
    if stage == "preprocess":
        return is_preprocessed(shards, bool(trained), rundir.read_settings(run).data) if shards is not None else None
    if stage == "pattern":
        if not rundir.read_settings(run).model.sketch:
            return NO_SKETCH
        return "training songs are sketched" if run.drummer.is_file() and _is_sketched(run, shards, bool(trained)) else None
    if stage == "train":
        # The earlier shards have the same training songs, and exist while the current ones are still being made.
        there = shards.windows() if shards is not None else {}
        before = run.shards_before
        count = there.get("train") or (windows(before).get("train") if before is not None else None)
        if not count:
            return None
        total = rundir.read_settings(run).train.total_steps(count)
        ended = any(one.step >= total and one.is_kept for one in trained)  # its training state was removed to save space
        return f"{total} steps" if ended or checkpoints.newest_step(run.checkpoints, content=content) >= total else None
    if rundir.read_settings(run).resources.evaluate == "never":
        return NOT_ASKED
    if shards is None:
        return None
    if is_soundless(shards.content):
        return SOUNDLESS
    evaluated = [step for step, path in rundir.find_steps(run.evaluations) if rundir.is_evaluation(path)]
    if stage == "evaluate":
        if is_done("train", run, shards, content=content) is None:
            return None  # more checkpoints will come
        missing = [one.step for one in trained if (one.path / checkpoints.GENERATOR).is_file() and one.step not in evaluated]
        return f"{len(evaluated)} checkpoints" if evaluated and not missing else None
    assert stage == "page"
    if not run.page.is_file() or not evaluated:
        return None
    newest = max((run.evaluations / rundir.step_name(step) / "metrics.json").stat().st_mtime for step in evaluated)
    return str(run.page) if run.page.stat().st_mtime >= newest else None


def _is_sketched(run: RunDir, shards: Shards | None, trained: bool) -> bool:
    """Whether there are sketches of the training songs as they are now. They may change until there is a checkpoint."""
    try:
        made = records.read(run.guides / "guides.json", schemas.GUIDES)
    except (FileNotFoundError, ValueError):  # damaged: they are made again
        return False
    if trained:
        return True
    if shards is None or is_preprocessed(shards, trained, rundir.read_settings(run).data) is None:
        return False  # it may yet find other songs
    songs = {song["key"] for song in shards.content["splits"].get("train", {}).get("songs", ())}
    return songs == made["songs"].keys() and made["training"] in (None, run.dataset_record()["training"])


def is_shards_only(run: RunDir) -> bool:
    """Whether the preprocess command created a run that was never launched for training."""
    try:
        dataset = run.read_dataset()
    except (FileNotFoundError, ValueError):
        return False
    by_launch = [run.checkpoints, *(run.slurm / stage for stage in STAGES[1:]), *map(run.attempts, STAGES)]
    return run.path.name == PREPROCESS_RUN + dataset and not any(path.exists() for path in by_launch)


def last_lines(run: RunDir) -> str:
    """Return the last lines of a finished launch: the best checkpoint, if any, and the page."""
    if not run.page.is_file():
        return f"page {NOT_ASKED if rundir.read_settings(run).resources.evaluate == 'never' else SOUNDLESS}"
    best = run.read_best()
    return (f"best checkpoint: {rundir.in_words(best)}\n" if best else "") + f"page: {run.page}"
