"""The state folder: one service at a time, and files that all its workers map into memory.

Three things hold the state together, and the kernel keeps each of them through a `kill -9`:

- a mapped file is the same memory in every worker, and what was stored there stays;
- a lock belongs to an open file, and is released when the last process that has it open dies;
- an aligned store of 8 bytes is one step: another process sees the old number or the new one.

A mapped file begins with a header: a magic word, the check sum and length of a JSON text, and that
text, which describes the layout of the rest. The file is made under another name, allocated in full
(a hole on a full disk would kill the process that writes into it), and then renamed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import platform
import struct
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

from ..errors import BadSetting
from .folder import MOST_QUARANTINED, quarantine

logger = logging.getLogger(__name__)

MAX_PROCESSES = 64
"""Workers at one moment, those of a reload under way included."""


_MAGIC = b"isoserve"
_HEAD = struct.Struct("<8sII")  # magic, check sum of the text, its length in bytes
_PAGE = 4096

# struct flock of Linux on 64 bits: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x")

OUT_OF_ORDER = platform.machine() not in {"x86_64", "AMD64"}
"""Whether other cores may see loads and stores in another order than the program's, as on arm64."""

_fence_lock = threading.Lock()


def fence() -> None:
    """Let no load or store pass this point, as other processes see it.

    Python has no such instruction, but a lock has: nothing moves down over its release nor up over
    the next acquisition.
    """
    with _fence_lock:
        pass
    with _fence_lock:
        pass


class MappedFile:
    """Memory that this process shares with the ones it forks, and with whoever maps the file."""

    def __init__(self, file: int, layout: dict[str, Any], path: Path | None = None) -> None:
        """Map an open file whose header says `layout`."""
        self.layout = layout
        self.path = path
        self._file = file
        self.memory = mmap.mmap(file, os.fstat(file).st_size)
        self.start = len(_header(layout))
        """Where the bytes after the header begin."""
        weakref.finalize(self, os.close, file)

    @classmethod
    def anonymous(cls, layout: dict[str, Any], size: int, content: bytes = b"") -> MappedFile:
        """Make `size` bytes, `content` and then zeros, that live as long as who shares them."""
        file = os.memfd_create("isoserve")
        _write_new(file, layout, size, content)
        return cls(file, layout)

    @classmethod
    def create(
        cls, path: Path, layout: dict[str, Any], size: int, content: bytes = b""
    ) -> MappedFile:
        """Make a file of `size` bytes after its header: `content`, and then zeros.

        Raises:
            BadSetting: there is no room for it.
        """
        unfinished = path.with_name(f"{path.name}.new")
        file = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_new(file, layout, size, content)
            os.fsync(file)
            unfinished.rename(path)
        except OSError as error:
            os.close(file)
            unfinished.unlink(missing_ok=True)
            raise BadSetting(
                f"ISOSERVE_STATE_DIR: {path} cannot be made ({error.strerror}); it needs "
                f"{size:,} bytes"
            ) from error
        return cls(file, layout, path)

    @classmethod
    def open(cls, path: Path) -> MappedFile:
        """Map a file as it is.

        Raises:
            OSError: there is no such file, or it may not be read and written.
            ValueError: its header is damaged; the text says how.
        """
        file = os.open(path, os.O_RDWR)
        try:
            return cls(file, _read_layout(file), path)
        except ValueError:
            os.close(file)
            raise

    @classmethod
    def open_or_create(
        cls, path: Path, layout: dict[str, Any], size: int, content: bytes = b""
    ) -> MappedFile:
        """Map the file at `path`; one with a damaged header or another layout is set aside."""
        try:
            found = cls.open(path)
        except FileNotFoundError:
            return cls.create(path, layout, size, content)
        except OSError as error:
            raise BadSetting(
                f"ISOSERVE_STATE_DIR: {path} cannot be opened ({error.strerror})"
            ) from error
        except ValueError as error:
            quarantine(path, str(error), MOST_QUARANTINED)
            return cls.create(path, layout, size, content)
        if found.layout != layout:
            changed = [key for key in layout if found.layout.get(key) != layout[key]]
            quarantine(path, f"its layout is another one ({', '.join(changed)})", MOST_QUARANTINED)
            return cls.create(path, layout, size, content)
        if len(found.memory) != found.start + size:
            reason = f"it has {len(found.memory):,} bytes, not {found.start + size:,}"
            quarantine(path, reason, MOST_QUARANTINED)
            return cls.create(path, layout, size, content)
        return found

    def locks(self) -> ByteLocks:
        """Return locks that belong to this process alone, whoever opened the file."""
        return ByteLocks(os.open(f"/proc/self/fd/{self._file}", os.O_RDWR | os.O_CLOEXEC))


class ByteLocks:
    """Locks named by a number, kept by the kernel until this process gives them back or dies.

    They are open file description locks on single bytes of a file; nothing is read or written.
    Two objects in one process exclude each other as two processes do.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        weakref.finalize(self, os.close, file)

    def take(self, number: int, wait: bool = False) -> bool:
        """Lock; return False if somebody else has it."""
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(self._file, command, _FLOCK.pack(fcntl.F_WRLCK, 0, number, 1, 0))
        except OSError as error:
            if isinstance(error, (BlockingIOError, PermissionError)):
                return False
            raise
        return True

    def is_taken(self, number: int) -> bool:
        """Tell whether somebody else has this lock."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, 0, number, 1, 0)
        found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, asked)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)

    def give_back(self, number: int) -> None:
        """Unlock."""
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, 0, number, 1, 0))


class DoubleBuffer:
    """Numbers that change together, for any number of readers and one writer at a time.

    It lies in shared memory as a selector and two copies of the numbers:

        selector | sequence, numbers, check | sequence, numbers, check

    Copy `selector % 2` is live. To change a cell, a writer copies the live numbers over the idle
    copy, changes them there, writes the idle copy's sequence (the selector plus one) and check sum,
    and then stores selector plus one: one aligned store of 8 bytes. Whatever the instruction at
    which a writer is killed, the live copy is whole: the old numbers before that store, the new
    ones after it. What it left half done is in the idle copy, which the next writer begins by
    writing over.

    A reader notes the selector, reads the live copy, and looks at the selector again. If it has not
    moved then no writer has begun to write over what was read, and the numbers belong together;
    else the reader reads again. A dead or stopped writer moves no selector, so nobody ever waits.
    """

    __slots__ = ("_copies", "_floats", "_selector", "_size", "_words")

    def __init__(
        self, words: memoryview[int], floats: memoryview[float], place: int, size: int
    ) -> None:
        """Lay a cell of `size` numbers, the sequence included, over the words at `place`."""
        self._words, self._floats = words, floats
        self._selector = place
        self._copies = (place + 1, place + 1 + size + 1)
        self._size = size

    @staticmethod
    def words(size: int) -> int:
        """Return how many words a cell of `size` numbers takes."""
        return 1 + 2 * (size + 1)

    def begin(self) -> tuple[memoryview[int], memoryview[float], int]:
        """Make the idle copy equal to the live one and return where it begins, to be changed."""
        words, size = self._words, self._size
        selector = words[self._selector]
        live, idle = self._copies[selector & 1], self._copies[~selector & 1]
        words[idle : idle + size] = words[live : live + size]
        words[idle] = selector + 1
        return words, self._floats, idle

    def commit(self) -> None:
        """Make the idle copy the live one."""
        words, size = self._words, self._size
        selector = words[self._selector]
        idle = self._copies[~selector & 1]
        words[idle + size] = crc32(words[idle : idle + size])
        if OUT_OF_ORDER:
            fence()
        words[self._selector] = selector + 1

    def read(self) -> tuple[list[int], list[float]]:
        """Return the live numbers, as integers and as floats: each place is one or the other."""
        words, size = self._words, self._size
        while True:
            selector = words[self._selector]
            if OUT_OF_ORDER:
                fence()
            live = self._copies[selector & 1]
            numbers = memoryview(bytes(words[live : live + size]))
            if OUT_OF_ORDER:
                fence()
            if words[self._selector] == selector:
                return list(numbers.cast("q")), list(numbers.cast("d"))

    def read_pair(self) -> tuple[int, int]:
        """Return the first two live numbers: `read` for those in a hurry."""
        words = self._words
        while True:
            selector = words[self._selector]
            if OUT_OF_ORDER:
                fence()
            live = self._copies[selector & 1]
            pair = words[live + 1], words[live + 2]
            if OUT_OF_ORDER:
                fence()
            if words[self._selector] == selector:
                return pair

    def is_used(self) -> bool:
        """Tell whether anything was ever written."""
        return self._words[self._selector] != 0

    def is_whole(self) -> bool:
        """Tell whether the live copy is what a writer left there."""
        words, size = self._words, self._size
        selector = words[self._selector]
        live = self._copies[selector & 1]
        return words[live] == selector and words[live + size] == crc32(words[live : live + size])


class HoldsProcessState(Protocol):
    """Something that holds what belongs to one process."""

    def reset_after_fork(self) -> None:
        """Let go of it; called in a child just forked, before it has a second thread."""


_forgetful: weakref.WeakSet[Any] = weakref.WeakSet()


def reset_in_children(thing: HoldsProcessState) -> None:
    """Have `thing.reset_after_fork()` called in every process forked from this one."""
    _forgetful.add(thing)


def _forget_all() -> None:
    for thing in list(_forgetful):
        thing.reset_after_fork()


os.register_at_fork(after_in_child=_forget_all)


def clock_offset_after(stamp: int) -> int:
    """Return what to add to `time.monotonic_ns()` so that it goes on after `stamp`.

    That clock is the same in all processes and no setting of the time moves it, but it starts
    again at each boot of the machine.
    """
    return max(0, stamp + 1 - time.monotonic_ns())


def _header(layout: dict[str, Any]) -> bytes:
    text = json.dumps(layout, sort_keys=True).encode()
    header = _HEAD.pack(_MAGIC, crc32(text), len(text)) + text
    return header + bytes(-len(header) % _PAGE)


def _write_new(file: int, layout: dict[str, Any], size: int, content: bytes) -> None:
    start = _header(layout) + content
    os.posix_fallocate(file, 0, len(start) - len(content) + size)
    os.pwrite(file, start, 0)


def _read_layout(file: int) -> dict[str, Any]:
    start = os.pread(file, _HEAD.size, 0)
    if len(start) < _HEAD.size:
        raise ValueError("it is cut short")
    magic, check, length = _HEAD.unpack(start)
    if magic != _MAGIC:
        raise ValueError("it is not a state file of isoserve")
    text = os.pread(file, min(length, os.fstat(file).st_size), _HEAD.size)
    if crc32(text) != check:
        raise ValueError("its header is damaged")
    layout: dict[str, Any] = json.loads(text)
    if os.fstat(file).st_size < len(_header(layout)):
        raise ValueError("it is cut short")
    return layout
