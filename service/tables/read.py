"""Read the whole of a table, and the cells of its columns as numbers, texts or dates.

pyarrow is imported when a file is read: a server does without it.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cells import MISSING, TRUTHS, parse_cell, parse_text
from ..errors import BadInput
from ..rows import Floats
from .batches import Choices, Place, open_batches

if TYPE_CHECKING:
    import pyarrow as pa

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
"""The texts that Arrow reads as the number that Python reads, where a point is the decimal mark."""
_WHOLE = r"^[+-]?\d+$"

_ROWS = 2**16  # of a batch


@dataclass(frozen=True)
class Cells:
    """The cells of one column, as numbers if all are, else as texts."""

    type: str
    """'bool', 'int', 'float' or 'text'."""
    numbers: Floats | None = None
    """(n_rows,), NaN where a cell is missing."""
    texts: pa.Array | None = None
    """The texts without blanks around them, null where a cell is missing; None if the file has
    numbers."""
    bad: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    """(n_rows,) where a text is no number."""

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(n_rows,) where a cell is missing."""
        if self.texts is not None:
            return np.asarray(self.texts.is_null())
        assert self.numbers is not None  # noqa: S101 -- one of both is there
        return np.isnan(self.numbers)

    def __len__(self) -> int:
        return len(self.missing)

    def as_texts(self) -> pa.Array:
        """Return the cells as texts; whole numbers become their digits."""
        import pyarrow as pa  # noqa: PLC0415

        if self.texts is not None:
            return self.texts
        assert self.numbers is not None  # noqa: S101 -- one of both is there
        different, places = np.unique(self.numbers, return_inverse=True)
        texts = pa.array([parse_text(cell) or None for cell in different.tolist()], pa.string())
        return texts.take(pa.array(places))

    @cached_property
    def counts(self) -> tuple[pa.Array, NDArray[np.int64]]:
        """The different texts, without missing cells, and how many cells have each."""
        found = self.as_texts().drop_null().value_counts()
        return found.field("values"), np.asarray(found.field("counts"))

    @property
    def has_leading_zeros(self) -> bool:
        """Whether a text begins with a zero and another digit, as a code does and no number."""
        if self.texts is None:
            return False
        from pyarrow import compute  # noqa: PLC0415

        return bool(compute.any(compute.match_substring_regex(self.texts, "^0[0-9]")).as_py())

    def cell(self, row: int) -> Any:
        """Return a cell as JSON would have it: a number, a text, or None where it is missing."""
        if self.numbers is None:
            return self.written(row)
        number = float(self.numbers[row])
        return None if np.isnan(number) else number

    def written(self, row: int) -> Any:
        """Return a cell as the file has it, None where it is missing."""
        if self.texts is not None:
            return self.texts[row].as_py()
        number, types = self.cell(row), {"bool": bool, "int": int}
        return number if number is None else types.get(self.type, float)(number)


class Table:
    """The columns of a file, by name. Rows are counted from 0."""

    def __init__(
        self, path: Place, table: pa.Table, decimal: str = "", notes: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.name = Path(path).name
        self.names: list[str] = list(table.column_names)
        self.decimal = decimal
        """The decimal mark of a CSV file; empty for other files."""
        self.notes = notes
        """Sentences about how the file was read."""
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def arrow(self) -> pa.Table:
        """The columns as Arrow has them."""
        return self._table

    def take(self, rows: NDArray[np.intp]) -> Table:
        """Return some of the rows."""
        return Table(self.path, self._table.take(rows), self.decimal, self.notes)

    def cells(self, name: str) -> Cells:
        """Return the cells of a column.

        Raises:
            BadInput: they are neither numbers, text nor dates; the text names the column.
        """
        column = self._table.column(name).combine_chunks()
        try:
            return _read_cells(column, self.decimal)
        except _OtherType as error:
            raise BadInput(
                f"column {name!r} of {self.path} holds {error}, which are neither numbers, text "
                f'nor dates; leave it out: --columns "-{name}"'
            ) from error


def read_table(path: Path, choices: Choices | None = None) -> Table:
    """Read the whole of a CSV, Parquet or Arrow file, whose columns have different names.

    Raises:
        BadInput: the text names the file and says what is wrong with it.
    """
    batches = open_batches(str(path), choices, is_small=True)
    import pyarrow as pa  # noqa: PLC0415

    with closing(batches):
        parts = list(batches.read(range(len(batches.names)), _ROWS))
    if not any(map(len, parts)):
        raise BadInput(f"{path} has no rows")
    table = pa.Table.from_batches(parts).rename_columns(batches.names)
    return Table(path, table, batches.decimal, batches.notes)


class _OtherType(Exception):
    """Cells are of a type that no column can have; the text is the type."""


def _read_cells(column: pa.Array, decimal: str) -> Cells:
    from pyarrow import types  # noqa: PLC0415

    kind = column.type
    if types.is_dictionary(kind):
        return _read_cells(column.dictionary_decode(), decimal)
    for name, is_kind in (
        ("float", types.is_null),
        ("bool", types.is_boolean),
        ("int", types.is_integer),
        ("float", types.is_floating),
        ("float", types.is_decimal),
    ):
        if is_kind(kind):
            return Cells(name, _floats(column))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _read_texts(column.cast("string"), decimal)
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind):
        return Cells("text", None, write_dates(column), np.asarray(column.is_valid()))
    raise _OtherType(f"cells of the type {kind}")


def _floats(column: pa.Array) -> Floats:
    """Return numbers or booleans as (n_rows,) floats, NaN where one is missing."""
    if str(column.type) == "bool":
        column = column.cast("uint8")
    return np.array(column.cast("float64", safe=False).to_numpy(zero_copy_only=False), np.float64)


def write_dates(column: pa.Array) -> pa.Array:
    """Return dates and times as texts in ISO 8601, those with a zone in the time of that zone."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute, types  # noqa: PLC0415

    if types.is_timestamp(column.type):
        zone = column.type.tz
        try:
            column = column.cast(pa.timestamp("s", zone))
        except pa.ArrowInvalid:  # there are fractions of seconds
            column = column.cast(pa.timestamp("us", zone), safe=False)
        if zone:
            return compute.strftime(column, "%Y-%m-%d %H:%M:%S%z")
    if types.is_time(column.type):
        column = column.cast("time64[us]", safe=False)
    return pa.array([None if c is None else str(c)[:26] for c in column.to_pylist()], pa.string())


def _read_texts(column: pa.Array, decimal: str) -> Cells:
    """Return texts as they are read everywhere: without blanks, missing or a number."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    texts = compute.utf8_trim_whitespace(column)
    is_missing = compute.is_in(texts, value_set=pa.array(sorted(MISSING)))
    texts = compute.if_else(is_missing, pa.scalar(None, pa.string()), texts)
    numbers, bad = _read_numbers(texts, decimal)
    if bad.any() or texts.null_count == len(texts):
        return _read_flags(texts, bad)
    is_whole = compute.all(compute.match_substring_regex(texts, _WHOLE)).as_py()
    return Cells("int" if is_whole else "float", numbers, texts, bad)


def _read_numbers(texts: pa.Array, decimal: str) -> tuple[Floats, NDArray[np.bool_]]:
    """Return texts as numbers, NaN where one is missing or no number, and where it is none."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    plain = compute.fill_null(compute.match_substring_regex(texts, NUMBER), False)
    if decimal == ",":  # 1.234 is 1234
        plain = pa.array(np.zeros(len(texts), np.bool_))
    numbers = _floats(compute.if_else(plain, texts, pa.scalar(None, pa.string())).cast("float64"))
    rest = np.flatnonzero(~np.asarray(plain) & ~np.asarray(texts.is_null()))
    bad = np.zeros(len(texts), np.bool_)
    known: dict[str, float | None] = {}
    for i, text in zip(rest.tolist(), texts.take(rest).to_pylist(), strict=True):
        if text not in known:
            known[text] = None
            with suppress(ValueError, OverflowError):
                known[text] = parse_cell(text, decimal)
        number = known[text]
        bad[i] = number is None
        if number is not None:
            numbers[i] = number
    return numbers, bad


def _read_flags(texts: pa.Array, bad: NDArray[np.bool_]) -> Cells:
    """Return texts, as numbers if all of them are truth values."""
    found = {text for text in texts.unique().to_pylist() if text is not None}
    values = {text: TRUTHS.get(text.lower(), {"0": 0.0, "1": 1.0}.get(text)) for text in found}
    if not found or None in values.values():
        return Cells("text", None, texts, bad)
    flags = [np.nan if text is None else values[text] for text in texts.to_pylist()]
    return Cells("bool", np.array(flags, np.float64), texts, bad)
