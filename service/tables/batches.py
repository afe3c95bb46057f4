"""Read a table of any size in batches: CSV, Parquet and Arrow, files and standard input.

The same dialects, names and rules as `read`, in memory that does not grow with the table.
"""

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
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cells import name_column
from ..dialects import Dialect, find_decoder, find_dialect
from ..errors import BadInput, count, nearest
from .places import STDIN, is_address, open_place
from .read import Choices, refuse_doubled

if TYPE_CHECKING:
    import pyarrow as pa

_HEAD = 2**20
"""Bytes at the beginning of a CSV text by which its dialect is recognised."""

_BLOCK = 4 * 2**20
"""Bytes of a CSV text that are parsed at a time; no line may be longer."""

_BUFFER = 2**20
"""Bytes of each column of a Parquet file that are read at a time."""


class WrongRow(NamedTuple):
    """A line of a CSV file that has more or fewer cells than the line of names."""

    row: int
    text: str
    """The line."""
    why: str


@dataclass
class Batches:
    """A table that is read in batches, once."""

    place: str
    names: tuple[str, ...]
    """The names of its columns, without blanks around them."""
    schema: pa.Schema
    """Its columns as the file has them; those of a CSV file are texts."""
    rows: int | None = None
    """The number of rows, if the file says it."""
    decimal: str = ""
    """The decimal mark of a CSV file; empty for other files."""
    notes: tuple[str, ...] = ()
    """Sentences about how the file is read."""
    skips: bool = False
    """Whether lines of a CSV file with too many or too few cells go to `wrong`, and raise not."""
    wrong: list[WrongRow] = field(default_factory=list)
    source: Any = None
    """What yields the record batches, or a Parquet file."""
    _file: Any = None
    _size: int = 0

    @property
    def label(self) -> str:
        """The place, for an error."""
        return "standard input" if self.place == STDIN else self.place

    @property
    def is_csv(self) -> bool:
        """Whether all cells are texts of a CSV file."""
        return bool(self.decimal)

    @property
    def groups(self) -> int:
        """The number of parts that `read` can read by themselves; 0 if there are none."""
        return getattr(self.source, "num_row_groups", 0)

    def start(self, group: int) -> int:
        """Return the index of the first row of a part."""
        metadata = self.source.metadata
        return sum(metadata.row_group(i).num_rows for i in range(group))

    def read(
        self,
        columns: Sequence[int],
        rows: int,
        groups: Sequence[int] | None = None,
        threads: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches of at most `rows` rows, with the columns at these places.

        `groups`: only these parts of a Parquet file. `threads`: decode columns at the same time.

        Raises:
            BadInput: the table is damaged; the text names it.
        """
        with translate_faults(self.place):
            if hasattr(self.source, "iter_batches"):
                names = [self.schema.names[j] for j in columns]
                chosen = range(self.groups) if groups is None else groups
                yield from self.source.iter_batches(rows, chosen, names, use_threads=threads)
                return
            for batch in self.source:
                part = batch.select(list(columns))
                for i in range(0, len(part), rows):
                    yield part.slice(i, rows)

    def share_read(self, rows: int) -> float:
        """Return about which share of the table is read, 0 to 1, after so many rows."""
        if self.rows is not None:
            return rows / self.rows if self.rows else 1.0
        with suppress(ValueError, OSError, ZeroDivisionError):  # the size of a pipe is not known
            return float(self._file.tell() / self._size)
        return 0.0

    def number(self, index: int) -> int:
        """Return the row of the file, counted from 0, of the row that was yielded as `index`."""
        for wrong in self.wrong:  # in their order
            if wrong.row > index:
                break
            index += 1
        return index

    def close(self) -> None:
        """Close the file."""
        with suppress(Exception):
            self._file.close()


def open_batches(place: str, choices: Choices | None = None, skips: bool = False) -> Batches:
    """Open a table for reading in batches. What it is, is told by its first bytes.

    Raises:
        BadInput: the text names the place and says what is wrong with it.
    """
    with translate_faults(place):
        file: Any = _open_stdin() if place == STDIN else open_place(place)
        size = 0 if place == STDIN else file.seek(0, io.SEEK_END)
        if size:
            file.seek(0)
        batches = _open(place, file, choices or Choices(), skips)
    batches._file, batches._size = file, size
    refuse_doubled(batches.names, batches.label)
    return batches


@contextmanager
def translate_faults(place: str) -> Iterator[None]:
    """Raise BadInput, with a sentence that names the place, for what keeps it from being read."""
    label = "standard input" if place == STDIN else place
    try:
        yield
    except BadInput as error:
        text = str(error)
        raise BadInput(text if label in text else f"{label} cannot be read: {text}") from error
    except ImportError as error:
        what = "pyarrow" if "pyarrow" in str(error) else "a library"
        raise BadInput(
            f"{label} is read with {what}, which is not installed ({error}): "
            "pip install 'isoserve[bulk]'"
        ) from error
    except FileNotFoundError as error:
        siblings: list[str] = []
        if not is_address(place):
            with suppress(OSError):
                siblings = [one.name for one in Path(place).parent.iterdir()]
        raise BadInput(f"there is no file {label}{nearest(Path(place).name, siblings)}") from error
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split()) or "it is damaged"
        raise BadInput(f"{label} cannot be read: {why}") from error


def _open(place: str, file: Any, choices: Choices, skips: bool) -> Batches:
    stream = _Stream(file)
    if packed := next((p for mark, p in _PACKED.items() if stream.head(4) == mark), None):
        stream = _Stream(packed(stream))
    elif stream.head(2) == b"\x1f\x8b":
        stream = _Stream(_inflate(stream))
    head = stream.head(8)
    if head.startswith(b"PAR1"):
        return _open_parquet(place, _seekable(file, stream))
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return _open_arrow(place, file, stream)
    if Path(place).suffix.lower() in (".parquet", ".pq", ".arrow", ".feather"):
        kind = "Arrow" if Path(place).suffix.lower() in (".arrow", ".feather") else "Parquet"
        raise BadInput(f"{place} is no {kind} file, or its beginning is lost")
    return _open_csv(place, stream, choices, skips)


def _open_stdin() -> Any:
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


class _Stream(io.RawIOBase):
    """A file or pipe whose first bytes can be looked at before they are read."""

    def __init__(self, raw: Any) -> None:
        self._raw, self._held = raw, b""
        self.is_touched = False

    def head(self, n: int) -> bytes:
        """Return up to `n` bytes that are read next, fewer only at the end."""
        while len(self._held) < n and (more := self._raw.read(n - len(self._held))):
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


def _inflate(stream: _Stream) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return pa.CompressedInputStream(stream, "gzip")


def _unzstd(stream: _Stream) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return pa.CompressedInputStream(stream, "zstd")


def _unzip(stream: _Stream) -> Any:
    archive = zipfile.ZipFile(_spool(stream))
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if "[Content_Types].xml" in names:
        raise BadInput("it is an Excel workbook; save the sheet as CSV (File, Save As, CSV UTF-8)")
    if len(names) != 1:
        raise BadInput(f"it holds {count(len(names), 'file')}; pack a single one")
    return archive.open(names[0])


def _refuse_old_excel(stream: _Stream) -> Any:
    raise BadInput("it is an Excel workbook; save the sheet as CSV (File, Save As, CSV UTF-8)")


_PACKED = {
    b"\x28\xb5\x2f\xfd": _unzstd,
    b"PK\x03\x04": _unzip,
    b"\xd0\xcf\x11\xe0": _refuse_old_excel,
}


def _spool(stream: _Stream) -> Any:
    """Copy a stream into a nameless file, which seeks."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- the reader closes it
    shutil.copyfileobj(stream, file)
    file.seek(0)
    return file


def _seekable(file: Any, stream: _Stream) -> Any:
    """Return the file itself if it was only looked at, and seeks; else a copy of the stream."""
    if stream._raw is file and file.seekable():
        file.seek(0)
        return file
    return _spool(stream)


def _open_parquet(place: str, file: Any) -> Batches:
    from pyarrow import parquet  # noqa: PLC0415

    source = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
    schema = source.schema_arrow.remove_metadata()
    batches = Batches(place, _own_names(schema.names), schema, source.metadata.num_rows)
    batches.source = source
    return batches


def _open_arrow(place: str, file: Any, stream: _Stream) -> Batches:
    import pyarrow as pa  # noqa: PLC0415

    if stream.head(6) == b"ARROW1":
        source: Any = pa.ipc.open_file(_seekable(file, stream))
        parts: Any = (source.get_batch(i) for i in range(source.num_record_batches))
    else:
        parts = source = pa.ipc.open_stream(stream)
    schema = source.schema.remove_metadata()
    batches = Batches(place, _own_names(schema.names), schema)
    batches.source = parts
    return batches


def _own_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns; an index without a name that pandas stored has none."""
    return tuple(
        name_column(j) if name.startswith("__index_level_") else name.strip()
        for j, name in enumerate(names)
    )


def _open_csv(place: str, stream: _Stream, choices: Choices, skips: bool) -> Batches:
    import pyarrow as pa  # noqa: PLC0415

    head = stream.head(_HEAD)
    if head.lstrip()[:1] in (b"{", b"["):
        raise BadInput("it is JSON; tables are CSV, Parquet or Arrow files")
    decoder, note = find_decoder(head, choices.encoding, is_whole=len(head) < _HEAD)
    text = _Text(stream, decoder)
    dialect = find_dialect(text.head, choices.separator, choices.decimal)
    names = text.read_names(dialect)
    if not names:
        raise BadInput("it is empty")
    own = tuple(name or name_column(j) for j, name in enumerate(names))
    schema = pa.schema([(name, pa.string()) for name in own])
    notes = ((f"{note}; another encoding: --encoding",) if note else ()) + dialect.notes
    batches = Batches(place, own, schema, None, dialect.decimal, notes, skips)
    batches.source = _csv_batches(batches, text, dialect)
    return batches


class _Text(io.RawIOBase):
    """A text in any encoding, read as UTF-8 from behind the line of names."""

    def __init__(self, stream: _Stream, decoder: codecs.IncrementalDecoder) -> None:
        self._stream, self._decoder = stream, decoder
        start = stream.read(_HEAD)
        self.head = decoder.decode(start, final=not start).removeprefix("\ufeff")
        self._held = b""
        held, _ = decoder.getstate()
        self._is_plain = type(decoder).__module__ in ("encodings.utf_8", "encodings.utf_8_sig")
        self._rest = held if self._is_plain else b""

    def read_names(self, dialect: Dialect) -> list[str]:
        """Return the names in the first line that is not blank; what is read next comes after."""
        file = io.StringIO(self.head, newline="")
        file.seek(dialect.skip)
        lines = csv.reader(file, delimiter=dialect.separator)
        names = next((line for line in lines if line), [])
        self._held = self.head[file.tell() :].encode() + self._rest
        self.head = ""
        return [name.strip() for name in names]

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, n: int = -1) -> bytes:
        """Read about `n` bytes of UTF-8; none only at the end."""
        if self._held:
            part, self._held = self._held[:n], self._held[n:]
            return part
        if self._is_plain:
            return self._stream.read(n)
        while chunk := self._stream.read(n):
            if text := self._decoder.decode(chunk):
                self._held = text.encode()[n:]
                return text.encode()[:n]
        return self._decoder.decode(b"", final=True).encode()


def _csv_batches(batches: Batches, text: _Text, dialect: Dialect) -> Iterator[pa.RecordBatch]:
    """Yield the rows as texts, as they are in the file; blank lines are skipped."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv as reader  # noqa: PLC0415

    if not (first := text.read(_BLOCK)).strip():
        text._held = text.read(_BLOCK)
        if not (first + text._held).strip():
            return
    text._held = first + text._held
    width = len(batches.names) + dialect.extra
    columns = [f"c{j}" for j in range(width)]
    wrong: list[WrongRow] = batches.wrong

    def note(row: Any) -> str:
        why = f"{count(row.actual_columns, 'cell')}, the line of names {width}"
        wrong.append(WrongRow(row.number - 1, row.text, why))
        return "skip" if batches.skips else "error"

    texts = reader.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
    )
    parse = reader.ParseOptions(
        delimiter=dialect.separator, newlines_in_values=True, invalid_row_handler=note
    )
    # With one thread, because only then does a wrong row have its number.
    options = reader.ReadOptions(column_names=columns, use_threads=False, block_size=_BLOCK)
    try:
        for batch in reader.open_csv(text, options, parse, texts):
            yield pa.record_batch(batch.columns[: len(batches.names)], schema=batches.schema)
    except ValueError as error:
        if wrong and not batches.skips:
            raise _wrong_width(batches.label, wrong[0], dialect) from error
        if "UTF8" in str(error):
            raise BadInput(
                f"{batches.label} begins as UTF-8 and goes on in another encoding; say which: "
                "--encoding latin-1"
            ) from error
        raise


def _wrong_width(label: str, row: WrongRow, dialect: Dialect) -> BadInput:
    mark = "comma" if dialect.separator == "," else "separator"
    return BadInput(
        f"{label}, row {row.row:,} (the first is 0) has {row.why}; cells with a {mark} in them "
        "need quotes; another separator: --sep"
    )
