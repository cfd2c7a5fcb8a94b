"""The drill on this machine: stop a small training in every way and compare it with one that was not stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p2p_dist.checks.drill import outcome
from p2p_dist.common import console, files, linux
from p2p_dist.data import dataset as datasets
from p2p_dist.jobs import begin_run, child
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config


@dataclass(frozen=True)
class Way:
    """A way to stop a training. do: stops its processes, given the parent first. in_a_save: during a save."""

    name: str
    do: Callable[[list[int]], None]
    in_a_save: bool = False


def drill_here(settings: config.Config, songs: Path) -> int:
    """Train once undisturbed and once for each way, on this machine; print a table.

    Returns:
        exit code: 0 all came back exactly, 1 some did not.
    """
    root = rundir.runs_root() / "drill"
    dataset = datasets.dataset_name(songs, settings.data)

    def begin(name: str) -> RunDir:
        run = RunDir(root / "runs" / name)
        begin_run.begin(run, settings, dataset)
        return run

    undisturbed = begin("undisturbed")
    for stage in ("preprocess", "train"):
        if _start(stage, undisturbed).wait() != console.DONE:
            raise OSError(f"{stage} failed in the reference run, which was not interrupted: see {_log(undisturbed)}")
    console.say(f"undisturbed: {settings.train.steps} steps, {settings.resources.nodes} processes\n")
    rows = [("stopped by", "exit code", "resumed from", "result")]
    for number, way in enumerate(WAYS):
        rows.append(_disturb(way, begin(f"stopped-{number}"), undisturbed))
        console.say(f"{number + 1} of {len(WAYS)}: {way.name}: {rows[-1][-1]}")
    outcome.show(rows)
    console.say(f"\nlogs: {root}")
    return console.DONE if all(row[-1] == "exactly" for row in rows[1:]) else console.FAILED


def _disturb(way: Way, run: RunDir, undisturbed: RunDir) -> tuple[str, str, str, str]:
    """Train, stop halfway, resume to the end; return the row of the table."""
    process = _start("train", run)
    while process.poll() is None and not _is_time(way, run):
        time.sleep(0.002)
    way.do([process.pid, *_children(process.pid)])
    code = process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    before = outcome.saved(run)
    ended = _start("train", run).wait()
    if code == console.DONE:
        answer = "it ended before it could be stopped"
    elif ended != console.DONE:
        answer = f"not at all: exit code {ended}, see {_log(run)}"
    else:
        answer = outcome.difference(run, undisturbed) or "exactly"
    return way.name, str(code), f"step {before}", answer


def _is_time(way: Way, run: RunDir) -> bool:
    steps = rundir.read_settings(run).train.steps
    assert steps is not None
    if outcome.saved(run) < steps // 3:
        return False
    return not way.in_a_save or any(run.checkpoints.glob(f"{files.TEMPORARY}*"))


def _log(run: RunDir) -> Path:
    return run.logs / "drill.log"


def _start(stage: str, run: RunDir) -> subprocess.Popen[bytes]:
    """Start a stage as the launcher does, in a session of its own."""
    return child.start(stage, run, f"drill.{os.getpid()}.{time.monotonic_ns()}", _log(run))


def _children(process: int) -> list[int]:
    if not linux.PROC.exists():
        shown = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
        return [int(number) for number in shown.stdout.split()]
    try:
        return [int(number) for number in (linux.PROC / f"{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _send(number: int, *places: int, times: int = 1) -> Callable[[list[int]], None]:
    """Send a signal to some processes: 0 is the parent, -1 the last rank; none: all."""

    def do(processes: list[int]) -> None:
        for _ in range(times):
            for process in [processes[place] for place in places] or processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)

    return do


WAYS = (
    Way("a request to stop (TERM), twice", _send(signal.SIGTERM, 0, times=2)),
    Way("a preemption (USR2) that one process hears", _send(signal.SIGUSR2, -1)),
    Way(
        "TERM and USR2 to everything", lambda processes: (_send(signal.SIGTERM)(processes), _send(signal.SIGUSR2)(processes))[0]
    ),
    Way("one process killed", _send(signal.SIGKILL, -1)),
    Way("one process dies of a segmentation fault", _send(signal.SIGSEGV, -1)),
    Way("everything killed", _send(signal.SIGKILL)),
    Way("everything killed in the middle of a save", _send(signal.SIGKILL), in_a_save=True),
)
"""Everything that a scheduler, a user or a broken node does to a training, as far as one machine can imitate it."""
