"""Exact running counts, kept in one place.

All workers of a service write into one mapped file, each into a slot of its own, and whoever wants
totals adds the slots up. Nothing is sent and nobody waits for another process.

A slot consists of cells. The numbers of a cell change together (`shared.DoubleBuffer`). One cell
has the samples (how many, how many outliers, their scores); each route and status class has one.

A worker claims the first free slot with a lock that the kernel releases when the worker dies, and
counts on from the numbers it finds there: no slot is ever cleared, so nothing that was counted is
lost with a worker. The threads of a worker take turns with a lock of their own.

Which route and status class a cell stands for is written in a table of names before the slots, in
the order in which they first came up; a later version's routes are added to it, and its counts go
on. A name is written first and its check sum then, in one store; two workers never name at once.

`add` counts before it sums up. So its totals include its own rows and all that were added before it
began; and, as an answer is sent after the sum was taken, none of a request begun after that answer.
"""

from __future__ import annotations

import math
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns
from typing import Any
from zlib import crc32

import numpy as np

from ..errors import BadSetting
from ..rows import NOTHING, Totals, Verdict
from .folder import MOST_QUARANTINED, InUse, StateFolder, quarantine
from .shared import (
    MAX_PROCESSES,
    ByteLocks,
    DoubleBuffer,
    MappedFile,
    clock_offset_after,
    fence,
    reset_in_children,
)

FILE_NAME = "counts.bin"

# decision_function lies in (-1, 1) and nearly always in -0.5..0.5: score_samples is in [-1, 0) and
# the offset subtracted from it is -0.5, or lower for a small contamination.
SCORE_BOUNDS = tuple(round(-0.5 + 0.05 * i, 2) for i in range(21))

# Seconds. One row takes well under a millisecond, a batch of 200,000 about one second.
DURATION_BOUNDS = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0)

OTHER = "other"
"""The route of every request that has none of its own."""

SERIES = 128
"""The most pairs of route and status class that are counted apart; what comes beyond is OTHER."""

_STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")

_WORD = 8  # bytes of a number: int64 or float64

# The file after its header, in words: the number of slots ever used, a gap, the names, the slots.
_USED, _NAMES = 0, 64
_NAME_WORDS = 16  # a check sum, and the name in 120 bytes, padded with zeros
_NAME_BYTES = (_NAME_WORDS - 1) * _WORD
_SLOTS = _NAMES + SERIES * _NAME_WORDS

_DOOR = MAX_PROCESSES  # the lock to hold for claiming a slot or a name; slots are the ones before

# The numbers of the samples cell, by place in a copy; place 0 is the sequence.
_SAMPLES, _OUTLIERS, _STAMP, _SCORE_SUM, _LAST_SHARE, _LAST_MEAN, _SCORE_BUCKETS = range(1, 8)
_SAMPLES_SIZE = _SCORE_BUCKETS + len(SCORE_BOUNDS) + 1
_SAMPLES_CELL = 64  # 61 words in use; a power of 2, so that no cell lies on two pages of the disk

# The numbers of a request cell.
_COUNT, _SECONDS, _DURATION_BUCKETS = range(1, 4)
_REQUESTS_SIZE = _DURATION_BUCKETS + len(DURATION_BOUNDS) + 1
_REQUESTS_CELL = 32  # 25 words in use

_SLOT_WORDS = _SAMPLES_CELL + SERIES * _REQUESTS_CELL
_SELECTORS = [0, *range(_SAMPLES_CELL, _SLOT_WORDS, _REQUESTS_CELL)]  # where a slot's cells begin

_Key = tuple[str, str]  # route, status class


@dataclass(frozen=True)
class Durations:
    """Requests of one route and status class: how many, and how long they took."""

    count: int = 0
    seconds: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS) + 1)
    """How many fell into each interval of DURATION_BOUNDS, the last one open."""

    def __add__(self, other: Durations) -> Durations:
        """Return both together."""
        buckets = _add((self.buckets, other.buckets))
        return Durations(self.count + other.count, self.seconds + other.seconds, buckets)


@dataclass(frozen=True)
class Snapshot:
    """All counts at one moment."""

    totals: Totals = NOTHING
    score_sum: float = 0.0
    score_buckets: tuple[int, ...] = (0,) * (len(SCORE_BOUNDS) + 1)
    """How many scores fell into each interval of SCORE_BOUNDS, the last one open."""
    last_outlier_share: float = 0.0
    last_mean_score: float = 0.0
    """Of the latest scored request; meaningless while nothing was scored."""
    requests: Mapping[tuple[str, str], Durations] = field(default_factory=dict)
    """(route, status class such as '2xx') to durations, only what has happened, and in the order in
    which it first did."""


class Counts:
    """Counts shared by the threads and processes of a service.

    With a folder they outlive the service; without one they live in memory that is shared with the
    processes forked after this object was made.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Open or begin the counts in `folder`, one that this service holds.

        A file of another layout, or a damaged one, is set aside under another name, with a warning.

        Raises:
            BadSetting: there is no room for the file.
        """
        self._open(folder)
        if folder is not None and self._is_damaged():
            quarantine(folder / FILE_NAME, "its numbers are damaged", MOST_QUARANTINED)
            self._open(folder)
        self._samples = [self._samples_cell(slot) for slot in range(MAX_PROCESSES)]
        self._ahead = clock_offset_after(max(cell.read()[0][_STAMP] for cell in self._samples))
        for status_class in _STATUS_CLASSES:
            self._name((OTHER, status_class))
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Own no slot; the next update claims one."""
        self._lock = threading.Lock()
        self._locks: ByteLocks | None = None
        self._slot = -1
        self._requests: dict[_Key, DoubleBuffer] = {}

    def begin(self) -> None:
        """Claim this process's slot now, and not with the first update."""
        with self._lock:
            if self._slot < 0:
                self._claim()

    def add(self, verdict: Verdict) -> Totals:
        """Count the rows of one verdict and return the totals that include them."""
        scores, outliers, total = verdict.scores, verdict.outliers, verdict.score_sum
        if len(scores) == 1:  # numpy's fixed cost would be nearly all
            buckets = [(bisect_left(SCORE_BOUNDS, total), 1)]
        else:
            places = np.searchsorted(SCORE_BOUNDS, scores, side="left")
            buckets = [(i, n) for i, n in enumerate(np.bincount(places).tolist()) if n]
        with self._lock:
            if self._slot < 0:
                self._claim()
            slot = self._slot
            cell = self._samples[slot]
            words, floats, place = cell.begin()
            words[place + _SAMPLES] += len(scores)
            words[place + _OUTLIERS] += outliers
            words[place + _STAMP] = monotonic_ns() + self._ahead
            floats[place + _SCORE_SUM] += total
            floats[place + _LAST_SHARE] = outliers / len(scores)
            floats[place + _LAST_MEAN] = total / len(scores)
            for i, n in buckets:
                words[place + _SCORE_BUCKETS + i] += n
            cell.commit()
            own = words[place + _SAMPLES], words[place + _OUTLIERS]
        return self._sum_up(slot, own)

    def observe(self, route: str, status_class: str, seconds: float) -> None:
        """Count one answered request: of a route such as '/predict', of a class such as '2xx'."""
        seconds = max(seconds, 0.0)  # time can go backwards
        with self._lock:
            if self._slot < 0:
                self._claim()
            key = route, status_class
            cell = self._requests.get(key) or self._find_requests(key)
            words, floats, place = cell.begin()
            words[place + _COUNT] += 1
            floats[place + _SECONDS] += seconds
            words[place + _DURATION_BUCKETS + bisect_left(DURATION_BOUNDS, seconds)] += 1
            cell.commit()

    def totals(self) -> Totals:
        """Return the totals as they are now."""
        return self._sum_up()

    def processes(self) -> int:
        """Return how many living processes count here: the workers."""
        return sum(map(self._file.locks().is_taken, range(self._words[_USED])))

    def read(self) -> Snapshot:
        """Return all counts as they are now, each cell whole."""
        used = range(self._words[_USED])
        samples = [self._samples[slot].read() for slot in used]
        if not samples:
            return Snapshot()
        latest = max(samples, key=lambda cell: cell[0][_STAMP])[1]
        return Snapshot(
            totals=Totals(
                sum(words[_SAMPLES] for words, _ in samples),
                sum(words[_OUTLIERS] for words, _ in samples),
            ),
            score_sum=math.fsum(floats[_SCORE_SUM] for _, floats in samples),
            score_buckets=_add(words[_SCORE_BUCKETS:] for words, _ in samples),
            last_outlier_share=latest[_LAST_SHARE],
            last_mean_score=latest[_LAST_MEAN],
            requests=self._read_requests(used),
        )

    def _sum_up(self, own_slot: int = -1, own: tuple[int, int] = (0, 0)) -> Totals:
        """Add the totals of the other slots to those of one's own."""
        samples, outliers = own
        for slot in range(self._words[_USED]):
            if slot != own_slot:
                more = self._samples[slot].read_pair()
                samples, outliers = samples + more[0], outliers + more[1]
        return Totals(samples, outliers)

    def _read_requests(self, used: range) -> dict[_Key, Durations]:
        requests = {}
        for i, name in enumerate(self._read_names()):
            cells = [self._requests_cell(slot, i).read() for slot in used]
            if count := sum(words[_COUNT] for words, _ in cells):
                seconds = math.fsum(floats[_SECONDS] for _, floats in cells)
                buckets = _add(words[_DURATION_BUCKETS:] for words, _ in cells)
                status_class, route = name.rstrip(b"\0").decode(errors="replace").split(" ", 1)
                requests[route, status_class] = Durations(count, seconds, buckets)
        return requests

    def _open(self, folder: Path | None) -> None:
        layout: dict[str, Any] = {
            "kind": "counts",
            "format": 2,
            "byte order": sys.byteorder,
            "slots": MAX_PROCESSES,
            "series": SERIES,
            "score bounds": list(SCORE_BOUNDS),
            "duration bounds": list(DURATION_BOUNDS),
        }
        size = (_SLOTS + MAX_PROCESSES * _SLOT_WORDS) * _WORD
        if folder is None:
            self._file = MappedFile.anonymous(layout, size, _nothing_counted())
        else:
            path = folder / FILE_NAME
            self._file = MappedFile.open_or_create(path, layout, size, _nothing_counted())
        self._body = memoryview(self._file.memory)[self._file.start :]
        self._words, self._floats = self._body.cast("q"), self._body.cast("d")
        # Not trusted from one run to the next: it has no check sum, and is as soon found again.
        slots = np.asarray(self._words)[_SLOTS:].reshape(MAX_PROCESSES, _SLOT_WORDS)
        used = slots[:, _SELECTORS].any(axis=1)
        self._words[_USED] = 1 + max(np.flatnonzero(used).tolist(), default=-1)

    def _is_damaged(self) -> bool:
        names = len(self._read_names())
        if any(self._words[_NAMES + i * _NAME_WORDS] for i in range(names, SERIES)):
            return True
        for slot in range(MAX_PROCESSES):
            cells = [self._requests_cell(slot, i) for i in range(SERIES)]
            if not self._samples_cell(slot).is_whole() or not all(c.is_whole() for c in cells):
                return True
            if any(cell.is_used() for cell in cells[names:]):
                return True
        return False

    def _samples_cell(self, slot: int) -> DoubleBuffer:
        place = _SLOTS + slot * _SLOT_WORDS
        return DoubleBuffer(self._words, self._floats, place, _SAMPLES_SIZE)

    def _requests_cell(self, slot: int, number: int) -> DoubleBuffer:
        place = _SLOTS + slot * _SLOT_WORDS + _SAMPLES_CELL + number * _REQUESTS_CELL
        return DoubleBuffer(self._words, self._floats, place, _REQUESTS_SIZE)

    def _claim(self) -> None:
        """Make the first slot that no living process has this process's own."""
        locks = self._file.locks()
        locks.take(_DOOR, wait=True)  # two at once could both see the same number of slots in use
        free = (slot for slot in range(MAX_PROCESSES) if locks.take(slot))
        slot = next(free, -1)
        self._words[_USED] = max(self._words[_USED], slot + 1)
        locks.give_back(_DOOR)
        if slot < 0:
            raise BadSetting(f"more than {MAX_PROCESSES} processes count in one place")
        self._locks, self._slot = locks, slot

    def _find_requests(self, key: _Key) -> DoubleBuffer:
        number = self._name(key)
        if number is None:
            return self._find_requests((OTHER, key[1]))
        self._requests[key] = cell = self._requests_cell(self._slot, number)
        return cell

    def _name(self, key: _Key) -> int | None:
        """Return the number of the cell that counts `key`, a new one if need be, None if full."""
        route, status_class = key
        name = f"{status_class} {route}".encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        names = self._read_names()
        if name not in names:
            locks = self._file.locks()
            locks.take(_DOOR, wait=True)
            names = self._read_names()  # another may have come first
            if name not in names and len(names) < SERIES:
                self._write_name(len(names), name)
                names.append(name)
            locks.give_back(_DOOR)
        return names.index(name) if name in names else None

    def _write_name(self, number: int, name: bytes) -> None:
        place = _NAMES + number * _NAME_WORDS
        self._body[(place + 1) * _WORD : (place + _NAME_WORDS) * _WORD] = name
        fence()
        self._words[place] = _check_name(name)

    def _read_names(self) -> list[bytes]:
        """Return the names given so far, as far as they are sound."""
        names: list[bytes] = []
        for place in range(_NAMES, _SLOTS, _NAME_WORDS):
            check = self._words[place]
            fence()
            name = bytes(self._body[(place + 1) * _WORD : (place + _NAME_WORDS) * _WORD])
            if check != _check_name(name):
                break
            names.append(name)
        return names


def reset_counts(folder: Path) -> None:
    """Forget all counts of a service that is not running.

    Raises:
        BadSetting: it is running.
    """
    try:
        held = StateFolder(folder, patience=0)
    except InUse as error:
        raise BadSetting(
            f"the counts in {folder} are those of a running service (process {error.owner}); "
            "stop it first"
        ) from error
    (held.path / FILE_NAME).unlink(missing_ok=True)


def _nothing_counted() -> bytes:
    """Return the names and slots of a new file.

    Each cell has the check sum of its zeros: so zeros alone, as a lost page of the disk reads, are
    not taken for a cell that was never used.
    """
    words = np.zeros(_SLOTS + MAX_PROCESSES * _SLOT_WORDS, np.int64)
    slots = words[_SLOTS:].reshape(MAX_PROCESSES, _SLOT_WORDS)
    samples, *requests = _SELECTORS
    slots[:, samples + 1 + _SAMPLES_SIZE] = crc32(bytes(_SAMPLES_SIZE * _WORD))
    slots[:, np.array(requests) + 1 + _REQUESTS_SIZE] = crc32(bytes(_REQUESTS_SIZE * _WORD))
    return words.tobytes()


def _check_name(name: bytes) -> int:
    return 1 << 32 | crc32(name)  # never 0, which is no name


def _add(rows: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*rows, strict=True))
