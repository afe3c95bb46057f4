"""Memory and locks that the workers of a service share, and what a forked process resets.

docs/internals/state.md says which guarantees of the kernel this relies on. A mapped file begins
with a header: a magic word, check sum and length of a JSON text, and that text, its layout.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

from ..errors import BadSetting
from .files import MOST_QUARANTINED, Damaged, delete, open_file, quarantine, sync_folder

MAX_PROCESSES = 64
"""The most workers at one time, including new workers that replace old ones."""

_MAGIC = b"isoserve"
_HEAD = struct.Struct("<8sII")  # magic, check sum of the text, its length in bytes
_PAGE = 4096
_MOST_BYTES = 2**30  # more than any mapped file has

# struct flock of Linux on 64 bits: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x")


class MappedFile:
    """Memory shared with forked processes and with every process that maps the file."""

    def __init__(self, file: int, layout: dict[str, Any]) -> None:
        """Map an open file whose header contains `layout`."""
        self.layout = layout
        self._file = file
        self.memory = mmap.mmap(file, os.fstat(file).st_size)
        self.start = len(_header(layout))
        """Offset of the first byte after the header."""
        self.body = memoryview(self.memory)[self.start :]
        weakref.finalize(self, os.close, file)

    @classmethod
    def anonymous(cls, layout: dict[str, Any], size: int, content: bytes = b"") -> MappedFile:
        """Create `size` bytes of memory without a file: `content`, then zeros."""
        file = os.memfd_create("isoserve")
        _write_new(file, layout, size, content)
        return cls(file, layout)

    @classmethod
    def create(
        cls, path: Path, layout: dict[str, Any], size: int, content: bytes = b""
    ) -> MappedFile:
        """Create a file of `size` bytes, which are `content` and then zeros; no part is a hole.

        Raises:
            BadSetting: the disk has no room for it.
        """
        unfinished = path.with_name(f"{path.name}.new")
        try:
            delete(unfinished)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            file = os.open(unfinished, flags, 0o600)
            try:
                _write_new(file, layout, size, content)
                os.fsync(file)
                unfinished.rename(path)
                sync_folder(path.parent)
            except OSError:
                os.close(file)
                unfinished.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise BadSetting(
                f"ISOSERVE_STATE_DIR: {path} cannot be created ({error.strerror}); it needs "
                f"{size:,} bytes"
            ) from error
        return cls(file, layout)

    @classmethod
    def open(
        cls, path: Path, layout: dict[str, Any] | None = None, size: int | None = None
    ) -> MappedFile:
        """Map an existing file, with this layout and as many bytes after it, where given.

        Raises:
            OSError: the file does not exist, may not be read and written, or has holes that the
                disk has no room for: writing there later would kill the process.
            Damaged: it is another file than that.
        """
        file = open_file(path)
        try:
            found = _read_layout(file)
            _check(file, found, layout, size)
            os.posix_fallocate(file, 0, os.fstat(file).st_size)
            return cls(file, found)
        except (OSError, ValueError):
            os.close(file)
            raise

    @classmethod
    def open_or_create(  # noqa: PLR0913, PLR0917 - the layout of a file, and what proves it
        cls,
        path: Path,
        layout: dict[str, Any],
        size: int,
        content: bytes = b"",
        prove: Callable[[MappedFile], None] = lambda file: None,
        rescue: Callable[[Path], bytes] = lambda path: b"",
    ) -> MappedFile:
        """Map the file at `path`, or create it: `size` bytes, which are `content` and then zeros.

        A file with a damaged header, another layout or another size, or for which `prove` raises
        Damaged, is quarantined. A new one begins with what `rescue` returns, if anything.

        Raises:
            BadSetting: the file cannot be opened, or the disk has no room for it.
        """
        layout = layout | {"byte order": sys.byteorder}
        try:
            found = cls.open(path, layout, size)
            prove(found)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise BadSetting(
                f"ISOSERVE_STATE_DIR: {path} cannot be opened ({error.strerror})"
            ) from error
        except Damaged as error:
            content = rescue(path) or content
            quarantine(path, str(error), MOST_QUARANTINED)
        else:
            return found
        return cls.create(path, layout, size, content)

    def locks(self) -> ByteLocks:
        """Return locks that belong to this process alone, even if a parent opened the file."""
        return ByteLocks(os.open(f"/proc/self/fd/{self._file}", os.O_RDWR | os.O_CLOEXEC))


class ByteLocks:
    """Numbered locks, held by this object until they are released or the process ends.

    They are open file description locks on single bytes of a file; nothing is read or written.
    Two objects in one process exclude each other as two processes do.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        weakref.finalize(self, os.close, file)

    def acquire(self, number: int, wait: float = 0.0) -> bool:
        """Lock; return False if another object still holds the lock after `wait` seconds.

        Its process may be stopped, so nobody waits without end.
        """
        end = time.monotonic() + wait
        while True:
            try:
                self._call(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, number)
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= end:
                    return False
                time.sleep(0.002)
            else:
                return True

    def acquire_first(self, count: int) -> int:
        """Lock the first of `count` locks that is free and return its number; -1 if none is."""
        return next((number for number in range(count) if self.acquire(number)), -1)

    def is_held(self, number: int) -> bool:
        """Return whether another object holds this lock."""
        found = self._call(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, number)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)

    def release(self, number: int) -> None:
        """Unlock."""
        self._call(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, number)

    def _call(self, command: int, kind: int, number: int) -> bytes:
        return fcntl.fcntl(self._file, command, _FLOCK.pack(kind, 0, number, 1, 0))


_registered: weakref.WeakSet[Any] = weakref.WeakSet()


def reset_in_children(thing: Any) -> None:
    """Call `thing.reset_after_fork()` now and in every process forked from this one.

    It drops the locks and connections that two processes must not share.
    """
    thing.reset_after_fork()
    _registered.add(thing)


def _reset_all() -> None:
    for thing in list(_registered):
        thing.reset_after_fork()


os.register_at_fork(after_in_child=_reset_all)


def clock_offset_after(stamp: int) -> int:
    """Return what to add to `time.monotonic_ns()` to get stamps greater than `stamp`.

    That clock is the same in all processes and no change of the system time affects it, but it
    starts again at each boot.
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
        raise Damaged("it is cut short")
    magic, check, length = _HEAD.unpack(start)
    if magic != _MAGIC:
        raise Damaged("it is not a state file of isoserve")
    text = os.pread(file, min(length, os.fstat(file).st_size), _HEAD.size)
    if crc32(text) != check:
        raise Damaged("its header is damaged")
    layout: dict[str, Any] = json.loads(text)
    if os.fstat(file).st_size < len(_header(layout)):
        raise Damaged("it is cut short")
    return layout


def _check(
    file: int, found: dict[str, Any], layout: dict[str, Any] | None, size: int | None
) -> None:
    """Raise Damaged if this is not the file that is expected."""
    if layout is not None and found != layout:
        changed = [key for key in layout if found.get(key) != layout[key]]
        raise Damaged(f"its layout is different ({', '.join(changed)})")
    has, start = os.fstat(file).st_size, len(_header(found))
    if size is not None and has != start + size:
        raise Damaged(f"it has {has:,} bytes, not {start + size:,}")


def read_mapped(path: Path, most: int | None = None) -> tuple[dict[str, Any], bytes]:
    """Return the layout of a file, and at most `most` of the bytes after it that are there.

    Raises:
        OSError: the file cannot be read.
        Damaged: its header is damaged.
    """
    file = open_file(path, os.O_RDONLY)
    with os.fdopen(file, "rb") as stream:
        layout = _read_layout(file)
        stream.seek(len(_header(layout)))
        return layout, stream.read(_MOST_BYTES if most is None else most)


def write_back(path: Path, layout: dict[str, Any], body: memoryview) -> None:
    """Overwrite what an existing file has after its header, and wait until it is on the disk."""
    with os.fdopen(open_file(path), "r+b") as stream:
        stream.seek(len(_header(layout)))
        stream.write(body)
        stream.flush()
        os.fsync(stream.fileno())


def pack_mapped(layout: dict[str, Any], *body: memoryview) -> list[bytes | memoryview]:
    """Return the parts of a mapped file, for `replace_file`."""
    return [_header(layout), *body]
