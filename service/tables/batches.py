"""Read a table of any size in batches: CSV, Parquet and Arrow, files and standard input.

The same dialects, names and rules as `read`, in memory that does not grow with the table.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cells import name_column
from ..dialects import Dialect, find_decoder, find_dialect
from ..errors import BadInput, count, nearest
from .places import STDIN, is_address, open_place
from .streams import HEAD, WHOLE, Stream, Text, open_stdin, seekable, unpack

if TYPE_CHECKING:
    import pyarrow as pa

Place = Path | str
"""Where a table lies: a path, or an address of fsspec."""

_BLOCK = 4 * 2**20
"""Bytes of a CSV text that are parsed at a time; no line may be longer."""

_BUFFER = 2**20
"""Bytes of each column of a Parquet file that are read at a time."""


@dataclass(frozen=True)
class Choices:
    """How a CSV file is read, where it is not to be recognised."""

    separator: str = ""
    decimal: str = ""
    encoding: str = ""


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
    """Whether a CSV file's lines with too many or too few cells are collected in `wrong`; else the
    first one raises."""
    wrong: list[WrongRow] = field(default_factory=list)
    source: Any = None
    """What yields the record batches, or a Parquet file."""
    _file: Any = None
    _files: Sequence[Any] = ()
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
        _close(self._files)


def open_batches(
    place: str, choices: Choices | None = None, skips: bool = False, is_small: bool = False
) -> Batches:
    """Open a table for reading in batches. Its first bytes decide what it is.

    `is_small`: recognise the encoding and the separators of a CSV file by all of it.

    Raises:
        BadInput: the text names the place and says what is wrong with it.
    """
    with translate_faults(place):
        file: Any = open_stdin() if place == STDIN else open_place(place)
        size = 0 if place == STDIN else file.seek(0, io.SEEK_END)
        if size:
            file.seek(0)
        stream, look = Stream(file), WHOLE if is_small else HEAD
        try:
            batches = _open(place, file, unpack(stream), choices or Choices(), skips, look)
            refuse_doubled(batches.names, batches.label)
        except BaseException:
            _close(stream.files)
            raise
    batches._file, batches._size, batches._files = file, size, stream.files
    return batches


def _close(files: Sequence[Any]) -> None:
    for file in files:
        with suppress(Exception):
            file.close()


def refuse_doubled(names: Sequence[str], place: Place) -> None:
    """Raise BadInput where two columns have one name; a doubled number is a cell and no name."""
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if not doubled:
        return
    try:
        float(doubled[0])
    except ValueError:
        raise BadInput(f"{place} has two columns named {doubled[0]!r}; rename one") from None
    raise BadInput(
        f"the first line of {place} is taken for the names of the columns, and {doubled[0]!r} is "
        "in it twice; add a line of names before the rows"
    )


@contextmanager
def translate_faults(place: str) -> Iterator[None]:
    """Raise BadInput, with a sentence that names the place, for what keeps it from being read."""
    label = "standard input" if place == STDIN else place
    try:
        yield
    except BadInput as error:
        text = str(error)
        if text.startswith("it "):
            text = f"{label} {text[3:]}"
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


def _open(  # noqa: PLR0913, PLR0917 - what a table is, and how it is read
    place: str, file: Any, stream: Stream, choices: Choices, skips: bool, look: int
) -> Batches:
    head = stream.head(8)
    if head.startswith(b"PAR1"):
        return _open_parquet(place, seekable(file, stream))
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return _open_arrow(place, file, stream)
    if Path(place).suffix.lower() in (".parquet", ".pq", ".arrow", ".feather"):
        kind = "Arrow" if Path(place).suffix.lower() in (".arrow", ".feather") else "Parquet"
        raise BadInput(f"{place} is no {kind} file, or its beginning is lost")
    return _open_csv(place, stream, choices, skips, look)


def _open_parquet(place: str, file: Any) -> Batches:
    from pyarrow import parquet  # noqa: PLC0415

    source = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
    schema = source.schema_arrow.remove_metadata()
    batches = Batches(place, _own_names(schema.names), schema, source.metadata.num_rows)
    batches.source = source
    return batches


def _open_arrow(place: str, file: Any, stream: Stream) -> Batches:
    import pyarrow as pa  # noqa: PLC0415

    if stream.head(6) == b"ARROW1":
        source: Any = pa.ipc.open_file(seekable(file, stream))
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


def _open_csv(place: str, stream: Stream, choices: Choices, skips: bool, look: int) -> Batches:
    import pyarrow as pa  # noqa: PLC0415

    head = stream.head(look)
    if head.lstrip()[:1] in (b"{", b"["):
        raise BadInput("it is JSON; tables are CSV, Parquet or Arrow files")
    decoder, note = find_decoder(head, choices.encoding, is_whole=len(head) < look)
    text = Text(stream, decoder, look)
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


def _csv_batches(batches: Batches, text: Text, dialect: Dialect) -> Iterator[pa.RecordBatch]:
    """Yield the rows as texts, as they are in the file; blank lines are skipped."""
    import pyarrow as pa  # noqa: PLC0415

    if not text.has_rows(_BLOCK):
        return
    try:
        for batch in _parse_csv(batches, text, dialect):
            yield pa.record_batch(batch.columns[: len(batches.names)], schema=batches.schema)
    except ValueError as error:
        if batches.wrong and not batches.skips:
            raise _wrong_width(batches.label, batches.wrong[0], dialect) from error
        if "UTF8" in str(error):
            raise BadInput(
                f"{batches.label} begins as UTF-8 and goes on in another encoding; say which: "
                "--encoding latin-1"
            ) from error
        raise


def _parse_csv(batches: Batches, text: Text, dialect: Dialect) -> Any:
    """Return Arrow's reader of a text; it notes lines of another width in `wrong`."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv as reader  # noqa: PLC0415

    width = len(batches.names) + dialect.extra
    columns = [f"c{j}" for j in range(width)]

    def note(row: Any) -> str:
        why = f"{count(row.actual_columns, 'cell')}, the line of names {width}"
        batches.wrong.append(WrongRow(row.number - 1, row.text, why))
        return "skip" if batches.skips else "error"

    texts = reader.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
    )
    parse = reader.ParseOptions(
        delimiter=dialect.separator, newlines_in_values=True, invalid_row_handler=note
    )
    # With one thread, because only then does a wrong row have its number.
    options = reader.ReadOptions(column_names=columns, use_threads=False, block_size=_BLOCK)
    return reader.open_csv(text, options, parse, texts)


def _wrong_width(label: str, row: WrongRow, dialect: Dialect) -> BadInput:
    mark = "comma" if dialect.separator == "," else "separator"
    return BadInput(
        f"{label}, row {row.row:,} (the first is 0) has {row.why}; cells with a {mark} in them "
        "need quotes; another separator: --sep"
    )
