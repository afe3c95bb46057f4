"""Counts in numbered places of one small file, shared by the processes of a service.

The file has a slot for each process, as that of the counts. The numbers of a slot are a
`DoubleBuffer`, so that a killed worker leaves the old numbers or the new ones. No slot is ever
cleared. A file of another layout is quarantined, and counting begins at 0.
"""

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadSetting
from .double_buffer import DoubleBuffer
from .files import Damaged
from .shared import MAX_PROCESSES, ByteLocks, MappedFile, reset_in_children


class SharedCounters:
    """The counts so far, shared by the threads and processes of a service."""

    def __init__(self, layout: Mapping[str, Any], places: int, path: Path | None = None) -> None:
        """Open or create the file at `path`; without one the counts are in shared memory.

        `layout` says what the places count; a file with another one is not used.
        """
        self._places = places
        content = _empty(1 + places)
        if path is None:
            self._use(MappedFile.anonymous(dict(layout), len(content), content))
        else:
            self._use(MappedFile.open_or_create(path, dict(layout), len(content), content, prove))
        reset_in_children(self)

    def _use(self, file: MappedFile) -> None:
        self._file, self._slots = file, _slots(file)

    def reset_after_fork(self) -> None:
        """Hold no slot; the next update claims one."""
        self._lock = threading.Lock()
        self._locks: ByteLocks | None = None
        self._slot: DoubleBuffer | None = None

    def add(self, numbers: Iterable[tuple[int, int]]) -> None:
        """Count: (place, how many) each."""
        with self._lock:
            slot = self._slot or self._claim()
            words, _, start = slot.begin()
            for place, number in numbers:
                words[start + 1 + place] += number
            slot.commit()

    def read(self) -> list[int]:
        """Return the count of each place so far."""
        used = [slot.read()[0][1:] for slot in self._slots if slot.is_used()]
        return [sum(numbers) for numbers in zip(*used, strict=True)] or [0] * self._places

    def _claim(self) -> DoubleBuffer:
        self._locks = self._file.locks()
        number = self._locks.acquire_first(MAX_PROCESSES)
        if number < 0:
            raise BadSetting(f"more than {MAX_PROCESSES} processes share these counts")
        self._slot = self._slots[number]
        return self._slot


def prove(file: MappedFile) -> None:
    """Raise Damaged if a number in a file is not as it was written."""
    if not all(slot.is_whole() for slot in _slots(file)):
        raise Damaged("its numbers are damaged")


def _slots(file: MappedFile) -> list[DoubleBuffer]:
    numbers, floats = file.body.cast("q"), file.body.cast("d")
    size = DoubleBuffer.size(len(numbers) // MAX_PROCESSES)
    return [DoubleBuffer(numbers, floats, start, size) for start in _starts(size)]


def _starts(size: int) -> range:
    words = DoubleBuffer.words(size)
    return range(0, MAX_PROCESSES * words, words)


def _empty(size: int) -> bytes:
    """Return the slots of a new file."""
    words = memoryview(bytearray(8 * MAX_PROCESSES * DoubleBuffer.words(size))).cast("q")
    for start in _starts(size):
        DoubleBuffer.clear(words, start, size)
    return words.tobytes()
