"""Start a stage of a run, or a check, as a child process on this machine, with the run's own copy of the code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from p2p_dist.common import files
from p2p_dist.jobs.stages import CHECKS
from p2p_dist.run import snapshot
from p2p_dist.run.rundir import RunDir

_ONE_PROCESS = ("stage_process", "stages")
_FORKS_RANKS = ("forked_ranks", "local")
"""Modules of p2p_dist.jobs that run a stage: current name -> name in copies of the code made by version 0.1."""

_TAIL = 1 << 16  # bytes


def start(stage: str, run: RunDir, attempt: str, log: Path, keep_open: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Start `stage` in its own session, so that Ctrl-C reaches only the caller. A training forks one process per rank.

    Args:
        attempt: name of this start, set as P2P_ATTEMPT. log: file to which its output is appended. keep_open: file
            descriptors of the caller that the child inherits, such as that of a lock.

    Raises:
        ValueError: the copy of the code is not the one that was taken; see `snapshot.environment`.
    """
    names = _FORKS_RANKS if stage in ("train", *CHECKS) else _ONE_PROCESS
    environment = {**os.environ, **snapshot.environment(run.code), "P2P_ATTEMPT": attempt}
    # Otherwise idle OpenMP threads spin, and take CPU time from the other ranks and from other programs.
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    jobs = run.code / "p2p_dist" / "jobs"
    module = next(name for name in names if (jobs / f"{name}.py").is_file())
    log.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(files.open_ours(log, os.O_WRONLY | os.O_APPEND), "a") as output:
        return subprocess.Popen(
            # -P: import the run's copy of the code, not modules in the current folder.
            [sys.executable, "-P", "-m", f"p2p_dist.jobs.{module}", stage, str(run.path)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            pass_fds=keep_open,
        )


def tail(log: Path) -> str:
    """Return the last lines of a log. It may be long, and is read again and again while a user watches."""
    with log.open("rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - _TAIL, 0))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-12:])
