"""The generation, a model and a threshold, that all workers of a service should serve.

A generation is a checked model file with its card, and a threshold, in a file that never changes.
The number of the current one is a word in shared memory; docs/internals/state.md says how workers
follow it. Only the counts of changes outlive the service, in a mapped file.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from ..errors import BadModel, BadSetting, Unavailable
from .double_buffer import DoubleBuffer, fence
from .files import Damaged, delete, read_file, replace_file, writing
from .shared import MAX_PROCESSES, ByteLocks, MappedFile, reset_in_children

FILE_NAME = "swaps.bin"
_GENERATION = "generation-"

# What is counted; a number of the double buffer each, after its sequence.
_COUNTED = ("swap", "threshold", *BadModel.REASONS)
_SIZE = 1 + len(_COUNTED)

# Words of the shared memory: the number of the current generation, the fingerprint that the watch
# saw last, the slots. Locks: one for each slot, one to change anything, one for the watch.
_NUMBER, _SEEN, _SLOTS = range(3)
_WORDS = _SLOTS + MAX_PROCESSES
_CHANGE, _WATCH = MAX_PROCESSES, MAX_PROCESSES + 1

_PATIENCE = 60.0  # seconds to wait for another change: longer than loading a large model takes

# Head of a generation's file: SHA-256 of all that follows; threshold, share (0: none), bytes of
# the model file and of the card (-1: there is none).
_DIGEST, _HEAD = 32, struct.Struct("<ddqq")
_MOST_BYTES = 2**30  # more than the largest model and card take


@dataclass(frozen=True)
class Generation:
    """A model and a threshold to serve."""

    threshold: float
    content: bytes | None = None
    """The model file; None is the model that the service was started with."""
    card: bytes | None = None
    share: float | None = None
    """The share of rows that the threshold was chosen for, if it was."""


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
        layout = {"kind": "swaps", "format": 2, "reasons": list(BadModel.REASONS)}
        self._folder = folder
        size = 8 * DoubleBuffer.words(_SIZE)
        content = memoryview(bytearray(size))
        DoubleBuffer.clear(content.cast("q"), 0, _SIZE)
        path = folder / FILE_NAME
        file = MappedFile.open_or_create(path, layout, size, bytes(content), prove)
        self._counts = _buffer(file)
        self._shared = MappedFile.anonymous({"kind": "generations"}, 8 * _WORDS)
        self._words = self._shared.body.cast("q")
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
        """Wait for the lock for changes and hold it; at the end, delete former generations.

        Unavailable if another change takes too long, or its process is stopped.
        """
        locks = self._shared.locks()
        if not locks.acquire(_CHANGE, _PATIENCE):
            raise Unavailable("another change has not ended yet, so nothing was changed; try again")
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
        with writing(path):
            replace_file(path, _encode(generation))
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
            path = self._path(number)
            try:
                return number, _decode(read_file(path, _MOST_BYTES))
            except (OSError, Damaged) as error:
                if number == self.number:  # else another was published and this one deleted
                    reason = getattr(error, "strerror", None) or error
                    raise Unavailable(
                        f"{path.name} is missing or damaged ({reason}); restart the service"
                    ) from error
        return 0, None

    def register(self) -> None:
        """Acquire a slot, for a worker that has yet to read the current generation."""
        locks = self._shared.locks()
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
        locks, behind = self._shared.locks(), 0
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
        words, _, start = self._counts.begin()
        words[start + 1 + _COUNTED.index(what)] += 1
        self._counts.commit()

    def changes(self) -> Changes:
        """Return all counts."""
        _, swaps, thresholds, *failures = self._counts.read()[0]
        return Changes(swaps, thresholds, dict(zip(BadModel.REASONS, failures, strict=True)))

    def _path(self, number: int) -> Path:
        return self._folder / f"{_GENERATION}{number}"

    def _delete_others(self) -> None:
        """Delete all files but the current generation's. A worker that is behind reads that one."""
        for path in self._folder.glob(f"{_GENERATION}[0-9]*"):
            if path != self._path(self.number):
                with suppress(OSError):
                    delete(path)


def _buffer(file: MappedFile) -> DoubleBuffer:
    return DoubleBuffer(file.body.cast("q"), file.body.cast("d"), 0, _SIZE)


def prove(file: MappedFile) -> None:
    """Raise Damaged if a number in the file is not as it was written."""
    if not _buffer(file).is_whole():
        raise Damaged("its numbers are damaged")


def _encode(generation: Generation) -> list[bytes]:
    """Return the parts of the file of a generation."""
    parts = generation.content, generation.card
    sizes = (-1 if part is None else len(part) for part in parts)
    head = _HEAD.pack(generation.threshold, generation.share or 0.0, *sizes)
    digest = sha256(head)
    for part in parts:
        digest.update(part or b"")
    return [digest.digest(), head, *filter(None, parts)]


def _decode(data: bytes) -> Generation:
    """Read the file of a generation; raise Damaged if any byte is not as it was written."""
    if len(data) < _DIGEST + _HEAD.size:
        raise Damaged("it is cut short")
    if sha256(memoryview(data)[_DIGEST:]).digest() != data[:_DIGEST]:
        raise Damaged("its check sum is wrong")
    threshold, share, content_size, card_size = _HEAD.unpack_from(data, _DIGEST)
    card_start = _DIGEST + _HEAD.size + max(content_size, 0)
    content = None if content_size < 0 else data[_DIGEST + _HEAD.size : card_start]
    card = None if card_size < 0 else data[card_start:]
    return Generation(threshold, content, card, share or None)
