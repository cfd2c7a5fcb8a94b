"""Prefetch: a thread computes the next result while the caller works with the current one."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Calls functions one after another in a thread of its own. At most one result waits for the caller.

    `result` raises the error of the function. The thread ends when this object is deleted; the process may exit while the
    thread is busy.
    """

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[Callable[[], T] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._step: int | None = None

    def start(self, step: int, make: Callable[[], T]) -> None:
        """Start to compute the result of a step. The previous result must have been fetched."""
        assert self._step is None
        if self._thread is None:  # not in __init__: a thread does not survive a fork
            self._thread = threading.Thread(target=_work, args=(self._requests, self._results), name="prefetch", daemon=True)
            self._thread.start()
            weakref.finalize(self, self._requests.put, None)
        self._step = step
        self._requests.put(make)

    def result(self, step: int, make: Callable[[], T]) -> T:
        """Return the result of a step. If it was not started, compute it now.

        Raises:
            The error that `make` raised.
        """
        if self._step not in (step, None):  # another step was started, because the caller changed the order
            self._results.get()
            self._step = None
        if self._step is None:
            self.start(step, make)
        result, error = self._results.get()
        self._step = None
        if error is not None:
            raise error
        assert result is not None
        return result


def _work(
    requests: queue.SimpleQueue[Callable[[], T] | None], results: queue.SimpleQueue[tuple[T | None, BaseException | None]]
) -> None:
    """Run in the thread. Keeps no reference between two calls, so that the owner of the functions can be deleted."""
    while (make := requests.get()) is not None:
        result, error = None, None
        try:
            result = make()
        except BaseException as caught:
            error = caught
        del make
        results.put((result, error))
        del result, error
