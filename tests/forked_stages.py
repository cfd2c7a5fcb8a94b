"""Start stages as jobs/child.py does, but forked from a process that has imported torch, which takes seconds.

For tests that are about what stages do one after the other. How their processes start, are stopped and end with their launcher
is tested with real ones (tests/jobs/test_local.py, tests/faults).
"""

from __future__ import annotations

import os
from multiprocessing.process import BaseProcess
from pathlib import Path

from p2p_dist.common import files
from p2p_dist.jobs.stages import CHECKS
from p2p_dist.run import snapshot
from p2p_dist.run.rundir import RunDir
from tests.rank_processes import fork_server


class Stage:
    """What the product asks of the `subprocess.Popen` of a stage."""

    def __init__(self, process: BaseProcess) -> None:
        self.process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        assert self.pid is not None
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode


def start(stage: str, run: RunDir, attempt: str, log: Path, keep_open: tuple[int, ...] = ()) -> Stage:
    """See `child.start`; the code that runs is that of this checkout."""
    environment = {**os.environ, **snapshot.environment(run.code), "P2P_ATTEMPT": attempt}
    log.parent.mkdir(parents=True, exist_ok=True)
    os.close(files.open_ours(log, os.O_WRONLY | os.O_APPEND))
    process = fork_server().Process(target=_stage, args=(stage, run.path, environment, log))
    process.start()
    return Stage(process)


def _stage(stage: str, folder: Path, environment: dict[str, str], log: Path) -> None:
    from p2p_dist.jobs import forked_ranks, stage_process

    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    with log.open("a") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    if stage in ("train", *CHECKS):
        forked_ranks.fork_ranks(stage, folder)
    stage_process.run_stage(stage, folder)
