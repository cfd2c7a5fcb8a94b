"""When a training stops by itself; requests to stop, in every way that they are sent, are in tests/faults."""

import signal

from p2p_dist.train import stop


def test_the_end_of_the_job(monkeypatch):
    """Rows 11, 39: the time limit comes and no signal does; clocks jump; saves are slow.

    Seen: killed in the middle of a save.
    Now: the end is known from the start, on a clock that never jumps; two saves as slow as the slowest are left time for.
    """
    monotonic, wall = [1000.0], [5e9]
    monkeypatch.setattr(stop.time, "monotonic", lambda: monotonic[0])
    monkeypatch.setattr(stop.time, "time", lambda: wall[0])
    handlers = {number: signal.getsignal(number) for number in stop.SIGNALS}
    try:
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(5e9) + 3600))
        flag = stop.StopFlag()
        assert not flag
        wall[0] += 10_000
        assert not flag, "the wall clock has jumped, not the time"
        monotonic[0] += 3600 - stop.MARGIN - 1
        assert not flag
        flag.allow(30)
        assert flag and flag.lead == 120, "two saves of 30 s, and a minute"
        flag.allow(1)
        assert flag.lead == 120, "of the slowest save"
        monotonic[0] -= 60
        assert not flag
        monotonic[0] += 2
        assert flag
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(wall[0]) + 40))
        short = stop.StopFlag()
        monotonic[0] += 29
        assert not short, "a job shorter than the margin trains for three quarters of its time"
        monotonic[0] += 2
        assert short
        monkeypatch.delenv("SLURM_JOB_END_TIME")
        never = stop.StopFlag()
        monotonic[0] += 1e9
        assert not never
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
