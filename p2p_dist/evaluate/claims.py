"""Claim checkpoints for evaluation: processes and jobs share them, and each is evaluated by one."""

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
"""Seconds between two searches for a checkpoint, beside a training."""


def claim_checkpoints(
    run: RunDir, train: Train, only: Collection[int], out: Path
) -> Iterator[tuple[checkpoints.Checkpoint, int]]:
    """Checkpoints for this process to evaluate, oldest first, each with how many there are to evaluate just then.

    Beside a training ($P2P_EVALUATE is `during`) those that will stay are taken as they appear, until it has ended and all
    are taken; else those that are there.

    Args:
        only: steps of the checkpoints, instead of all. out: where the evaluations are written.

    Raises:
        ValueError: there is none, or not that one.
    """
    beside = os.environ.get("P2P_EVALUATE") == "during"
    part = manifest.read(run.shards)["splits"].get("train")
    windows = len(part["samples"]) if part else 1
    while True:
        over = not beside or run.has_trained()  # asked before looking: what the training left last is seen below
        found = find_checkpoints(run, only) if over else checkpoints.with_generator(run.checkpoints)
        todo = [c for c in found if over or train.is_kept(c.step, windows)]
        todo = [c for c in todo if (not only or c.step in only) and not is_evaluation(out / c.path.name)]
        for item in todo:
            # Asked once more: since the list was made another may have finished it, and its job's claims be free again.
            if claim(run, item.path.name) and not is_evaluation(out / item.path.name):
                yield item, len(todo)
        if over:
            return
        time.sleep(LOOK)


def find_checkpoints(run: RunDir, only: Collection[int]) -> list[checkpoints.Checkpoint]:
    """The checkpoints that can be evaluated, oldest first, among them those of the steps `only`.

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

    $P2P_CLAIMS names the jobs that share: those of one launch. What an attempt that ended has left half done is free again
    when its job begins anew (jobs/slurm/batch.py). A process that shares with nobody needs no claim.
    """
    if (shared := os.environ.get("P2P_CLAIMS")) is None:
        return True
    folder = run.evaluations / "claims" / shared
    folder.mkdir(parents=True, exist_ok=True)
    # A link, not an open file: a claim is never there without its owner's name.
    mine = files.temporary_beside(folder / name)
    files.append(mine, attempt() + "\n")
    try:
        with contextlib.suppress(FileExistsError):
            (folder / name).hardlink_to(mine)
            return True
        return False
    finally:
        mine.unlink()
