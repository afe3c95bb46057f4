"""The bytes of a table before it is parsed: standard input, packed files, texts in any encoding."""

from __future__ import annotations

import codecs
import csv
import io
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import zipfile
from typing import Any

from ..dialects import Dialect
from ..errors import BadInput, count

_BUFFER = 2**20
"""Bytes that are read at a time where all of standard input is."""

HEAD = 2**20
"""Bytes at the beginning of a CSV text by which its dialect is recognised."""

WHOLE = 2**62
"""More bytes than any text has."""

_EXCEL = (
    "it is an Excel workbook; save the sheet as CSV (File, Save As, CSV UTF-8), or in Python: "
    "pandas.read_excel(...).to_csv(..., index=False)"
)

_PIECE = 2**24  # bytes that are read at a time


def open_stdin() -> Any:
    """Return standard input as a file whose reads end when a signal comes."""
    try:
        return _StandardInput(sys.stdin.fileno())
    except (OSError, ValueError):  # no file of the system: a program has replaced it
        return sys.stdin.buffer


class _StandardInput(io.RawIOBase):
    """Standard input; a read that waits fails when a signal comes.

    Arrow reads in threads of its own, and the main thread waits for them: it would not handle the
    signal until there is something to read.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._signals = -1
        if threading.current_thread() is threading.main_thread():
            self._signals, written = os.pipe()
            os.set_blocking(written, False)
            signal.set_wakeup_fd(written, warn_on_full_buffer=False)

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, n: int = -1) -> bytes:
        """Read what is there, at most `n` bytes; none only at the end."""
        if n is None or n < 0:
            return b"".join(iter(lambda: self.read(_BUFFER), b""))
        waiting = [self._number] + ([self._signals] if self._signals >= 0 else [])
        if self._signals in select.select(waiting, [], [])[0]:
            raise InterruptedError(None, "a signal came")
        return os.read(self._number, n)


class Stream(io.RawIOBase):
    """A file or pipe whose first bytes can be looked at before they are read."""

    def __init__(self, raw: Any, files: list[Any] | None = None) -> None:
        self._raw, self._held = raw, b""
        self.files = [raw] if files is None else files
        """What is to be closed when it has been read."""

    def head(self, n: int) -> bytes:
        """Return up to `n` bytes that are read next, fewer only at the end."""
        while len(self._held) < n and (more := self._raw.read(min(n - len(self._held), _PIECE))):
            self._held += more
        return self._held[:n]

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, n: int = -1) -> bytes:
        """Read `n` bytes, fewer only at the end or from a pipe."""
        if n is None or n < 0:
            held, self._held = self._held, b""
            return held + bytes(self._raw.read())
        if self._held:
            part, self._held = self._held[:n], self._held[n:]
            return part
        return bytes(self._raw.read(n))


def unpack(stream: Stream) -> Stream:
    """Return what a stream holds, unpacked if it is packed with gzip, zip or zstd.

    BadInput if it is an Excel workbook, or a zip of several files.
    """
    for mark, opened in _PACKED.items():
        if stream.head(len(mark)) == mark:
            return Stream(opened(stream), stream.files)
    return stream


def _inflate(stream: Stream) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return pa.CompressedInputStream(stream, "gzip")


def _unzstd(stream: Stream) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return pa.CompressedInputStream(stream, "zstd")


def _unzip(stream: Stream) -> Any:
    archive = zipfile.ZipFile(_spool(stream))
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if "[Content_Types].xml" in names:
        raise BadInput(_EXCEL)
    if len(names) != 1:
        raise BadInput(f"it holds {count(len(names), 'file')}; pack a single one")
    return archive.open(names[0])


def _refuse_old_excel(stream: Stream) -> Any:
    raise BadInput(_EXCEL)


_PACKED = {
    b"\x1f\x8b": _inflate,
    b"\x28\xb5\x2f\xfd": _unzstd,
    b"PK\x03\x04": _unzip,
    b"\xd0\xcf\x11\xe0": _refuse_old_excel,
}


def _spool(stream: Stream) -> Any:
    """Copy a stream into a nameless file, which seeks."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- the reader closes it
    stream.files.append(file)
    shutil.copyfileobj(stream, file)
    file.seek(0)
    return file


def seekable(file: Any, stream: Stream) -> Any:
    """Return the file itself if it was only looked at, and seeks; else a copy of the stream."""
    if stream._raw is file and file.seekable():
        file.seek(0)
        return file
    return _spool(stream)


class Text(io.RawIOBase):
    """A text in any encoding, read as UTF-8 from behind the line of names."""

    def __init__(self, stream: Stream, decoder: codecs.IncrementalDecoder, look: int) -> None:
        self._stream, self._decoder = stream, decoder
        start = stream.head(look)
        stream.read(len(start))
        self.head = decoder.decode(start, final=not start).removeprefix("\ufeff")
        self._held = io.BytesIO()
        held, _ = decoder.getstate()
        self._is_plain = type(decoder).__module__ in ("encodings.utf_8", "encodings.utf_8_sig")
        self._rest = held if self._is_plain else b""

    def read_names(self, dialect: Dialect) -> list[str]:
        """Return the names in the first line that is not blank; what is read next comes after."""
        file = io.StringIO(self.head, newline="")
        file.seek(dialect.skip)
        lines = csv.reader(file, delimiter=dialect.separator)
        names = next((line for line in lines if line), [])
        self._held = io.BytesIO(self.head[file.tell() :].encode() + self._rest)
        self.head = ""
        return [name.strip() for name in names]

    def has_rows(self, n: int) -> bool:
        """Return whether the next `n` bytes or so, which stay unread, are more than blanks."""
        begin = self.read(n)
        if not begin.strip():
            begin += self.read(n)
        self._held = io.BytesIO(begin + self._held.read())
        return bool(begin.strip())

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, n: int = -1) -> bytes:
        """Read about `n` bytes of UTF-8; none only at the end."""
        if part := self._held.read(n):
            return part
        if self._is_plain:
            return self._stream.read(n)
        while chunk := self._stream.read(n):
            if text := self._decoder.decode(chunk):
                self._held = io.BytesIO(text.encode())
                return self._held.read(n)
        return self._decoder.decode(b"", final=True).encode()
