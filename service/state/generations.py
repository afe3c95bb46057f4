"""The generation, a model and a threshold, that all workers of a service should serve.

A generation is a checked model file with its card, and a threshold, in a file that never changes.
The number of the current one is a word in shared memory; docs/internals/state.md says how workers
follow it. Only the counts of changes outlive the service, in a mapped file.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from ..errors import BadModel, BadSetting, Unavailable
from .double_buffer import fence
from .folder import writing
from .shared import MAX_PROCESSES, ByteLocks, MappedFile, reset_in_children

FILE_NAME = "swaps.bin"
_GENERATION = "generation-"

_COUNTED = ("swap", "threshold", *BadModel.REASONS)

# Words of the mapped file: the number of the current generation, the fingerprint that the watch saw
# last, the counts, the slots. Locks: one for each slot, one to change anything, one for the watch.
_NUMBER, _SEEN, _COUNTS = range(3)
_SLOTS = _COUNTS + len(_COUNTED)
_WORDS = _SLOTS + MAX_PROCESSES
_CHANGE, _WATCH = MAX_PROCESSES, MAX_PROCESSES + 1

# Head of a generation's file: threshold, bytes of the model file and of the card (-1: there is
# none), SHA-256 of both.
_HEAD = struct.Struct("<dqq32s")


@dataclass(frozen=True)
class Generation:
    """A model and a threshold to serve."""

    threshold: float
    content: bytes | None = None
    """The model file; None is the model that the service was started with."""
    card: bytes | None = None


@dataclass(frozen=True)
class Changes:
    """Counts of the changes made while services ran with this state folder."""

    swaps: int = 0
    thresholds: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """Models that were refused, by reason."""


class Generations:
    """The generations of one service; made before its workers are forked."""

    def __init__(self, folder: Path) -> None:
        """Begin with generation 0, what the service was started with."""
        layout = {
            "kind": "swaps",
            "format": 1,
            "slots": MAX_PROCESSES,
            "reasons": list(BadModel.REASONS),
        }
        self._folder = folder
        self._file = MappedFile.open_or_create(folder / FILE_NAME, layout, 8 * _WORDS)
        self._words = self._file.body.cast("q")
        for index in (_NUMBER, _SEEN, *range(_SLOTS, _WORDS)):
            self._words[index] = 0
        self._delete_others()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Hold no slot."""
        self._locks: ByteLocks | None = None
        self._slot = -1
        self._watching = False

    @property
    def number(self) -> int:
        """The number of the current generation."""
        return self._words[_NUMBER]

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Wait for the lock for changes and hold it; at the end, delete former generations."""
        locks = self._file.locks()
        locks.acquire(_CHANGE, wait=True)
        try:
            yield
        finally:
            self._delete_others()
            locks.release(_CHANGE)

    def write(self, generation: Generation) -> int:
        """Write the file of the next generation and return its number. Only inside `changing`.

        Unavailable if it cannot be written, as on a full disk.
        """
        number = self.number + 1
        path = self._path(number)
        parts = generation.content, generation.card
        sizes = (-1 if part is None else len(part) for part in parts)
        digest = sha256(parts[0] or b"")
        digest.update(parts[1] or b"")
        head = _HEAD.pack(generation.threshold, *sizes, digest.digest())
        with writing(path), open(path, "wb", opener=partial(os.open, mode=0o600)) as file:
            file.writelines((head, *filter(None, parts)))
        return number

    def publish(self, number: int) -> None:
        """Make a written generation the current one. Only inside `changing`."""
        fence()
        self._words[_NUMBER] = number

    def read(self) -> tuple[int, Generation | None]:
        """Return the current number and generation; for number 0 there is no generation.

        Unavailable if its file is missing or damaged.
        """
        while number := self.number:
            try:
                return number, _decode(self._path(number).read_bytes())
            except (OSError, ValueError) as error:
                if number == self.number:  # else another was published and this one deleted
                    raise Unavailable(
                        f"{self._path(number)} is missing or damaged ({error}); restart the service"
                    ) from error
        return 0, None

    def register(self) -> None:
        """Acquire a slot, for a worker that has yet to read the current generation."""
        locks = self._file.locks()
        slot = locks.acquire_first(MAX_PROCESSES)
        if slot < 0:
            raise BadSetting(f"more than {MAX_PROCESSES} workers serve one model")
        self._words[_SLOTS + slot] = 0
        self._locks, self._slot = locks, slot
        fence()

    def report(self, number: int) -> None:
        """Store which generation this worker serves."""
        if self._slot >= 0:
            self._words[_SLOTS + self._slot] = number

    def count_behind(self, number: int) -> int:
        """Return how many living workers serve an older generation than `number`."""
        locks, behind = self._file.locks(), 0
        for slot in range(MAX_PROCESSES):
            if self._words[_SLOTS + slot] < number:
                if locks.acquire(slot):  # its worker is dead, or there never was one
                    locks.release(slot)
                else:
                    behind += 1
        return behind

    def is_watching(self) -> bool:
        """Return whether this worker watches the model file; exactly one worker does."""
        if not self._watching and self._locks is not None:
            self._watching = self._locks.acquire(_WATCH)
        return self._watching

    def see(self, fingerprint: int) -> bool:
        """Store the model file's fingerprint; return whether it differs from the one before."""
        before, self._words[_SEEN] = self._words[_SEEN], fingerprint
        return before != fingerprint

    def count(self, what: str) -> None:
        """Count a "swap", a "threshold" or the reason of a refusal. Only inside `changing`."""
        self._words[_COUNTS + _COUNTED.index(what)] += 1

    def changes(self) -> Changes:
        """Return all counts."""
        swaps, thresholds, *failures = self._words[_COUNTS:_SLOTS]
        return Changes(swaps, thresholds, dict(zip(BadModel.REASONS, failures, strict=True)))

    def _path(self, number: int) -> Path:
        return self._folder / f"{_GENERATION}{number}"

    def _delete_others(self) -> None:
        """Delete all files but the current generation's. A worker that is behind reads that one."""
        for path in self._folder.glob(f"{_GENERATION}[0-9]*"):
            if path != self._path(self.number):
                with suppress(OSError):
                    path.unlink()


def _decode(data: bytes) -> Generation:
    """Read the file of a generation; raise ValueError if it is damaged."""
    if len(data) < _HEAD.size:
        raise ValueError("it is cut short")
    threshold, content_size, card_size, digest = _HEAD.unpack_from(data)
    if sha256(memoryview(data)[_HEAD.size :]).digest() != digest:
        raise ValueError("its check sum is wrong")
    card_start = _HEAD.size + max(content_size, 0)
    content = None if content_size < 0 else data[_HEAD.size : card_start]
    return Generation(threshold, content, None if card_size < 0 else data[card_start:])
