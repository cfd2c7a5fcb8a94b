"""End a training that hangs: write all stack traces to the log and exit with the code for a crash."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from types import TracebackType

from p2p_dist.common import console
from p2p_dist.train.distributed import Ranks

STARTUP = 1800.0
"""Seconds that the first step may take: it reads the first data and compiles kernels."""


class Watchdog:
    """Ends this process if no step finishes for `seconds`, with exit code 70 and without outcome.json.

    faulthandler writes the stack traces from a thread that needs no GIL. Another thread then prints rank and step, and ends
    the process. If a library holds the GIL, that thread can't run, and SIGALRM ends the process a little later.
    Every rank has a watchdog, so if one rank stops or is lost, the ranks that wait for it end too.
    """

    def __init__(self, ranks: Ranks, step: int, seconds: float) -> None:
        self.step, self.seconds = step, seconds
        self.name = f"rank {ranks.rank} of {ranks.world_size} on {socket.gethostname()}"
        self.limit = max(STARTUP, seconds)
        self.armed = time.monotonic()
        self.over = threading.Event()

    def __enter__(self) -> Watchdog:
        self._arm()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop the watchdog. Add rank and step to the error that ends the training, if any."""
        self.over.set()
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if error is not None:
            error.add_note(f"{self.name}, after step {self.step}")

    def after(self, step: int) -> None:
        """Report a finished step. It is cheap: the alarms are reset only a few times per `seconds`."""
        self.step = step
        if self.limit != self.seconds or time.monotonic() - self.armed > self.seconds / 20:
            self.limit = self.seconds
            self._arm()

    def _arm(self) -> None:
        faulthandler.dump_traceback_later(self.limit, file=sys.stderr)
        signal.setitimer(signal.ITIMER_REAL, self.limit + 10)
        self.armed = time.monotonic()

    def _watch(self) -> None:
        while not self.over.wait(self.seconds / 20):
            # A little later than faulthandler, which writes the stacks.
            if time.monotonic() - self.armed > self.limit + 1:
                console.complain(
                    f"{self.name}: no step finished for {self.limit:.0f} s after step {self.step}: training hangs; "
                    "stack traces are above; exit code 70"
                )
                os._exit(console.CRASHED)
