"""The last 15 minutes of traffic, in sums of 5 seconds.

One worker reads the exact counts every 5 seconds and writes them into a small ring in shared
memory. The difference of two neighbours is the exact sum of what came between them. Predictions
do no work for it, and looking at it counts nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from ..state.counts import DURATION_BOUNDS, Durations, Key, Snapshot
from ..state.double_buffer import DoubleBuffer
from ..state.shared import MappedFile

EVERY = 5.0
"""Seconds between two readings."""

SPAN = 900
"""Seconds that the ring covers."""

PREDICTIONS = frozenset(
    (
        "/predict",
        "/api/v1.0/predictions",
        "/api/v0.1/predictions",
        "/transform-input",
        "/v2/models/<model>/infer",
        "/v2/models/<model>/versions/<version>/infer",
        "/invocations",
    )
)
"""The routes whose requests are counted here, as /metrics names them."""

_POINTS = int(SPAN / EVERY) + 1

# The numbers of a reading, by index in a copy; index 0 is the sequence.
_NUMBER, _TIME, _ROWS, _OUTLIERS, _SCORES, _REQUESTS, _FAILED, _SECONDS, _BUCKETS = range(1, 10)
_SIZE = _BUCKETS + len(DURATION_BOUNDS) + 1
_WORDS = DoubleBuffer.words(_SIZE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Span:
    """What happened between two readings."""

    start: float
    """Seconds since 1970."""
    seconds: float
    rows: int
    outliers: int
    score_sum: float
    requests: int
    """Requests for predictions, refused ones too."""
    failed: int
    """Those answered with 5xx."""
    duration_sum: float
    """Seconds to answer all of them."""
    buckets: tuple[int, ...]
    """Requests in each interval of DURATION_BOUNDS; the last one has no upper bound."""


@dataclass(frozen=True)
class _Reading:
    number: int
    time: float
    rows: int
    outliers: int
    score_sum: float
    requests: int
    failed: int
    duration_sum: float
    buckets: tuple[int, ...]


class History:
    """The ring of readings, written by one process and read by all.

    As in `DriftWatch`, one of the processes that called `begin` holds a lock and writes; when it
    dies, another takes over.
    """

    def __init__(self, read: Callable[[], Snapshot]) -> None:
        """Prepare a ring for the counts that `read` returns."""
        self._read = read
        self._file = MappedFile.anonymous({"kind": "history"}, 8 * _WORDS * _POINTS)
        words, floats = self._file.body.cast("q"), self._file.body.cast("d")
        self._buffers = [
            DoubleBuffer(words, floats, _WORDS * point, _SIZE) for point in range(_POINTS)
        ]

    def begin(self) -> None:
        """Start a thread that takes readings whenever no other process does."""
        threading.Thread(target=self._watch, name="history", daemon=True).start()

    def record(self, now: float) -> None:
        """Take a reading at `now`, in seconds since 1970; only one process may do so at a time."""
        snapshot = self._read()
        failed, total = sum_requests(snapshot.requests.items())
        number = max((reading.number for reading in self._readings()), default=0) + 1
        buffer = self._buffers[number % _POINTS]
        words, floats, start = buffer.begin()
        words[start + _NUMBER] = number
        floats[start + _TIME] = now
        words[start + _ROWS] = snapshot.totals.samples
        words[start + _OUTLIERS] = snapshot.totals.outliers
        floats[start + _SCORES] = snapshot.score_sum
        words[start + _REQUESTS] = total.count
        words[start + _FAILED] = failed
        floats[start + _SECONDS] = total.seconds
        for i, value in enumerate(total.buckets, start + _BUCKETS):
            words[i] = value
        buffer.commit()

    def spans(self) -> list[Span]:
        """Return what happened between the readings of the last 15 minutes, the oldest first.

        Where the clock was set back, there is no span.
        """
        readings = sorted(self._readings(), key=lambda reading: reading.number)
        return [_between(one, two) for one, two in pairwise(readings) if two.time > one.time]

    def _readings(self) -> list[_Reading]:
        found = (buffer.read() for buffer in self._buffers if buffer.is_used())
        return [
            _Reading(
                words[_NUMBER], floats[_TIME], words[_ROWS], words[_OUTLIERS], floats[_SCORES],
                words[_REQUESTS], words[_FAILED], floats[_SECONDS], tuple(words[_BUCKETS:]),
            )
            for words, floats in found
        ]  # fmt: skip

    def _watch(self) -> None:
        locks = self._file.locks()  # released by the kernel when this process dies
        while True:
            try:
                if locks.acquire(0):
                    self.record(time.time())
            except Exception:  # the next attempt may succeed
                logger.exception("the history cannot be written")
            time.sleep(EVERY - time.time() % EVERY)


def sum_requests(requests: Iterable[tuple[Key, Durations]]) -> tuple[int, Durations]:
    """Return how many requests for predictions failed with 5xx, and the durations of all."""
    failed, total = 0, Durations()
    for (route, status_class), durations in requests:
        if route in PREDICTIONS:
            total += durations
            failed += durations.count if status_class == "5xx" else 0
    return failed, total


def _between(one: _Reading, two: _Reading) -> Span:
    return Span(
        start=one.time,
        seconds=two.time - one.time,
        rows=two.rows - one.rows,
        outliers=two.outliers - one.outliers,
        score_sum=two.score_sum - one.score_sum,
        requests=two.requests - one.requests,
        failed=two.failed - one.failed,
        duration_sum=two.duration_sum - one.duration_sum,
        buckets=tuple(b - a for a, b in zip(one.buckets, two.buckets, strict=True)),
    )


def quantile(buckets: tuple[int, ...], share: float) -> float | None:
    """Return the duration in seconds below which this share of requests lies.

    It is interpolated in its bucket, as Prometheus' `histogram_quantile` does; None if there are no
    requests. Above the last bound it is that bound.
    """
    total = sum(buckets)
    if not total:
        return None
    rank, below, low = share * total, 0, 0.0
    for number, high in zip(buckets, DURATION_BOUNDS, strict=False):
        if number and below + number >= rank:
            return low + (high - low) * (rank - below) / number
        below, low = below + number, high
    return DURATION_BOUNDS[-1]
