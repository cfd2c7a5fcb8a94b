"""Read ahead: what will be asked for next is made by a thread while the caller works."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Calls functions in a thread of its own, one after another; at most one result waits to be taken.

    An error is raised where the result is taken. The thread ends when this object is dropped, and the process may end while
    the thread works: nothing waits for it.
    """

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[], T] | None] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._step: int | None = None

    def begin(self, step: int, make: Callable[[], T]) -> None:
        """Begin to make the result of a step; the one before was taken."""
        assert self._step is None
        if self._thread is None:  # here and not before: it would not live on in a process that is forked later
            self._thread = threading.Thread(target=_work, args=(self._asked, self._made), name="read-ahead", daemon=True)
            self._thread.start()
            weakref.finalize(self, self._asked.put, None)
        self._step = step
        self._asked.put(make)

    def take(self, step: int, make: Callable[[], T]) -> T:
        """The result of a step, whether it was begun or not.

        Raises:
            What `make` raised.
        """
        if self._step not in (step, None):  # another one was begun: the order of the steps has changed
            self._made.get()
            self._step = None
        if self._step is None:
            self.begin(step, make)
        result, error = self._made.get()
        self._step = None
        if error is not None:
            raise error
        assert result is not None
        return result


def _work(
    asked: queue.SimpleQueue[Callable[[], T] | None], made: queue.SimpleQueue[tuple[T | None, BaseException | None]]
) -> None:
    """The thread. It holds nothing between two calls, so that what it is for can be dropped."""
    while (make := asked.get()) is not None:
        result, error = None, None
        try:
            result = make()
        except BaseException as caught:
            error = caught
        del make
        made.put((result, error))
        del result, error
