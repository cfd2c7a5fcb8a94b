"""Being asked to stop: USR2, TERM or the first Ctrl-C only set a flag; the loop reads it between two steps."""

from __future__ import annotations

import os
import signal
from types import FrameType

from p2p_dist import console

SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """Set by a signal to the process that installed it; a forked child that inherits the handler only dies of it.

    Any number of the same signal is one request: schedulers and container runtimes send each twice. A second Ctrl-C ends
    the process at once with exit code 130.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.requested_by: str | None = None
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self.owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGINT and self.requested_by == "SIGINT":
            os._exit(console.INTERRUPTED)
        self.requested_by = signal.Signals(number).name

    def __bool__(self) -> bool:
        return self.requested_by is not None
