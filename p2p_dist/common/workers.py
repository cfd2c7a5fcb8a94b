"""Call a function for many jobs in worker processes, which end with this process."""

from __future__ import annotations

import concurrent.futures
import errno
import multiprocessing
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from p2p_dist.common import linux

R = TypeVar("R")


def each(
    function: Callable[..., R],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    on_done: Callable[[int, R], None],
    *,
    requests: Collection[int],
    begin: Callable[[], None],
) -> list[R]:
    """Call a function for each job, in worker processes if there are several; results in the order of the jobs.

    Args:
        jobs: the arguments of each call; they are started in this order.
        on_done: called with the number of a job and its result, as soon as it is done.
        requests: signals that are for this process alone: workers ignore them.
        begin: called in each worker process as it starts.

    Raises:
        OSError: a worker was killed. Whatever `function` and `on_done` raise; the other jobs are then given up.
    """
    results: dict[int, R] = {}
    if min(workers, len(jobs)) <= 1:
        for number, job in enumerate(jobs):
            results[number] = function(*job)
            on_done(number, results[number])
        return [results[number] for number in range(len(jobs))]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, len(jobs)), context, initializer=_begin, initargs=(os.getpid(), begin)
    ) as pool:
        try:
            with linux.blocked(requests):  # workers start here and inherit it
                futures = {pool.submit(function, *job): number for number, job in enumerate(jobs)}
            for future in concurrent.futures.as_completed(futures):
                number = futures[future]
                results[number] = future.result()
                on_done(number, results[number])
        except BrokenProcessPool as error:
            time.sleep(1)  # Slurm sends TERM to all processes; it may have reached a worker first
            cure = "a worker was killed, probably because memory ran out: run the same command again with fewer --workers"
            raise OSError(errno.ECHILD, cure) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [results[number] for number in range(len(jobs))]


def _begin(parent: int, begin: Callable[[], None]) -> None:
    linux.die_with_parent(parent=parent)  # also if it was killed while this process started
    begin()
