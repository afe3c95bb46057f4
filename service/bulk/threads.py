"""Score batches on the threads of this process, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from ..errors import BadInput
from .layout import Layout
from .scorer import BatchScorer, Part

AHEAD = 3
"""Batches per thread that are read before the first of them is written."""

Batch = tuple[pa.RecordBatch, int, Layout]
"""A batch, the index of its first row in its table, and the columns of the table."""


class Threads:
    """Threads that score; the one that calls reads and writes in the meantime."""

    def __init__(self, scorer: BatchScorer, threads: int) -> None:
        self._scorer, self.threads = scorer, threads

    def map(self, batches: Iterable[Batch]) -> Iterator[Part]:
        """Yield the scored batches in their order; an error of one raises when its turn comes."""
        if self.threads == 1:
            yield from (self._scorer.score(*batch) for batch in batches)
            return
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="bulk")
        try:
            yield from map_ahead(
                batches, lambda batch: pool.submit(self._scorer.score, *batch), AHEAD * self.threads
            )
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def map_ahead(items: Iterable[Any], submit: Callable[[Any], Any], most: int) -> Iterator[Any]:
    """Yield the results of futures in the order of the items, at most `most` of which are taken.

    An error in reading an item raises after the results of the items before it.
    """
    waiting = iter(items)
    window: deque[Any] = deque()

    def take() -> None:
        try:
            window.append(submit(next(waiting)))
        except StopIteration:
            pass
        except BadInput as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            window.append(failed)

    for _ in range(most):
        take()
    while window:
        result = window.popleft().result()
        take()
        yield result
