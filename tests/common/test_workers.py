"""Worker processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from p2p_dist.common import workers
from p2p_dist.common.workers import each

REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def nothing() -> None:
    pass


def mark() -> None:
    os.environ["P2P_BEGUN"] = "yes"


def blocked(number: int) -> tuple[int, set[int]]:
    return number, {int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])}


def is_marked(number: int) -> tuple[int, bool]:
    return number, "P2P_BEGUN" in os.environ


def end(number: int) -> None:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_requests_to_stop_do_not_reach_workers() -> None:
    """Slurm sends them to every process: a worker that dies of one looks like a worker that ran out of memory."""
    done: list[int] = []
    jobs = [(number,) for number in range(3)]
    found = each(blocked, jobs, 2, lambda n, result: done.append(result[0]), requests=REQUESTS, begin=nothing)
    assert [number for number, _ in found] == [0, 1, 2] and sorted(done) == [0, 1, 2]
    assert all(signals >= set(REQUESTS) for _, signals in found)
    assert not blocked(0)[1] & {signal.SIGINT, signal.SIGTERM}


def test_workers_that_cannot_start_leave_no_signal_blocked() -> None:
    """Else the stage could not be stopped while it ends."""
    before = blocked(0)[1]
    with pytest.raises(TypeError):
        each(blocked, [(0,), None], 2, lambda n, result: None, requests=REQUESTS, begin=nothing)  # type: ignore[list-item]
    assert blocked(0)[1] == before


def test_each_worker_begins_and_this_process_does_not() -> None:
    for count, marked in ((2, True), (1, False)):
        found = each(is_marked, [(1,), (2,)], count, lambda n, result: None, requests=(), begin=mark)
        assert found == [(1, marked), (2, marked)]


def test_a_worker_that_is_killed_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(OSError, match=r"a worker was killed, .* with fewer --workers"):
        each(end, [(0,), (1,), (2,)], 2, lambda n, result: None, requests=(), begin=nothing)


def broken(folder: Path, number: int) -> None:
    if number == 0:
        raise KeyError("broken")
    time.sleep(0.3)
    (folder / str(number)).touch()


def late(number: int) -> int:
    time.sleep(2.0 * (number == 0))
    return number


def test_after_an_error_the_jobs_that_wait_are_given_up(tmp_path: Path) -> None:
    jobs = [(tmp_path, number) for number in range(30)]
    with pytest.raises(KeyError):
        each(broken, jobs, 2, lambda n, result: None, requests=(), begin=nothing)
    assert len(list(tmp_path.iterdir())) < 15


def test_a_job_is_told_as_soon_as_it_is_done() -> None:
    told: list[int] = []
    assert each(late, [(0,), (1,)], 2, lambda n, result: told.append(n), requests=(), begin=nothing) == [0, 1]
    assert told == [1, 0]


def test_a_request_that_reached_a_worker_first_is_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm sends TERM to all processes: the one for this process may come a moment later."""

    def arrives(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers.time, "sleep", arrives)
    with pytest.raises(KeyboardInterrupt):
        each(end, [(0,), (1,), (2,)], 2, lambda n, result: None, requests=(), begin=nothing)
