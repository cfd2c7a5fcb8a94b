"""Claim checkpoints for evaluation, so that of several processes or jobs only one evaluates each."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from p2p_dist.common import files
from p2p_dist.data import manifest
from p2p_dist.run import checkpoints
from p2p_dist.run.rundir import RunDir, attempt, is_evaluation
from p2p_dist.settings.config import Train

LOOK = 5.0
"""Seconds between two searches for a checkpoint while a training is running."""


def claim_checkpoints(
    run: RunDir, train: Train, only: Collection[int], out: Path
) -> Iterator[tuple[checkpoints.Checkpoint, int]]:
    """Yield checkpoints for this process to evaluate, oldest first, each with the number of those left to evaluate.

    During a training ($P2P_EVALUATE is `during`), checkpoints that will be kept are yielded as they appear, until the
    training has ended. Otherwise only existing checkpoints are yielded.

    Args:
        only: steps of the checkpoints; empty for all. out: the folder for the evaluations.

    Raises:
        ValueError: there is none, or not that one.
    """
    beside = os.environ.get("P2P_EVALUATE") == "during"
    part = manifest.read(run.shards)["splits"].get("train")
    windows = manifest.windows(part) if part else 1
    while True:
        over = not beside or run.has_trained()  # read before the search, so that the last checkpoint is not missed
        found = find_checkpoints(run, only) if over else checkpoints.with_generator(run.checkpoints)
        todo = [c for c in found if over or train.is_kept(c.step, windows)]
        todo = [c for c in todo if (not only or c.step in only) and not is_evaluation(out / c.path.name)]
        for item in todo:
            # Check again: another process may have evaluated it since, and its claim may have been freed.
            if claim(run, item.path.name) and not is_evaluation(out / item.path.name):
                yield item, len(todo)
        if over:
            return
        time.sleep(LOOK)


def find_checkpoints(run: RunDir, only: Collection[int]) -> list[checkpoints.Checkpoint]:
    """Return the checkpoints that can be evaluated, oldest first; with `only`, check that those steps are among them.

    Raises:
        ValueError: there is none, or not that one.
    """
    found = checkpoints.with_generator(run.checkpoints)
    if not found:
        raise ValueError(f"no checkpoint in {run.checkpoints}: train first")
    if missing := sorted(set(only) - {c.step for c in found}):
        there = ", ".join(str(c.step) for c in found)
        raise ValueError(f"no checkpoint of step {missing[0]} in {run.checkpoints}: there are {there}")
    return found


def claim(run: RunDir, name: str) -> bool:
    """Claim one checkpoint for this process with a file that names this attempt.

    $P2P_CLAIMS names the folder of claims, which the jobs of one launch share. Claims of an attempt that ended are freed
    when its job starts again (jobs/slurm/batch.py). A process that shares no work needs no claim.
    """
    if (shared := os.environ.get("P2P_CLAIMS")) is None:
        return True
    folder = run.evaluations / "claims" / shared
    folder.mkdir(parents=True, exist_ok=True)
    # A link instead of a file, so that a claim always has its owner's name.
    mine = files.temporary_beside(folder / name)
    files.append(mine, attempt() + "\n")
    try:
        with contextlib.suppress(FileExistsError):
            (folder / name).hardlink_to(mine)
            return True
        return False
    finally:
        mine.unlink()
