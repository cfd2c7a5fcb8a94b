"""Handle requests to stop: USR2, USR1, TERM, the first Ctrl-C and the time limit set a flag that is read between steps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from p2p_dist.common import console

SIGNALS = (signal.SIGUSR2, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

MARGIN = 60.0
"""Seconds that must be left before the end of the job after the last save."""


class RequestError(Exception):
    """A request to stop, where it ends the work at once: see `StopFlag.at_once`."""


class StopFlag:
    """A flag that signals set in the process that created it. A forked child that inherits the handler is ended by the signal.

    Repeated signals count as one request, because schedulers and container runtimes may send a signal twice. A second Ctrl-C
    ends the process at once with exit code 130. Signals that arrive while they are blocked (`hold_back`) are not lost.

    The flag is also set shortly before the job's time limit, in case no signal arrives: see SLURM_JOB_END_TIME.
    `lead`: how many seconds before the end of the job. `allow` raises it if saves take long.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.requested_by: str | None = None
        self.raises = False
        self.lead = MARGIN
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        # Read the wall clock once: later changes of the clock have no effect.
        left = int(end) - time.time() if end.isdigit() else float("inf")
        self.deadline = time.monotonic() + left
        # Otherwise a job shorter than the margin would stop before its first step.
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
        first, self.requested_by = self.requested_by is None, signal.Signals(number).name
        if self.raises and first:
            raise RequestError

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a request end what runs inside, such as a download, instead of waiting for its end.

        Raises:
            RequestError: there is or was a request.
        """
        self.raises = True
        try:
            if self.requested_by is not None:
                raise RequestError
            yield
        finally:
            self.raises = False

    def allow(self, seconds: float) -> None:
        """Stop early enough before the end of the job for two saves of `seconds` each, and the margin."""
        self.lead = max(self.lead, MARGIN + 2 * seconds)

    def __bool__(self) -> bool:
        return self.requested_by is not None or self.deadline - time.monotonic() < min(self.lead, self.most)


def hold_back() -> None:
    """Block the signals of `StopFlag` until one exists, in this process and those that it forks."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
