"""Handle requests to stop: USR2, USR1, TERM, the first Ctrl-C and the time limit set a flag that is read between steps."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

from p2p_dist.common import console

SIGNALS = (signal.SIGUSR2, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

MARGIN = 60.0
"""Seconds that must be left before the end of the job after the last save."""


class StopFlag:
    """A flag that signals set in the process that created it. A forked child that inherits the handler dies of the signal.

    Any number of the same signal is one request: schedulers and container runtimes send each twice. A second Ctrl-C ends
    the process at once with exit code 130. Signals that arrived while they were blocked (`hold_back`) count.

    It is also set when the job's time runs out, in case no signal comes: Slurm names the end in SLURM_JOB_END_TIME.
    `lead`: seconds before that end; it is raised to the time that a save takes (`allow`).
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.requested_by: str | None = None
        self.lead = MARGIN
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        # Read once: from here on a clock that jumps moves nothing.
        left = int(end) - time.time() if end.isdigit() else float("inf")
        self.deadline = time.monotonic() + left
        # A job too short for the margin would stop before its first step.
        self.most = left / 4
        for number in SIGNALS:
            signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self.owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGINT and self.requested_by == "SIGINT":
            os._exit(console.INTERRUPTED)
        self.requested_by = signal.Signals(number).name

    def allow(self, seconds: float) -> None:
        """Stop early enough before the job's end for two saves of `seconds`, and the margin."""
        self.lead = max(self.lead, MARGIN + 2 * seconds)

    def __bool__(self) -> bool:
        return self.requested_by is not None or self.deadline - time.monotonic() < min(self.lead, self.most)


def hold_back() -> None:
    """Block stop requests until a StopFlag exists, in this process and those that it forks."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
