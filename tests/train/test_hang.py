"""The watchdog of a training; that it ends one that hangs is tested in tests/faults."""

import faulthandler
import signal

import pytest

from p2p_dist.train import hang
from tests.train.on_ranks import CPU


def test_an_error_learns_who_and_where_it_was_and_no_alarm_is_left():
    with pytest.raises(ValueError) as raised, hang.Watchdog(CPU, 3, 60.0) as watchdog:
        assert watchdog.limit == hang.STARTUP, "the first step may take longer"
        assert 60 < signal.getitimer(signal.ITIMER_REAL)[0] <= hang.STARTUP + 10
        watchdog.after(4)
        assert signal.getitimer(signal.ITIMER_REAL)[0] <= 70
        raise ValueError("x")
    (note,) = raised.value.__notes__
    assert note.startswith("rank 0 of 1 on ") and note.endswith(", after step 4")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    faulthandler.cancel_dump_traceback_later()
