"""Exact running counts of samples and requests, shared by all workers.

All workers write into one mapped file (`counts_file`), each into a slot of its own; totals are the
sum over the slots. No process sends anything to another or waits for one.

A worker claims the first free slot with a lock that the kernel releases when the worker dies, and
continues from the numbers in it. No slot is ever cleared, so no count is lost with a worker. The
threads of a worker take turns with a lock of their own.

`add` counts before it sums up. So its totals include its own rows and all rows added before it
began; and none of a request that begins after the answer was sent.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns

import numpy as np

from ..errors import BadSetting
from ..rows import NOTHING, Totals, Verdict
from .counts_file import (
    COUNT,
    DURATION_BOUNDS,
    DURATION_BUCKETS,
    FILE_NAME,
    LAST_MEAN,
    LAST_SHARE,
    OUTLIERS,
    SAMPLES,
    SCORE_BOUNDS,
    SCORE_BUCKETS,
    SCORE_SUM,
    SECONDS,
    STAMP,
    CountsFile,
    Key,
)
from .double_buffer import DoubleBuffer
from .folder import InUse, StateFolder
from .shared import MAX_PROCESSES, ByteLocks, clock_offset_after, reset_in_children

OTHER = "other"
"""The route of requests to unknown URLs, and of those beyond the `counts_file.SERIES` counted."""

_STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")


@dataclass(frozen=True)
class Durations:
    """How many requests of one route and status class there were, and how long they took."""

    count: int = 0
    seconds: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS) + 1)
    """Requests in each interval of DURATION_BOUNDS; the last one has no upper bound."""

    def __add__(self, other: Durations) -> Durations:
        """Return the sum of both."""
        buckets = _add((self.buckets, other.buckets))
        return Durations(self.count + other.count, self.seconds + other.seconds, buckets)


@dataclass(frozen=True)
class Snapshot:
    """All counts at one moment."""

    totals: Totals = NOTHING
    score_sum: float = 0.0
    score_buckets: tuple[int, ...] = (0,) * (len(SCORE_BOUNDS) + 1)
    """Scores in each interval of SCORE_BOUNDS; the last one has no upper bound."""
    last_outlier_share: float = 0.0
    last_mean_score: float = 0.0
    """Of the latest scored request; undefined while there is none."""
    requests: Mapping[Key, Durations] = field(default_factory=dict)
    """(route, status class such as '2xx') to durations, in the order of their first request."""


class Counts:
    """Counts shared by the threads and processes of a service.

    With a folder they outlive the service; without one they are in memory shared with the processes
    forked after this object was made.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Open or create the counts in `folder`, which this service has locked.

        A damaged file, or one of another layout, is quarantined with a warning.

        Raises:
            BadSetting: the disk has no room for the file.
        """
        self._file = CountsFile(folder)
        self._samples = [self._file.samples(slot) for slot in range(MAX_PROCESSES)]
        self._ahead = clock_offset_after(max(cell.read()[0][STAMP] for cell in self._samples))
        for status_class in _STATUS_CLASSES:
            self._file.number((OTHER, status_class))
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Hold no slot; the next update claims one."""
        self._lock = threading.Lock()
        self._locks: ByteLocks | None = None
        self._slot = -1
        self._requests: dict[Key, DoubleBuffer] = {}

    def begin(self) -> None:
        """Claim this process's slot now rather than with the first update."""
        with self._lock:
            if self._slot < 0:
                self._claim()

    def add(self, verdict: Verdict) -> Totals:
        """Count the rows of one verdict and return the totals that include them."""
        scores, outliers, total = verdict.scores, verdict.outliers, verdict.score_sum
        if len(scores) == 1:  # numpy's fixed cost would be nearly all of the time
            buckets = [(bisect_left(SCORE_BOUNDS, total), 1)]
        else:
            found = np.searchsorted(SCORE_BOUNDS, scores, side="left")
            buckets = [(i, n) for i, n in enumerate(np.bincount(found).tolist()) if n]
        with self._lock:
            if self._slot < 0:
                self._claim()
            slot = self._slot
            cell = self._samples[slot]
            words, floats, start = cell.begin()
            words[start + SAMPLES] += len(scores)
            words[start + OUTLIERS] += outliers
            words[start + STAMP] = monotonic_ns() + self._ahead
            floats[start + SCORE_SUM] += total
            floats[start + LAST_SHARE] = outliers / len(scores)
            floats[start + LAST_MEAN] = total / len(scores)
            for i, n in buckets:
                words[start + SCORE_BUCKETS + i] += n
            cell.commit()
            own = words[start + SAMPLES], words[start + OUTLIERS]
        return self._sum_up(slot, own)

    def observe(self, route: str, status_class: str, seconds: float) -> None:
        """Count one answered request: of a route such as '/predict', of a class such as '2xx'."""
        seconds = max(seconds, 0.0)  # time can go backwards
        with self._lock:
            if self._slot < 0:
                self._claim()
            key = route, status_class
            cell = self._requests.get(key) or self._find_requests(key)
            words, floats, start = cell.begin()
            words[start + COUNT] += 1
            floats[start + SECONDS] += seconds
            words[start + DURATION_BUCKETS + bisect_left(DURATION_BOUNDS, seconds)] += 1
            cell.commit()

    def totals(self) -> Totals:
        """Return the current totals."""
        return self._sum_up()

    def processes(self) -> int:
        """Return how many living processes count here: the workers."""
        return self._file.count_processes()

    def read(self) -> Snapshot:
        """Return all current counts; the numbers of each cell belong together."""
        used = range(self._file.used)
        samples = [self._samples[slot].read() for slot in used]
        if not samples:
            return Snapshot()
        latest = max(samples, key=lambda cell: cell[0][STAMP])[1]
        return Snapshot(
            totals=Totals(
                sum(words[SAMPLES] for words, _ in samples),
                sum(words[OUTLIERS] for words, _ in samples),
            ),
            score_sum=math.fsum(floats[SCORE_SUM] for _, floats in samples),
            score_buckets=_add(words[SCORE_BUCKETS:] for words, _ in samples),
            last_outlier_share=latest[LAST_SHARE],
            last_mean_score=latest[LAST_MEAN],
            requests=self._read_requests(used),
        )

    def _sum_up(self, own_slot: int = -1, own: tuple[int, int] = (0, 0)) -> Totals:
        """Add the totals of the other slots to those of `own_slot`."""
        samples, outliers = own
        for slot in range(self._file.used):
            if slot != own_slot:
                more = self._samples[slot].read_pair()
                samples, outliers = samples + more[0], outliers + more[1]
        return Totals(samples, outliers)

    def _read_requests(self, used: range) -> dict[Key, Durations]:
        requests = {}
        for number, key in enumerate(self._file.keys()):
            cells = [self._file.requests(slot, number).read() for slot in used]
            if count := sum(words[COUNT] for words, _ in cells):
                seconds = math.fsum(floats[SECONDS] for _, floats in cells)
                buckets = _add(words[DURATION_BUCKETS:] for words, _ in cells)
                requests[key] = Durations(count, seconds, buckets)
        return requests

    def _claim(self) -> None:
        slot, locks = self._file.claim_slot()
        if slot < 0:
            raise BadSetting(f"more than {MAX_PROCESSES} processes share these counts")
        self._locks, self._slot = locks, slot

    def _find_requests(self, key: Key) -> DoubleBuffer:
        number = self._file.number(key)
        if number is None:
            return self._find_requests((OTHER, key[1]))
        self._requests[key] = cell = self._file.requests(self._slot, number)
        return cell


def reset_counts(folder: Path) -> None:
    """Delete all counts of a service that is not running.

    Raises:
        BadSetting: it is running.
    """
    try:
        locked = StateFolder(folder, wait_seconds=0)
    except InUse as error:
        raise BadSetting(
            f"the counts in {folder} are those of a running service (process {error.owner}); "
            "stop it first"
        ) from error
    (locked.path / FILE_NAME).unlink(missing_ok=True)


def _add(rows: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*rows, strict=True))
