"""What tests run on the ranks of a training; in a module of its own because ranks import it by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from p2p_dist import rundir
from p2p_dist.rundir import RunDir
from p2p_dist.train import checkpoint, loop


def train(folder: Path, die_after: int | None = None, sabotage: Callable[[], None] | None = None) -> int:
    """Train the run in `folder`; end like a kill right after update `die_after`.

    Args:
        sabotage: called first, to remove a line of the mechanism under test.
    """
    if sabotage is not None:
        sabotage()
    if die_after is not None:
        honest, done = loop.train_step, [checkpoint.newest_step(RunDir(folder).checkpoints)]

        def mortal(*arguments: Any, **named: Any) -> Any:
            if done[0] == die_after:
                os._exit(9)
            done[0] += 1
            return honest(*arguments, **named)

        loop.train_step = mortal
    run = RunDir(folder)
    return loop.train(run, rundir.resolve(run))


def state(folder: Path, step: int) -> list[torch.Tensor]:
    """Every tensor of the checkpoint at a step, in a fixed order."""
    path = RunDir(folder).checkpoints / rundir.step_name(step)
    return list(checkpoint.tensors(torch.load(path / checkpoint.STATE, weights_only=True)))


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    """Bit for bit."""
    return len(first) == len(second) > 0 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def digests(run: RunDir) -> list[str]:
    """The digest of each global batch of a run, in order."""
    return [digest for row in rundir.read_metrics(run) for digest in row["digests"].split()]
