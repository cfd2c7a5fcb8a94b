"""Run the ranks of a training or of a check on this machine: one process each, forked from one that has imported torch.

python -m p2p_dist.jobs.forked_ranks train RUN_DIRECTORY
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from p2p_dist.common import console, files, linux
from p2p_dist.jobs import site, stage_process
from p2p_dist.jobs.child import tail
from p2p_dist.jobs.stages import CHECKS
from p2p_dist.run import metrics_file, rundir
from p2p_dist.run.rundir import RunDir

_GRACE = 30.0  # seconds for the other ranks to exit after one has failed


def _rank_log(run: RunDir, stage: str, rank: int) -> Path:
    return run.logs / f"{stage}-rank{rank}.log"


def fork_ranks(stage: str, folder: Path) -> NoReturn:
    """Start a training or a check on this machine: fork one process per rank, and wait for all.

    Importing torch takes seconds. Ranks that are forked from a process that has imported it, but has not used it, start
    in a fraction of a second.
    """
    from p2p_dist.train import stop

    stop.hold_back()  # signals that arrive while torch is imported are delivered to the ranks
    import torch
    import torch._dynamo  # DistributedDataParallel imports it

    assert torch.__version__
    run = RunDir(folder)
    resources = rundir.read_settings(run).resources
    per_node = site.load_site("local", resources.site).processes_per_node(resources)
    world_size = resources.nodes * per_node
    environment = {
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": world_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    os.environ.update({name: str(value) for name, value in environment.items()})
    if world_size == 1 and torch.backends.mps.is_available():  # what uses the GPU of a Mac can't be a forked process
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0"}
        stage_process.run_stage(stage, folder)
    ranks: dict[int, int] = {}
    parent = os.getpid()
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            linux.die_with_parent(parent=parent)
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            if rank:
                with os.fdopen(files.open_ours(_rank_log(run, stage, rank), os.O_WRONLY | os.O_APPEND), "a") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
            stage_process.run_stage(stage, folder)
        ranks[child] = rank

    def pass_on(number: int, _: FrameType | None) -> None:
        for child in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    for number in stage_process.ASKED:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stage_process.ASKED)
    codes: dict[int, int] = {}
    deadline = float("inf")
    while len(codes) < world_size:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            code = os.waitstatus_to_exitcode(status)
            codes[ranks.pop(child)] = code
            if code not in (console.DONE, console.STOPPED):
                deadline = min(deadline, time.monotonic() + _GRACE)
        elif time.monotonic() > deadline:
            for child in ranks:
                os.kill(child, signal.SIGKILL)
        else:
            time.sleep(0.05)
    bad = {rank: code for rank, code in codes.items() if code not in (console.DONE, console.STOPPED)}
    for rank, code in sorted(bad.items()):
        if code == codes[0] == console.FAILED:
            continue  # rank 0 has reported the error
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        where = f"rank {rank} of {world_size} on {socket.gethostname()}"
        console.complain(f"{where} ended with {ended}, after step {_last_step(run)}")
        if rank:
            console.complain(tail(_rank_log(run, stage, rank)))
    highest = max(abs(code) for code in codes.values()) if bad else max(codes.values())
    os._exit(console.CRASHED if any(code < 0 for code in bad.values()) else highest)


def _last_step(run: RunDir) -> int:
    """Return the last step in metrics.jsonl."""
    return int((metrics_file.last(run) or {"step": 0})["step"])


def free_port() -> int:
    """Return a port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    assert sys.argv[1] in ("train", *CHECKS)
    linux.die_with_parent(signal.SIGTERM)
    fork_ranks(sys.argv[1], Path(sys.argv[2]))
