"""The values that are passed along: a raw table, rows of numbers, the verdict on them.

Nothing changes them, but they are not frozen: creating a frozen one takes longer than scoring a
row. Most requests have a single row, which plain Python reads faster than numpy.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .cells import fault, kind, may_spell_numbers, short
from .errors import BadInput, TooLarge, count

Floats = NDArray[np.float64]

# How many rows, or cells, are read at a time: about a millisecond's work.
_PIECE = 4096


@dataclass(frozen=True)
class Limits:
    """The limits of one request."""

    rows: int = 200_000
    columns: int = 4_096
    depth: int = 8
    """Levels of nesting in its JSON."""
    body_bytes: int = 16 * 2**20

    @property
    def lists(self) -> int:
        """Lists and objects in its JSON: each row may be one, and its truth another."""
        return 2 * self.rows + 10_000


@dataclass(slots=True)
class RawTable:
    """A table as a client sent it; its cells are not parsed yet.

    `cells` are a list of rows or an array; with a `shape` (rows, columns) they are flat, one row
    after another. `names` are those of the columns, as sent, or empty.
    """

    cells: Any
    names: tuple[str, ...] = ()
    shape: tuple[int, int] | None = None
    is_headless: bool = False
    """Whether the names look like cells: those of a CSV that may have no line of names."""
    is_csv: bool = False
    """Whether the cells are the texts of a CSV body, whose numbers may be written as in a file."""

    @classmethod
    def nested(cls, cells: Any, names: Sequence[str], limits: Limits) -> RawTable:
        """Return a table whose rows are lists; TooLarge if it is over the limits."""
        if isinstance(cells, list):
            width = len(cells[0]) if cells and isinstance(cells[0], list) else 0
            _check_shape(len(cells), width, limits)
        return cls(cells, tuple(names))

    @classmethod
    def flat(
        cls, cells: Any, shape: tuple[int, int], names: Sequence[str], limits: Limits
    ) -> RawTable:
        """Return a table whose cells are flat; TooLarge if it is over the limits."""
        _check_shape(*shape, limits)
        return cls(cells, tuple(names), shape)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else len(self.cells)

    @property
    def width(self) -> int:
        """The number of columns, by the first row."""
        if self.shape:
            return self.shape[1]
        first = self.cells[0] if len(self.cells) else ()
        return len(first) if isinstance(first, list | np.ndarray) else 0

    def floats(self) -> Floats | None:
        """Return all cells as floats, (n_rows, n_columns); None if this is no table of numbers.

        Numeric strings and booleans are numbers; None (null) and NaN become NaN.
        """
        try:
            values = _read_numbers(self.cells)
        except (ValueError, TypeError, OverflowError):
            return None
        if not values.size or values.ndim != (1 if self.shape else 2):
            return None
        return values.reshape(self.shape) if self.shape else values

    def columns(self) -> Sequence[Sequence[Any]]:
        """Return the cells of each column.

        Raises:
            BadInput: the rows are not lists of one length.
        """
        cells = self.cells
        if self.shape:
            cells = cells.tolist() if isinstance(cells, np.ndarray) else list(cells)
            width = self.shape[1]
            if not cells:
                raise BadInput(self._fault())
            return [cells[j::width] for j in range(width)]
        if not isinstance(cells, list):
            cells = np.asarray(cells).tolist()
        if not (isinstance(cells, list) and set(map(type, cells)) == {list} and cells[0]):
            raise BadInput(self._fault(of_shape=True))
        width = len(cells[0])
        if set(map(len, cells)) != {width}:
            raise BadInput(self._fault(of_shape=True))
        # zip(*cells) would make an iterator for each row, and start the garbage collector.
        flat = list(chain.from_iterable(cells))
        return [flat[j::width] for j in range(width)]

    def infinite(self) -> str:
        """Return where the first infinite number is, and that it is one; empty if there is none."""
        with suppress(BadInput):
            for j, column in enumerate(self.columns()):
                for i, cell in enumerate(column):
                    if isinstance(cell, int | float) and (found := fault(cell)):
                        return f"row {i}, column {label_column(j, self.names)}: {found}"
        return ""

    def numbers(self) -> Rows:
        """Read every cell as a number; the columns stay as they were sent.

        Numeric strings and booleans are numbers; None (null) and NaN are missing values.

        Raises:
            BadInput: not a table of numbers, or one is infinite. The text names row and column,
                counted from 0.

        >>> RawTable([[1, "2.5"]]).numbers().values
        array([[1. , 2.5]])
        """
        values = self.floats()
        if values is None:
            raise BadInput(self._fault())
        missing = not _is_finite(values)
        if missing and np.isinf(values).any():
            raise BadInput(self._fault())
        return Rows(values, self.names, missing)

    def _fault(self, of_shape: bool = False) -> str:
        """Return why this is no table, or no table of numbers: the first fault, row by row."""
        cells = self.cells.tolist() if isinstance(self.cells, np.ndarray) else self.cells
        if self.shape:
            width = self.shape[1] or 1
            cells = [cells[i : i + width] for i in range(0, len(cells), width)]
        if not isinstance(cells, list):
            return f"rows are a list of lists, as in [[1, 2]]; {kind(cells)} came"
        if not cells:
            return "there are no rows; one row is [[1, 2]]"
        if isinstance(cells[0], dict):
            return (
                "row 0 is an object, not a list of numbers; send the numbers in the order of the "
                "columns, as in [[1, 2]], and the columns' names beside the rows"
            )
        if not any(isinstance(row, list) for row in cells):
            return "rows are a list of lists: one row is [[1, 2]], not [1, 2]"
        faults = (_row_fault(i, row, cells[0], self.names, of_shape) for i, row in enumerate(cells))
        return next(filter(None, faults), "the rows are not a table of numbers")


@dataclass(slots=True)
class Rows:
    """A checked table of samples: the numbers that a forest takes, and the client's own cells.

    `values` is (n_rows, n_features) float64: finite, or NaN where a value is missing. `names` has a
    name for each column of the client, or is empty when columns are identified by position.
    """

    values: Floats
    names: tuple[str, ...] = ()
    missing: bool = False
    """Whether any value is missing."""
    texts: NDArray[np.void] | None = None
    """The client's cells, (n_rows,), as `cells`; None where all are numbers: then `values`."""
    odd: Sequence[tuple[int, int, int]] = ()
    """(column, index in ODD, how many) of the odd cells: those unlike all of training's."""
    ids: list[str] | None = None
    """The id of each row, if the model has an id column and it was sent."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def cells(self) -> NDArray[Any]:
        """The client's own cells, a row for each as the record keeps it."""
        return self.values if self.texts is None else self.texts

    def at(self, indices: Sequence[int] | NDArray[np.intp]) -> Rows:
        """Return the rows at these indices."""
        texts = None if self.texts is None else self.texts[indices]
        return Rows(self.values[indices], self.names, self.missing, texts)


ODD = ("out_of_range", "unknown", "missing")
"""The kinds of odd cells: a number beyond training's range, a new category, a missing cell."""

TEXT_BYTES = 32
"""The bytes of a text cell in the record; a longer text is cut."""


def record_type(numbers: int, texts: int) -> np.dtype[np.void]:
    """Return the type of a recorded row's cells: numbers, then texts."""
    return np.dtype([("values", np.float64, (numbers,)), ("texts", f"S{TEXT_BYTES}", (texts,))])


@dataclass(slots=True)
class Verdict:
    """The scores of some rows, and the threshold below which a row is an outlier.

    `scores` is (n_rows,) float64, scikit-learn's `decision_function`: lower is more abnormal.
    """

    scores: Floats
    threshold: float
    version: str = ""
    """The model's version: the first digits of its file's SHA-256."""
    samples: Floats | None = None
    """scikit-learn's `score_samples`, if requested."""
    ids: list[str] | None = None
    """The id of each row, if the rows came with one."""
    pvalues: Floats | None = None
    """The p-value of each row, if requested."""
    outliers: int = field(init=False)
    """How many rows are outliers."""
    score_sum: float = field(init=False)

    def __post_init__(self) -> None:
        """Count the outliers and add up the scores."""
        scores = self.scores
        if len(scores) == 1:
            self.score_sum = score = scores.item()
            self.outliers = int(score < self.threshold)
        else:
            self.score_sum = float(scores.sum())
            self.outliers = int(np.count_nonzero(scores < self.threshold))

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return 1 for each outlier and 0 for each inlier.

        >>> Verdict(scores=np.array([0.1, -0.2]), threshold=0.0).labels
        array([0, 1])
        """
        return (self.scores < self.threshold).astype(np.int64)

    @property
    def mean_score(self) -> float:
        """Return the mean of the scores."""
        return self.score_sum / len(self.scores)


def _read_numbers(cells: Any) -> Floats:
    """Return the cells as an array of the same shape.

    Long lists are read in pieces, because other threads wait while a piece is read.
    """
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "OU":
        cells = cells.tolist()
    if not isinstance(cells, list):
        return np.array(cells, dtype=np.float64)
    if len(cells) <= _PIECE:
        return _read_piece(cells)
    starts = range(0, len(cells), _PIECE)
    return np.concatenate([_read_piece(cells[i : i + _PIECE]) for i in starts])


def _read_piece(piece: list[Any]) -> Floats:
    """Return a few rows, or a few cells, as an array; ValueError if they are not numbers."""
    cells, is_table = piece, bool(piece) and isinstance(piece[0], list)
    if is_table:
        cells = piece[0] if len(piece) == 1 else list(chain.from_iterable(piece))
    try:
        values = np.frombuffer(array("d", cells))
    except TypeError:  # there are texts or None among them
        texts = "".join(cell for cell in cells if isinstance(cell, str))
        if not may_spell_numbers(texts):
            raise ValueError("a text that is no number") from None
        return np.array(piece, dtype=np.float64)
    if is_table and len(piece) > 1 and len(set(map(len, piece))) > 1:
        raise ValueError("rows of several lengths")
    return values.reshape(len(piece), -1) if is_table else values


def _is_finite(values: Floats) -> bool:
    if len(values) == 1:
        return all(map(isfinite, values[0].tolist()))
    return bool(np.isfinite(values).all())


def _check_shape(n_rows: int, n_columns: int, limits: Limits) -> None:
    if n_rows > limits.rows:
        raise TooLarge(f"{count(n_rows, 'row')} in one request; at most {limits.rows:,}")
    if n_columns > limits.columns:
        raise TooLarge(f"{count(n_columns, 'column')} in a row; at most {limits.columns:,}")


def _row_fault(i: int, row: Any, first: Any, names: Sequence[str], of_shape: bool) -> str | None:
    if not isinstance(row, list):
        return f"row {i} is {kind(row)}, not a list of {'cells' if of_shape else 'numbers'}"
    if not row:
        return f"row {i} is empty"
    if len(row) != len(first):
        return f"row {i} has {count(len(row), 'column')}, row 0 has {len(first)}"
    for j, cell in enumerate([] if of_shape else row):
        if wrong := fault(cell):
            return f"row {i}, column {label_column(j, names)}: {wrong}"
    return None


def label_column(j: int, names: Sequence[str]) -> str:
    """Format a column for an error: its index, and its name if it has one."""
    return f"{j} ({short(names[j])})" if j < len(names) else str(j)


class Totals(NamedTuple):
    """Samples scored so far and the outliers among them."""

    samples: int = 0
    outliers: int = 0
