"""Write a table of any size in batches: CSV, Parquet and Arrow, files and standard output.

A file appears under its name when it is whole. Until then it has a hidden name beside it, and is
removed when writing fails or is stopped. At an address of fsspec the store does the same, where it
can.
"""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import re
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import compute, parquet, types

from ..errors import BadInput
from .places import find_filesystem, is_address

STDOUT = "-"
"""The place that stands for standard output."""

KINDS = ("csv", "parquet", "arrow")

_ENDINGS = re.compile(r"\.(csv|parquet|pq|arrow|feather)(\.gz)?$", re.IGNORECASE)
_KIND = {"pq": "parquet", "feather": "arrow"}

_GROUP = 2**18, 2**24
"""Rows, or bytes if these are fewer, that become a row group of a Parquet file."""

_SPECIAL = r'[",\r\n]'
"""What a cell of a CSV file must be quoted for."""


def find_kind(place: str) -> str:
    """Return the kind of file that a name stands for, one of KINDS; BadInput for other names."""
    found = _ENDINGS.search(place)
    if found is None or (found[2] and found[1].lower() != "csv"):
        raise BadInput(f"{place} is neither a .csv, a .parquet nor an .arrow file, nor a folder/")
    return _KIND.get(found[1].lower(), found[1].lower())


class Sink:
    """A table that is being written. Call `commit` when it is whole, else `discard`."""

    def __init__(self, place: str, schema: pa.Schema, kind: str = "") -> None:
        """Begin to write; `kind` is one of KINDS, by default the one that the name stands for.

        Raises:
            BadInput: it cannot be written there; the text names the place.
        """
        self.place = place
        self._label = "standard output" if place == STDOUT else place
        kind = kind or find_kind(place)
        self._target = self._guard(lambda: _open_target(place))
        packed = place.lower().endswith(".gz")
        self._file: Any = gzip.GzipFile("", "wb", 6, self._target) if packed else self._target
        make = {"csv": _CsvWriter, "parquet": _ParquetWriter, "arrow": _ArrowWriter}[kind]
        try:
            self._writer: Any = self._guard(lambda: make(self._file, schema, place == STDOUT))
        except BaseException:
            self._target.discard()
            raise

    def write(self, batch: pa.RecordBatch) -> None:
        """Write some rows; BadInput if they cannot be written."""
        self._guard(lambda: self._writer.write(batch))

    def commit(self) -> None:
        """Finish the file and give it its name; BadInput if that fails."""

        def finish() -> None:
            self._writer.close()
            if self._file is not self._target:
                self._file.close()
            self._target.commit()

        self._guard(finish)

    def discard(self) -> None:
        """Remove what was written, unless it is committed."""
        self._target.discard()
        with suppress(Exception):  # a writer that is not closed would write when it is collected
            self._writer.close()

    def _guard(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except BrokenPipeError:
            raise
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise BadInput(f"{self._label} cannot be written ({why})") from error


class _Target(io.RawIOBase):
    """Where the bytes of a table go; after `discard` they go nowhere."""

    def __init__(self, file: Any) -> None:
        self._file, self._at, self._is_over = file, 0, False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, content: Any) -> int:
        """Write all of some bytes."""
        size = memoryview(content).nbytes
        if not self._is_over:
            self._file.write(content)
        self._at += size
        return size

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._at

    def commit(self) -> None:
        """Let the file appear under its name."""
        self._file.flush()
        self._is_over = True

    def discard(self) -> None:
        """Remove what was written, unless it is committed."""
        self._is_over = True


class _LocalTarget(_Target):
    """A file that has a hidden name until it is whole."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise OSError(None, "it is not a regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        self._path = path
        self._part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        super().__init__(self._part.open("xb", 2**20))
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def commit(self) -> None:
        """Give the file its name."""
        super().commit()
        self._part.replace(self._path)
        self._file.close()

    def discard(self) -> None:
        """Remove the file, unless it is committed."""
        super().discard()
        self._part.unlink(missing_ok=True)
        with suppress(OSError):
            self._file.close()


def _remove_stale(path: Path) -> None:
    """Remove what a killed process left unfinished; what is still being written is locked."""
    for part in path.parent.glob(f".{glob_escape(path.name)}.????????.part"):
        with suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def glob_escape(name: str) -> str:
    """Return a name as a pattern that matches it alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)


class _RemoteTarget(_Target):
    """A file of fsspec's, which the store shows when it is committed."""

    def __init__(self, address: str) -> None:
        filesystem, path = find_filesystem(address)
        with suppress(OSError, NotImplementedError):
            filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        super().__init__(filesystem.open(path, "wb", autocommit=False))

    def commit(self) -> None:
        """Finish the file and let the store show it."""
        self._file.close()
        if hasattr(self._file, "commit"):
            self._file.commit()
        self._is_over = True

    def discard(self) -> None:
        """Tell the store to forget the file, unless it is committed."""
        if not self._is_over:
            super().discard()
            with suppress(Exception):
                self._file.discard()


def _open_target(place: str) -> Any:
    if place == STDOUT:
        return _Target(sys.stdout.buffer)
    return _RemoteTarget(place) if is_address(place) else _LocalTarget(Path(place))


class _CsvWriter:
    """Lines with commas; cells are quoted where they must be. NaN and null are empty cells."""

    def __init__(self, file: Any, schema: pa.Schema, _: bool) -> None:
        self._file = file
        names = [pa.array([name]) for name in schema.names]
        self._write([_quote(name) for name in names])

    def write(self, batch: pa.RecordBatch) -> None:
        if len(batch):
            fields = zip(batch.schema.names, batch.columns, strict=True)
            self._write([_as_cells(name, column) for name, column in fields])

    def _write(self, cells: list[pa.Array]) -> None:
        lines = compute.binary_join_element_wise(
            *cells, ",", null_handling="replace", null_replacement=""
        )
        lines = compute.binary_join_element_wise(lines, "", "\n")
        self._file.write(_content(lines))

    def close(self) -> None:
        pass


def _content(texts: pa.Array) -> Any:
    """Return texts, one after another, as bytes."""
    _, offsets, content = texts.buffers()
    ends = memoryview(offsets).cast("i")[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(content)[ends[0] : ends[-1]]


def _as_cells(name: str, column: pa.Array) -> pa.Array:
    kind = column.type
    if types.is_dictionary(kind):
        return _as_cells(name, column.dictionary_decode())
    if types.is_string(kind) or types.is_large_string(kind):
        return _quote(column.cast("string"))
    if types.is_floating(kind):
        column = compute.if_else(compute.is_nan(column), pa.scalar(None, kind), column)
    try:
        return column.cast("string")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(
            f"column {name!r} holds cells of the type {kind}, which CSV has not; write a .parquet "
            f"file, or leave it out: --keep"
        ) from error


def _quote(texts: pa.Array) -> pa.Array:
    special = compute.match_substring_regex(texts, _SPECIAL)
    if not compute.any(special, min_count=0).as_py():
        return texts
    doubled = compute.replace_substring(texts, '"', '""')
    return compute.if_else(special, compute.binary_join_element_wise('"', doubled, '"', ""), texts)


class _ParquetWriter:
    def __init__(self, file: Any, schema: pa.Schema, _: bool) -> None:
        self._schema, self._rows, self._bytes = schema, 0, 0
        self._held: list[pa.RecordBatch] = []
        repeated = [
            field.name
            for field in schema
            if types.is_string(field.type) or types.is_dictionary(field.type)
        ]
        # Numbers rarely repeat: a dictionary of them costs time and is given up.
        self._writer = parquet.ParquetWriter(file, schema, use_dictionary=repeated)

    def write(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._rows += len(batch)
        self._bytes += batch.nbytes
        if self._rows >= _GROUP[0] or self._bytes >= _GROUP[1]:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_batches(self._held, self._schema))
        self._held, self._rows, self._bytes = [], 0, 0

    def close(self) -> None:
        self._flush()
        self._writer.close()


class _ArrowWriter:
    def __init__(self, file: Any, schema: pa.Schema, is_pipe: bool) -> None:
        make = pa.ipc.new_stream if is_pipe else pa.ipc.new_file
        self._writer = make(file, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()
