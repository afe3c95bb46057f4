"""Exact running counts of samples and requests, shared by all workers.

Each worker writes into a slot of its own in one mapped file; totals are the sum over the slots. No
process waits for another. After the header, in words of 8 bytes:

    used slots | gap | names, each with a check sum | slots, one for each process

docs/internals/state.md explains what a slot contains and why no count is lost with a worker.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import monotonic_ns
from typing import Any
from zlib import crc32

import numpy as np

from ..errors import BadSetting
from ..rows import Totals, Verdict
from . import low_pvalues, odd_cells
from .double_buffer import DoubleBuffer, fence
from .files import Damaged, delete
from .folder import InUse, StateFolder
from .shared import MAX_PROCESSES, ByteLocks, MappedFile, clock_offset_after, reset_in_children

FILE_NAME = "counts.bin"

# decision_function lies in (-1, 1) and nearly always in -0.5..0.5: score_samples is in [-1, 0) and
# the offset subtracted from it is -0.5, or lower for a small contamination.
SCORE_BOUNDS = tuple(round(-0.5 + 0.05 * i, 2) for i in range(21))

# Seconds. One row takes well under a millisecond, a batch of 200,000 about one second.
DURATION_BOUNDS = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0)

SERIES = 128
"""The most pairs of route and status class that are counted separately."""

OTHER = "other"
"""The route of requests to unknown URLs, and of those beyond SERIES counted."""

Key = tuple[str, str]  # route, status class

# The numbers of the cell for samples, by index in a copy; index 0 is the sequence.
SAMPLES, OUTLIERS, STAMP, SCORE_SUM, LAST_SHARE, LAST_MEAN, SCORE_BUCKETS = range(1, 8)
_SAMPLES_SIZE = SCORE_BUCKETS + len(SCORE_BOUNDS) + 1
_SAMPLES_CELL = 64  # 61 words in use; a power of 2, so that no cell lies on two pages of the disk

# The numbers of a cell for requests.
COUNT, SECONDS, DURATION_BUCKETS = range(1, 4)
_REQUESTS_SIZE = DURATION_BUCKETS + len(DURATION_BOUNDS) + 1
_REQUESTS_CELL = 32  # 25 words in use

_WORD = 8  # bytes of a number: int64 or float64
_USED, _NAMES = 0, 64
_NAME_WORDS = 16  # a check sum, and the name in 120 bytes, padded with zeros
_NAME_BYTES = (_NAME_WORDS - 1) * _WORD
_SLOTS = _NAMES + SERIES * _NAME_WORDS
_SLOT_WORDS = _SAMPLES_CELL + SERIES * _REQUESTS_CELL
_SELECTORS = [0, *range(_SAMPLES_CELL, _SLOT_WORDS, _REQUESTS_CELL)]  # where a slot's cells begin

# The lock for claiming a slot or a name, after those of the slots. Seconds to wait for it: its
# process may be stopped, and requests wait meanwhile.
_CLAIM, _PATIENCE = MAX_PROCESSES, 0.2


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

    totals: Totals = field(default_factory=Totals)
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

    def __init__(self, folder: Path | None = None, columns: Sequence[str] = ()) -> None:
        """Open or create the counts in `folder`, which this service has locked.

        `columns` are the model's. A file that is damaged, has another layout or counts for a model
        with other columns is quarantined with a warning.

        Raises:
            BadSetting: the disk has no room for the file.
        """
        self._file = CountsFile.open(folder, columns)
        self._samples = [self._file.samples(slot) for slot in range(MAX_PROCESSES)]
        self._ahead = clock_offset_after(max(cell.read()[0][STAMP] for cell in self._samples))
        for digit in range(1, 6):
            self._file.number((OTHER, f"{digit}xx"))
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
            self._claim()

    def add(self, verdict: Verdict) -> Totals:
        """Count the rows of one verdict and return the totals that include them."""
        scores, outliers, total = verdict.scores, verdict.outliers, verdict.score_sum
        rows = len(scores)
        if rows == 1:  # numpy's fixed cost would be nearly all of the time
            buckets = [(bisect_left(SCORE_BOUNDS, total), 1)]
        else:
            found = np.searchsorted(SCORE_BOUNDS, scores, side="left")
            buckets = [(i, n) for i, n in enumerate(np.bincount(found).tolist()) if n]
        with self._lock:
            slot = self._slot if self._slot >= 0 else self._claim()
            cell = self._samples[slot]
            words, floats, start = cell.begin()
            words[start + SAMPLES] += rows
            words[start + OUTLIERS] += outliers
            words[start + STAMP] = monotonic_ns() + self._ahead
            floats[start + SCORE_SUM] += total
            floats[start + LAST_SHARE] = outliers / rows
            floats[start + LAST_MEAN] = total / rows
            for i, n in buckets:
                words[start + SCORE_BUCKETS + i] += n
            cell.commit()
            own = words[start + SAMPLES], words[start + OUTLIERS]
        return self.totals(slot, own)

    def observe(self, route: str, status_class: str, seconds: float) -> None:
        """Count one answered request: of a route such as '/predict', of a class such as '2xx'."""
        if seconds < 0:  # time can go backwards
            seconds = 0.0
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

    def processes(self) -> int:
        """Return how many living processes count here: the workers."""
        return self._file.count_processes()

    def read(self) -> Snapshot:
        """Return all current counts; the numbers of each cell belong together."""
        used = range(self._file.used or 1)  # the numbers of an unused slot are 0
        samples = [self._samples[slot].read() for slot in used]
        latest = max(samples, key=lambda cell: cell[0][STAMP])[1]
        return Snapshot(
            totals=Totals(*_add(words[SAMPLES : OUTLIERS + 1] for words, _ in samples)),
            score_sum=math.fsum(floats[SCORE_SUM] for _, floats in samples),
            score_buckets=_add(words[SCORE_BUCKETS:] for words, _ in samples),
            last_outlier_share=latest[LAST_SHARE],
            last_mean_score=latest[LAST_MEAN],
            requests=self._read_requests(used),
        )

    def totals(self, own_slot: int = -1, own: tuple[int, int] = (0, 0)) -> Totals:
        """Return the current totals; those of `own_slot`, if given, are `own`."""
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

    def _claim(self) -> int:
        """Return this process's slot; the first call claims it."""
        if self._slot < 0:
            self._slot, self._locks = self._file.claim_slot()
        return self._slot

    def _find_requests(self, key: Key) -> DoubleBuffer:
        number = self._file.number(key)
        if number is None:  # from now on, because the next request shall not wait again
            cell = self._find_requests((OTHER, key[1]))
        else:
            cell = self._file.requests(self._slot, number)
        self._requests[key] = cell
        return cell


def reset_counts(folder: Path) -> None:
    """Delete all counts of a service; BadSetting if it is running."""
    try:
        locked = StateFolder(folder, wait_seconds=0)
    except InUse as error:
        raise BadSetting(
            f"the counts in {folder} are those of a running service (process {error.owner}); "
            "stop it first"
        ) from error
    for name in (FILE_NAME, odd_cells.FILE_NAME, low_pvalues.FILE_NAME):
        delete(locked.path / name)


class CountsFile:
    """Slots, cells and names in a mapped file, or in memory that forked processes share."""

    def __init__(self, file: MappedFile) -> None:
        self._file, self._body = file, file.body
        self._words, self._floats = self._body.cast("q"), self._body.cast("d")

    @classmethod
    def open(cls, folder: Path | None, columns: Sequence[str]) -> CountsFile:
        """Open or create the file in `folder`; quarantine one that is damaged."""
        layout: dict[str, Any] = {
            "kind": "counts",
            "format": 3,
            "columns of the model": list(columns),
            "slots": MAX_PROCESSES,
            "series": SERIES,
            "score bounds": list(SCORE_BOUNDS),
            "duration bounds": list(DURATION_BOUNDS),
        }
        content = _empty(MAX_PROCESSES)
        if folder is None:
            found = cls(MappedFile.anonymous(layout, len(content), content))
        else:
            path = folder / FILE_NAME
            found = cls(MappedFile.open_or_create(path, layout, len(content), content, prove))
        # The stored number of used slots has no check sum, so it is computed again.
        slots = np.asarray(found._words)[_SLOTS:].reshape(MAX_PROCESSES, _SLOT_WORDS)
        used = slots[:, _SELECTORS].any(axis=1)
        found._words[_USED] = 1 + max(np.flatnonzero(used).tolist(), default=-1)
        return found

    @property
    def used(self) -> int:
        """How many slots have ever been used; they are the first ones."""
        return self._words[_USED]

    def count_processes(self) -> int:
        """Return how many living processes hold a slot."""
        return sum(map(self._file.locks().is_held, range(self.used)))

    def claim_slot(self) -> tuple[int, ByteLocks]:
        """Lock the first slot that no living process holds; return it and the locks to keep."""
        locks = self._file.locks()
        # Two at once could both store the same number of slots. That is unlikely, so after a while
        # it is risked.
        locks.acquire(_CLAIM, _PATIENCE)
        slot = locks.acquire_first(MAX_PROCESSES)
        self._words[_USED] = max(self.used, slot + 1)
        locks.release(_CLAIM)
        if slot < 0:
            raise BadSetting(f"more than {MAX_PROCESSES} processes share these counts")
        return slot, locks

    def samples(self, slot: int) -> DoubleBuffer:
        """Return a slot's cell for samples."""
        start = _SLOTS + slot * _SLOT_WORDS
        return DoubleBuffer(self._words, self._floats, start, _SAMPLES_SIZE)

    def requests(self, slot: int, number: int) -> DoubleBuffer:
        """Return a slot's cell for the requests that name `number` stands for."""
        start = _SLOTS + slot * _SLOT_WORDS + _SAMPLES_CELL + number * _REQUESTS_CELL
        return DoubleBuffer(self._words, self._floats, start, _REQUESTS_SIZE)

    def keys(self) -> list[Key]:
        """Return the route and status class of each name."""
        names = (name.rstrip(b"\0").decode(errors="replace") for name in self._read_names())
        return [(route, status) for status, route in (name.split(" ", 1) for name in names)]

    def number(self, key: Key) -> int | None:
        """Return the number of a key's name; add it if it is new.

        None if there is no room, or the process that adds a name is stopped.
        """
        route, status_class = key
        name = f"{status_class} {route}".encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        names = self._read_names()
        if name not in names:
            locks = self._file.locks()
            if not locks.acquire(_CLAIM, _PATIENCE):
                return None
            names = self._read_names()  # another process may have added it meanwhile
            if name not in names and len(names) < SERIES:
                self._write_name(len(names), name)
                names.append(name)
            locks.release(_CLAIM)
        return names.index(name) if name in names else None

    def _write_name(self, number: int, name: bytes) -> None:
        start = _NAMES + number * _NAME_WORDS
        self._body[(start + 1) * _WORD : (start + _NAME_WORDS) * _WORD] = name
        fence()
        self._words[start] = _check_sum(name, number)

    def _read_names(self) -> list[bytes]:
        """Return the names in use, up to the first without its check sum."""
        names: list[bytes] = []
        for number, start in enumerate(range(_NAMES, _SLOTS, _NAME_WORDS)):
            check = self._words[start]
            fence()
            name = bytes(self._body[(start + 1) * _WORD : (start + _NAME_WORDS) * _WORD])
            if check != _check_sum(name, number):
                break
            names.append(name)
        return names

    def prove(self) -> None:
        """Raise Damaged if a name or number is not as it was written."""
        names = len(self._read_names())
        if any(self._words[_NAMES + names * _NAME_WORDS : _SLOTS : _NAME_WORDS]):
            raise Damaged("its names are damaged")
        size, blank = _SLOT_WORDS * _WORD, memoryview(_empty(MAX_PROCESSES))
        for slot in range(MAX_PROCESSES):
            start = (_SLOTS + slot * _SLOT_WORDS) * _WORD
            if self._body[start : start + size] == blank[start : start + size]:
                continue
            cells = [self.samples(slot), *(self.requests(slot, i) for i in range(SERIES))]
            unnamed = cells[1 + names :]
            if not all(cell.is_whole() for cell in cells) or any(c.is_used() for c in unnamed):
                raise Damaged("its numbers are damaged")


def prove(file: MappedFile) -> None:
    """Raise Damaged if a name or number in a file of counts is not as it was written."""
    CountsFile(file).prove()


def _add(rows: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*rows, strict=True))


@cache
def _empty(slots: int) -> bytes:
    """Return the names and slots of a new file."""
    words = np.zeros(_SLOTS + slots * _SLOT_WORDS, np.int64)
    for slot in range(_SLOTS, len(words), _SLOT_WORDS):
        for cell in _SELECTORS:
            size = _REQUESTS_SIZE if cell else _SAMPLES_SIZE
            DoubleBuffer.clear(words.data, slot + cell, size)
    return words.tobytes()


def _check_sum(name: bytes, number: int) -> int:
    return 1 << 32 | crc32(name, number)  # never 0, which is no name
