"""Write tables to CSV and Parquet files that only their owner can read."""

import csv
import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput

TIMES = ("time",)
"""Columns in seconds since 1970, which are written as dates."""

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""The characters that a formula begins with in one spreadsheet or another."""
STDOUT = Path("-")
"""The path that stands for standard output."""

_AT_ONCE = 1000  # lines of CSV in memory at a time

Column = Sequence[Any] | NDArray[Any]


def write_table(columns: Mapping[str, Column], path: Path) -> None:
    """Write columns of the same length to a .csv or .parquet file that only its owner can read.

    `STDOUT` stands for CSV on standard output. None becomes an empty cell, and so does NaN in CSV.
    Floats are exact. Lines of CSV end with CR LF (RFC 4180), and cells with a line break are
    quoted. A text in CSV that a spreadsheet would run as a formula begins with an apostrophe.

    Raises:
        BadInput: the file is of another kind or cannot be written, or pyarrow is not installed.
    """
    if path == STDOUT:
        _write_lines(columns, sys.stdout.buffer)
        return
    if path.suffix not in _WRITERS:
        raise BadInput(f"{path} is neither a .csv nor a .parquet file")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():
            raise OSError(None, "it is not a regular file")
        with _create_private(unfinished) as file:
            _WRITERS[path.suffix](columns, file)
        unfinished.replace(path)
    except ImportError as error:
        raise BadInput(
            f"{path} needs pyarrow, which is not installed: "
            "name a .csv file, or install isoserve[train]"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(
            f"{path} cannot be written ({reason}); - writes CSV to standard output"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _write_lines(columns: Mapping[str, Column], file: BinaryIO) -> None:
    rows = max(map(len, columns.values()), default=0)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(map(_disarm, columns))
    for start in range(0, rows, _AT_ONCE):
        part = {name: column[start : start + _AT_ONCE] for name, column in columns.items()}
        cells = (_cells(name, column) for name, column in part.items())
        writer.writerows(zip(*cells, strict=True))
    text.detach()  # flushed, and the file stays open


def _write_parquet(columns: Mapping[str, Column], file: BinaryIO) -> None:
    import pyarrow  # noqa: PLC0415 -- a server does without it
    from pyarrow import parquet  # noqa: PLC0415

    dates = {name: _dates(columns[name]) for name in TIMES if name in columns}
    parquet.write_table(pyarrow.table(dict(columns) | dates), file)


_WRITERS = {".csv": _write_lines, ".parquet": _write_parquet}


def _cells(name: str, column: Column) -> list[Any]:
    if name in TIMES:
        return [date.isoformat(" ", "microseconds") for date in _dates(column)]
    if isinstance(column, np.ndarray):
        cells = column.astype(object)
        cells[np.isnan(column)] = None
        column = cells
    return list(map(_disarm, column))


def _disarm(cell: Any) -> Any:
    """Return a cell; with an apostrophe before a text that a spreadsheet takes for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else cell


def _dates(column: Column) -> list[datetime]:
    return [datetime.fromtimestamp(seconds, UTC) for seconds in column]


def _create_private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
