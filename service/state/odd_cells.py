"""Counts of odd cells, by column: out of training's range, of an unknown value, or missing.

The file has a slot for each process, as that of the counts. The numbers of a slot are a
`DoubleBuffer`, so that a killed worker leaves the old numbers or the new ones. No slot is ever
cleared. A file of other columns is quarantined, and counting begins at 0.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import BadSetting
from ..rows import ODD
from .double_buffer import DoubleBuffer
from .files import Damaged
from .shared import MAX_PROCESSES, ByteLocks, MappedFile, reset_in_children

FILE_NAME = "cells.bin"

_KINDS = len(ODD)


class OddCells:
    """The odd cells so far, shared by the threads and processes of a service."""

    def __init__(self, columns: Sequence[str], folder: Path | None = None) -> None:
        """Open or create the file in `folder`; without one the counts are in shared memory."""
        self._columns = tuple(columns)
        self._size = 1 + _KINDS * len(columns)
        layout = {
            "kind": "odd cells",
            "format": 1,
            "columns": list(self._columns),
            "odd": list(ODD),
        }
        content = _empty(self._size)
        if folder is None:
            self._use(MappedFile.anonymous(layout, len(content), content))
        else:
            path = folder / FILE_NAME
            self._use(MappedFile.open_or_create(path, layout, len(content), content, self._prove))
        reset_in_children(self)

    def _use(self, file: MappedFile) -> None:
        self._file = file
        numbers, floats = file.body.cast("q"), file.body.cast("d")
        starts = _starts(self._size)
        self._slots = [DoubleBuffer(numbers, floats, start, self._size) for start in starts]

    def _prove(self, file: MappedFile) -> None:
        """Raise Damaged if a number in a file is not as it was written."""
        self._use(file)
        if not all(slot.is_whole() for slot in self._slots):
            raise Damaged("its numbers are damaged")

    def reset_after_fork(self) -> None:
        """Hold no slot; the next update claims one."""
        self._lock = threading.Lock()
        self._locks: ByteLocks | None = None
        self._slot: DoubleBuffer | None = None

    def add(self, odd: Iterable[tuple[int, int, int]]) -> None:
        """Count cells: (column, index in ODD, how many) each."""
        with self._lock:
            slot = self._slot or self._claim()
            words, _, start = slot.begin()
            for column, kind, number in odd:
                words[start + 1 + _KINDS * column + kind] += number
            slot.commit()

    def read(self) -> Mapping[tuple[str, str], int]:
        """Return the counts so far by (column, kind), without those that are 0."""
        used = [slot.read()[0] for slot in self._slots if slot.is_used()]
        sums = [sum(numbers) for numbers in zip(*used, strict=True)]
        keys = ((column, kind) for column in self._columns for kind in ODD)
        return {key: number for key, number in zip(keys, sums[1:], strict=False) if number}

    def _claim(self) -> DoubleBuffer:
        self._locks = self._file.locks()
        number = self._locks.acquire_first(MAX_PROCESSES)
        if number < 0:
            raise BadSetting(f"more than {MAX_PROCESSES} processes share these counts")
        self._slot = self._slots[number]
        return self._slot


def _starts(size: int) -> range:
    words = DoubleBuffer.words(size)
    return range(0, MAX_PROCESSES * words, words)


def _empty(size: int) -> bytes:
    """Return the slots of a new file."""
    words = memoryview(bytearray(8 * MAX_PROCESSES * DoubleBuffer.words(size))).cast("q")
    for start in _starts(size):
        DoubleBuffer.clear(words, start, size)
    return words.tobytes()
