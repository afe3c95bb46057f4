"""The file of the counts: its layout, the names of its cells, and the check for damage.

After the header, in words of 8 bytes:

    used slots | gap | names, each with a check sum | slots, one for each process

A slot consists of cells, whose numbers change together (`double_buffer`): one for the samples (how
many, how many outliers, their scores) and one for each pair of route and status class. The names
say which pair a cell counts, in the order in which the pairs first occurred, so a later version
with more routes adds to them and continues the counts. A name is written before its check sum, and
only by the process that holds the lock for claims.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from .double_buffer import DoubleBuffer, fence
from .folder import MOST_QUARANTINED, quarantine
from .shared import MAX_PROCESSES, ByteLocks, MappedFile

FILE_NAME = "counts.bin"

# decision_function lies in (-1, 1) and nearly always in -0.5..0.5: score_samples is in [-1, 0) and
# the offset subtracted from it is -0.5, or lower for a small contamination.
SCORE_BOUNDS = tuple(round(-0.5 + 0.05 * i, 2) for i in range(21))

# Seconds. One row takes well under a millisecond, a batch of 200,000 about one second.
DURATION_BOUNDS = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0)

SERIES = 128
"""The most pairs of route and status class that are counted separately."""

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

_CLAIM = MAX_PROCESSES  # the lock for claiming a slot or a name; those before it are the slots'


class CountsFile:
    """Slots, cells and names in a mapped file, or in memory that forked processes share."""

    def __init__(self, folder: Path | None) -> None:
        """Open or create the file in `folder`; quarantine one that is damaged.

        Raises:
            BadSetting: the disk has no room for the file.
        """
        self._open(folder)
        if folder is not None and self._is_damaged():
            quarantine(folder / FILE_NAME, "its numbers are damaged", MOST_QUARANTINED)
            self._open(folder)

    def _open(self, folder: Path | None) -> None:
        layout: dict[str, Any] = {
            "kind": "counts",
            "format": 2,
            "slots": MAX_PROCESSES,
            "series": SERIES,
            "score bounds": list(SCORE_BOUNDS),
            "duration bounds": list(DURATION_BOUNDS),
        }
        content = _empty()
        if folder is None:
            self._file = MappedFile.anonymous(layout, len(content), content)
        else:
            path = folder / FILE_NAME
            self._file = MappedFile.open_or_create(path, layout, len(content), content)
        self._body = memoryview(self._file.memory)[self._file.start :]
        self._words, self._floats = self._body.cast("q"), self._body.cast("d")
        # The stored number of used slots has no check sum, so it is computed again.
        slots = np.asarray(self._words)[_SLOTS:].reshape(MAX_PROCESSES, _SLOT_WORDS)
        used = slots[:, _SELECTORS].any(axis=1)
        self._words[_USED] = 1 + max(np.flatnonzero(used).tolist(), default=-1)

    @property
    def used(self) -> int:
        """How many slots have ever been used; they are the first ones."""
        return self._words[_USED]

    def count_processes(self) -> int:
        """Return how many living processes hold a slot."""
        return sum(map(self._file.locks().is_held, range(self.used)))

    def claim_slot(self) -> tuple[int, ByteLocks]:
        """Lock the first slot that no living process holds; return it and the locks to keep.

        The slot is -1 if all are held.
        """
        locks = self._file.locks()
        locks.acquire(_CLAIM, wait=True)  # two at once could both store the same number of slots
        slot = next((slot for slot in range(MAX_PROCESSES) if locks.acquire(slot)), -1)
        self._words[_USED] = max(self._words[_USED], slot + 1)
        locks.release(_CLAIM)
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
        """Return the number of a key's name; add it if it is new. None if there is no room."""
        route, status_class = key
        name = f"{status_class} {route}".encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        names = self._read_names()
        if name not in names:
            locks = self._file.locks()
            locks.acquire(_CLAIM, wait=True)
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
        self._words[start] = _check_sum(name)

    def _read_names(self) -> list[bytes]:
        """Return the names in use, up to the first without its check sum."""
        names: list[bytes] = []
        for start in range(_NAMES, _SLOTS, _NAME_WORDS):
            check = self._words[start]
            fence()
            name = bytes(self._body[(start + 1) * _WORD : (start + _NAME_WORDS) * _WORD])
            if check != _check_sum(name):
                break
            names.append(name)
        return names

    def _is_damaged(self) -> bool:
        names = len(self._read_names())
        if any(self._words[_NAMES + i * _NAME_WORDS] for i in range(names, SERIES)):
            return True
        for slot in range(MAX_PROCESSES):
            cells = [self.requests(slot, i) for i in range(SERIES)]
            if not self.samples(slot).is_whole() or not all(c.is_whole() for c in cells):
                return True
            if any(cell.is_used() for cell in cells[names:]):
                return True
        return False


def _empty() -> bytes:
    """Return the names and slots of a new file.

    Each cell contains the check sum of its zeros. So a page that the disk lost, which reads as
    zeros, differs from cells that were never used.
    """
    words = np.zeros(_SLOTS + MAX_PROCESSES * _SLOT_WORDS, np.int64)
    slots = words[_SLOTS:].reshape(MAX_PROCESSES, _SLOT_WORDS)
    samples, *requests = _SELECTORS
    slots[:, samples + 1 + _SAMPLES_SIZE] = crc32(bytes(_SAMPLES_SIZE * _WORD))
    slots[:, np.array(requests) + 1 + _REQUESTS_SIZE] = crc32(bytes(_REQUESTS_SIZE * _WORD))
    return words.tobytes()


def _check_sum(name: bytes) -> int:
    return 1 << 32 | crc32(name)  # never 0, which is no name
