"""Threads of which one does the work, while it is quick, and the others lend a hand when it is not.

Python runs one thread at a time. Threads that could all go on take the interpreter from each other
at every system call, and a short request then costs more than when one thread answers it and the
next. But a large request must not hold up the short ones behind it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any

PATIENCE = 0.002
"""Seconds that the first thread may take for one call before another takes the next."""


class Crew:
    """An executor: `submit` and `shutdown` are those of `concurrent.futures`.

    Whoever submits also calls `look_after`, every `PATIENCE` while anything waits.
    """

    def __init__(self, threads: int) -> None:
        """Begin with no thread; there will be so many."""
        self._first = ThreadPoolExecutor(1)
        self._others = ThreadPoolExecutor(max(1, threads - 1))
        self._free = threading.Semaphore(threads - 1)
        self._waiting: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._began = 0.0

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a call made as soon as a thread can; return what will tell of its end."""
        future: Future[Any] = Future()
        self._waiting.append((future, call, arguments))
        self._first.submit(self._lead)
        return future

    @property
    def is_behind(self) -> bool:
        """Whether a call waits for a thread."""
        return bool(self._waiting)

    def look_after(self) -> None:
        """Let another thread make the next call, if the first one is held up."""
        held_up = self._waiting and monotonic() - self._began > PATIENCE
        if held_up and self._free.acquire(blocking=False):
            self._others.submit(self._lend_a_hand)

    def shutdown(self, wait: bool = True) -> None:
        """Take no more calls."""
        self._first.shutdown(wait)
        self._others.shutdown(wait)

    def _lead(self) -> None:
        self._began = monotonic()
        self._make_next()

    def _lend_a_hand(self) -> None:
        try:
            self._make_next()
        finally:
            self._free.release()

    def _make_next(self) -> None:
        try:
            future, call, arguments = self._waiting.popleft()
        except IndexError:  # another thread makes that call
            return
        try:
            future.set_result(call(*arguments))
        except BaseException as error:
            future.set_exception(error)
