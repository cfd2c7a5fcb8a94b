"""A training as the launcher starts it on one machine, to be disturbed: a parent that forks one process a rank.

The parent is forked from a process that has imported torch, so a training of the preset tiny is up in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_dist.common import linux
from p2p_dist.jobs import forked_ranks
from p2p_dist.run import metrics_file, rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.train import checkpoint
from tests.rank_processes import PRELOADED

GRACE = 4.0
"""What forked_ranks._GRACE is here: seconds until a parent kills the ranks that one has left behind."""


@dataclass(frozen=True)
class At:
    """Do something on some ranks right before update `step` + 1 (before the first: 0). do: at the top of a module."""

    step: int
    do: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    ranks: tuple[int, ...] = (0, 1, 2, 3)


class Job:
    """One attempt at training `run`."""

    def __init__(
        self, run: RunDir, *faults: At, sabotage: Callable[[], None] | None = None, attempt: str = "", grace: float = GRACE
    ) -> None:
        self.run = run
        run.logs.mkdir(parents=True, exist_ok=True)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        attempt = attempt or f"test.{time.monotonic_ns()}"
        self.parent = context.Process(target=_parent, args=(run.path, faults, sabotage, attempt, grace))
        self.begun = time.monotonic()
        self.parent.start()
        self.world_size = _world_size(run)

    def ranks(self, seconds: float = 60) -> list[int]:
        """The process ids of the ranks, once all are forked."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = children(self.parent.pid)
            if len(found) == self.world_size or not self.parent.is_alive():
                return found
            time.sleep(0.005)
        raise AssertionError("the ranks were not forked")

    def signal(self, number: int, ranks: Sequence[int] | None = None) -> None:
        """Send a signal to some ranks, or all."""
        for rank, process in enumerate(self.ranks()):
            if ranks is None or rank in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)

    def until(self, step: int, seconds: float = 90) -> Job:
        """Wait until the line of a step is written."""
        end = time.monotonic() + seconds
        while self.step() < step:
            assert self.parent.is_alive(), f"ended before step {step}:\n{self.log()}"
            assert time.monotonic() < end, f"not at step {step} in {seconds} s:\n{self.log()}"
            time.sleep(0.01)
        return self

    def step(self) -> int:
        """The last step with a line of numbers."""
        return max((row["step"] for row in metrics_file.read(self.run)), default=0)

    def end(self, seconds: float = 120) -> int:
        """Wait for the end; the exit code. No process is left."""
        self.parent.join(seconds)
        ended = not self.parent.is_alive()
        left = [] if ended else [self.parent.pid, *children(self.parent.pid)]
        for process in left:
            os.kill(process, signal.SIGKILL)
        self.parent.join()
        assert ended, f"not ended in {seconds} s:\n{self.log()}"
        return self.parent.exitcode

    def log(self, rank: int = 0) -> str:
        """What a rank has said, in all attempts; rank 0's log is the parent's too."""
        path = self.run.logs / ("train.log" if rank == 0 else f"train-rank{rank}.log")
        return path.read_text(errors="replace") if path.is_file() else ""


def children(process: int | None) -> list[int]:
    """Process ids of the living children of a process, the oldest first."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(number) for number in text.split() if _state(number) not in "ZX"]


def _state(number: str) -> str:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _world_size(run: RunDir) -> int:
    resources = rundir.read_settings(run).resources
    return resources.nodes * (resources.processes_per_node or 1)


def _parent(folder: Path, faults: tuple[At, ...], sabotage: Callable[[], None] | None, attempt: str, grace: float) -> None:
    linux.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (RunDir(folder).logs / "train.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.environ |= {"P2P_ATTEMPT": attempt, "OMP_NUM_THREADS": "1"}
    forked_ranks._GRACE = grace
    _inject(RunDir(folder), faults)
    if sabotage is not None:
        sabotage()
    forked_ranks.fork_ranks("train", folder)


def _inject(run: RunDir, faults: tuple[At, ...]) -> None:
    from p2p_dist.train import capture, speed

    speed.flops_per_image = lambda config: 10**9  # counting takes as long as twenty steps of these small networks
    honest, at = capture.train_step, [checkpoint.newest_step(run.checkpoints)]

    def train_step(*arguments: Any, **named: Any) -> Any:
        for fault in faults:
            if fault.step == at[0] and int(os.environ["RANK"]) in fault.ranks:
                fault.do(*fault.arguments)
        at[0] += 1
        return honest(*arguments, **named)

    capture.train_step = train_step


def trained(new_run: Any, name: str, **changed: Any) -> RunDir:
    """A run that is trained to its end."""
    run: RunDir
    run, _ = new_run(name, train=changed)
    assert Job(run).end() == 0
    return run
