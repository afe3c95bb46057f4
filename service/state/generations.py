"""The generation of model and threshold that all workers of a service are to serve.

A generation is a checked model file with its card, and a threshold. Its number is one word in
shared memory that each worker polls. Each worker holds a slot with a lock that the kernel releases
when the worker dies, and notes in the slot which generation it serves. A worker takes a slot, then
the current generation, and only then accepts connections: whoever publishes a generation sees the
slot of a worker that has not taken it, or that worker sees the new number.

Only the counts of changes outlive the service, in a mapped file.
"""

from __future__ import annotations

import os
import struct
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from ..errors import BadModel, BadSetting
from .shared import MAX_PROCESSES, ByteLocks, MappedFile, fence, reset_in_children

FILE_NAME = "swaps.bin"

# Words of the page: the number of the current generation, what the watch saw last, the counts, the
# slots; and the locks: one for each slot, one to change anything, one to be the one that watches.
_NUMBER, _SEEN, _SWAPS, _THRESHOLDS, _FAILURES = range(5)
_SLOTS = _FAILURES + len(BadModel.REASONS)
_WORDS = _SLOTS + MAX_PROCESSES
_TURN, _WATCH = MAX_PROCESSES, MAX_PROCESSES + 1

# number, threshold, bytes of the file and of the card (-1: there is none), SHA-256 of both
_HEAD = struct.Struct("<qdqq32s")


@dataclass(frozen=True)
class Generation:
    """What is to be served."""

    threshold: float
    content: bytes | None = None
    """The model file; None is the model that the service was started with."""
    card: bytes | None = None


@dataclass(frozen=True)
class Changes:
    """What was changed while services ran on this state folder."""

    swaps: int = 0
    thresholds: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """Models that were refused, by reason."""


class Generations:
    """The generations of one service; made before its workers are forked."""

    def __init__(self, folder: Path) -> None:
        """Begin with generation 0, what the service was started with.

        Raises:
            BadSetting: there is no room in the folder.
        """
        layout = {
            "kind": "swaps",
            "format": 1,
            "byte order": sys.byteorder,
            "slots": MAX_PROCESSES,
            "reasons": list(BadModel.REASONS),
        }
        self._file = MappedFile.open_or_create(folder / FILE_NAME, layout, 8 * _WORDS)
        self._words = memoryview(self._file.memory)[self._file.start :].cast("q")
        for place in (_NUMBER, _SEEN, *range(_SLOTS, _WORDS)):
            self._words[place] = 0
        self._memory = os.memfd_create("isoserve-even"), os.memfd_create("isoserve-odd")
        for file in self._memory:
            weakref.finalize(self, os.close, file)
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Hold no slot."""
        self._locks: ByteLocks | None = None
        self._slot = -1
        self._watching = False

    @property
    def number(self) -> int:
        """That of the current generation."""
        return self._words[_NUMBER]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until nobody else changes anything, and keep others waiting."""
        locks = self._file.locks()
        locks.take(_TURN, wait=True)
        try:
            yield
        finally:
            locks.give_back(_TURN)

    def publish(self, generation: Generation) -> int:
        """Make this the current generation, and return its number. Only in one's turn."""
        number = self.number + 1
        parts = generation.content, generation.card
        body = b"".join(part or b"" for part in parts)
        sizes = (-1 if part is None else len(part) for part in parts)
        head = _HEAD.pack(number, generation.threshold, *sizes, sha256(body).digest())
        file = self._memory[number % 2]
        os.ftruncate(file, 0)
        _write(file, head + body)
        fence()
        self._words[_NUMBER] = number
        return number

    def read(self) -> tuple[int, Generation | None]:
        """Return the current generation and its number; of number 0 there is none to read."""
        while number := self.number:
            file = self._memory[number % 2]
            data = os.pread(file, os.fstat(file).st_size, 0)
            if len(data) < _HEAD.size:
                continue
            written, threshold, content, card, digest = _HEAD.unpack_from(data)
            body = data[_HEAD.size :]
            # A later generation may have been written over it in the meantime.
            if written != number or sha256(body).digest() != digest:
                continue
            cut = max(content, 0)
            return number, Generation(
                threshold,
                None if content < 0 else body[:cut],
                None if card < 0 else body[cut:],
            )
        return 0, None

    def enlist(self) -> None:
        """Take a slot, as a worker that has yet to take the current generation."""
        locks = self._file.locks()
        slot = next((slot for slot in range(MAX_PROCESSES) if locks.take(slot)), -1)
        if slot < 0:
            raise BadSetting(f"more than {MAX_PROCESSES} workers serve one model")
        self._words[_SLOTS + slot] = 0
        self._locks, self._slot = locks, slot
        fence()

    def note(self, number: int) -> None:
        """Tell the others which generation this worker serves."""
        if self._slot >= 0:
            self._words[_SLOTS + self._slot] = number

    def behind(self, number: int) -> int:
        """Return how many living workers serve an older generation than `number`."""
        locks, late = self._file.locks(), 0
        for slot in range(MAX_PROCESSES):
            if self._words[_SLOTS + slot] < number:
                if locks.take(slot):  # its worker is dead, or nobody ever had it
                    locks.give_back(slot)
                else:
                    late += 1
        return late

    def is_watching(self) -> bool:
        """Tell whether this worker is the one that watches the model file; one of them is."""
        if not self._watching and self._locks is not None:
            self._watching = self._locks.take(_WATCH)
        return self._watching

    @property
    def seen(self) -> int:
        """What the watch saw of the model file last."""
        return self._words[_SEEN]

    @seen.setter
    def seen(self, mark: int) -> None:
        self._words[_SEEN] = mark

    def count_swap(self) -> None:
        """Count a new model. This and the next two only in one's turn."""
        self._words[_SWAPS] += 1

    def count_threshold(self) -> None:
        """Count a new threshold."""
        self._words[_THRESHOLDS] += 1

    def count_failure(self, reason: str) -> None:
        """Count a model that was refused."""
        self._words[_FAILURES + BadModel.REASONS.index(reason)] += 1

    def changes(self) -> Changes:
        """Return all counts."""
        failures = {reason: self._words[_FAILURES + i] for i, reason in enumerate(BadModel.REASONS)}
        return Changes(self._words[_SWAPS], self._words[_THRESHOLDS], failures)


def _write(file: int, data: bytes) -> None:
    view, place = memoryview(data), 0
    while place < len(view):
        place += os.pwrite(file, view[place:], place)
