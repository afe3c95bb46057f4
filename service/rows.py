"""The two values that travel: rows going in, the verdict coming out.

Nobody changes them; they are not frozen because that would cost a single row more than its score.
For one row, by far the most common number, numpy's fixed cost would be nearly all: so plain Python
looks at it.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import BadInput, TooLarge, count, nearest

Floats = NDArray[np.float64]

# Rows, or cells, that are read in about a millisecond.
_PIECE = 4096

# Seldon's ways not to name a column.
_POSITIONAL = re.compile(r"|t:\d+")


@dataclass(frozen=True)
class Limits:
    """How much one request may bring."""

    rows: int = 200_000
    columns: int = 4_096
    depth: int = 8
    """Levels of nesting in JSON."""
    body_bytes: int = 16 * 2**20


@dataclass(slots=True)
class Rows:
    """A checked table of samples.

    `values` is (n_rows, n_columns) float64 and finite, but for NaN where a value is missing.
    `names` has one name a column, or is empty when the columns are known by their position.
    """

    values: Floats
    names: tuple[str, ...] = ()
    missing: bool = False
    """Whether any value is missing."""

    def __len__(self) -> int:
        return len(self.values)

    def at(self, numbers: NDArray[np.intp]) -> Rows:
        """Return the rows with these numbers."""
        return Rows(self.values[numbers], self.names, self.missing)

    @classmethod
    def parse(cls, cells: Any, names: Sequence[str] = (), limits: Limits | None = None) -> Rows:
        """Check a table: nested lists, as JSON gives them, or an array.

        Numeric strings and booleans count as numbers, and None (null) and NaN are missing values;
        whether the model takes those is its detector's affair. Rows and columns are counted from 0.

        Raises:
            BadInput: not a table of numbers, or one is infinite; the text names row and column.
            TooLarge: more rows or columns than `limits`.

        >>> Rows.parse([[1, "2.5"]]).values
        array([[1. , 2.5]])
        """
        if limits is not None:
            _check_size(cells, limits)
        try:
            values = _as_array(cells)
        except (ValueError, TypeError, OverflowError) as error:
            raise BadInput(_fault(cells, names)) from error
        if values.ndim != 2 or not values.size:
            raise BadInput(_fault(cells, names))
        missing = not _is_finite(values)
        if missing and np.isinf(values).any():
            raise BadInput(_fault(cells, names))
        return cls(values, tuple(names), missing)

    def first_missing(self) -> str:
        """Say where the first missing value is."""
        i, j = np.argwhere(np.isnan(self.values))[0].tolist()
        return f"row {i}, column {_column(j, self.names)}: a missing value (null, NaN or empty)"

    @classmethod
    def fold(
        cls,
        cells: Sequence[Any] | NDArray[Any],
        n_rows: int,
        n_columns: int,
        names: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> Rows:
        """Check a table whose n_rows * n_columns cells come one row after another.

        Raises what `parse` raises.
        """
        if limits is not None:
            _check_shape(n_rows, n_columns, limits)
        try:
            values = _as_array(cells)
        except (ValueError, TypeError, OverflowError):
            values = np.empty(0)
        if values.ndim == 1 and values.size and not np.isinf(values).any():
            missing = bool(np.isnan(values).any())
            return cls(values.reshape(n_rows, n_columns), tuple(names), missing)
        listed = cells.tolist() if isinstance(cells, np.ndarray) else cells
        table = [listed[i : i + n_columns] for i in range(0, len(listed), n_columns or 1)]
        return cls.parse(table, names)

    def arranged(self, features: tuple[str, ...], by_name: bool = True) -> Rows:
        """Return the rows with their columns as the model has them.

        Columns are matched by name when both sides have names, else by position; empty names, and
        names such as `t:0`, are Seldon's way to say "by position".

        Raises:
            BadInput: missing, extra or doubled names, or the wrong number of columns.
        """
        names, width = self.names, self.values.shape[1]
        if by_name and names:
            if len(names) != width:
                raise BadInput(f"{count(len(names), 'name')} for {count(width, 'column')}")
            if names == features:
                return self
            by_name = not all(map(_POSITIONAL.fullmatch, names))
        if not (by_name and names):
            if width != len(features):
                raise BadInput(f"rows have {count(width, 'column')}; {_expected(features)}")
            return Rows(self.values, features, self.missing)
        _check_names(self.names, features)
        place = {name: j for j, name in enumerate(self.names)}
        order = [place[name] for name in features]
        return Rows(np.ascontiguousarray(self.values[:, order]), features, self.missing)


@dataclass(slots=True)
class Verdict:
    """What the model says of some rows.

    `scores` is (n_rows,) float64, scikit-learn's `decision_function`: lower is more abnormal.
    A row is an outlier when its score is below `threshold`.
    """

    scores: Floats
    threshold: float
    version: str = ""
    """That of the model: the first digits of its file's SHA-256."""

    samples: Floats | None = None
    """scikit-learn's `score_samples`, where it was asked for."""

    outliers: int = field(init=False)
    """How many rows are outliers."""

    score_sum: float = field(init=False)
    """The sum of the scores."""

    def __post_init__(self) -> None:
        """Sum up."""
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


def _as_array(cells: Any) -> Floats:
    """Return the cells as an array of whatever shape they have.

    Many are taken a piece at a time, because other threads wait while lists are read.
    """
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "OU":
        cells = cells.tolist()
    if not isinstance(cells, list):
        return np.array(cells, dtype=np.float64)
    if len(cells) <= _PIECE:
        return _read_piece(cells)
    return np.concatenate(
        [_read_piece(cells[i : i + _PIECE]) for i in range(0, len(cells), _PIECE)]
    )


def _read_piece(piece: list[Any]) -> Floats:
    """Return a few rows, or a few cells, as an array; ValueError where they are none."""
    is_table = isinstance(piece[0], list) if piece else False
    cells = piece
    if is_table:
        cells = piece[0] if len(piece) == 1 else list(chain.from_iterable(piece))
    try:
        values = np.frombuffer(array("d", cells))
    except TypeError:  # texts or None among them
        texts = "".join(cell for cell in cells if isinstance(cell, str))
        if not may_spell_numbers(texts):
            raise ValueError("a text that is no number") from None
        return np.array(piece, dtype=np.float64)
    if is_table and len(piece) > 1 and len(set(map(len, piece))) > 1:
        raise ValueError("rows of several lengths")
    return values.reshape(len(piece), -1) if is_table else values


def may_spell_numbers(text: str) -> bool:
    """Return whether a text has nothing that Python takes for a number and nobody else does.

    >>> may_spell_numbers("1.5e3"), may_spell_numbers("1_000"), may_spell_numbers("\u0663")
    (True, False, False)
    """
    return text.isascii() and "_" not in text


def _is_finite(values: Floats) -> bool:
    if len(values) == 1:
        return all(map(isfinite, values[0].tolist()))
    return bool(np.isfinite(values).all())


def _check_size(cells: Any, limits: Limits) -> None:
    if not isinstance(cells, list):
        return
    width = len(cells[0]) if cells and isinstance(cells[0], list) else 0
    _check_shape(len(cells), width, limits)


def _check_shape(n_rows: int, n_columns: int, limits: Limits) -> None:
    if n_rows > limits.rows:
        raise TooLarge(f"{count(n_rows, 'row')} in one request; at most {limits.rows:,}")
    if n_columns > limits.columns:
        raise TooLarge(f"{count(n_columns, 'column')} in a row; at most {limits.columns:,}")


def _check_names(names: tuple[str, ...], features: tuple[str, ...]) -> None:
    if doubled := [name for name, times in Counter(names).items() if times > 1]:
        raise BadInput(f"column {_short(doubled[0])} is named twice")
    sent, known = set(names), set(features)
    missing = [name for name in features if name not in sent]
    extra = [name for name in names if name not in known]
    if missing:
        hint = nearest(missing[0], extra)
        raise BadInput(f"column {missing[0]!r} is missing{hint}; {_expected(features)}")
    if extra:
        hint = nearest(extra[0], features)
        raise BadInput(f"column {_short(extra[0])} is unknown{hint}; {_expected(features)}")


def _expected(features: tuple[str, ...]) -> str:
    shown = ", ".join(features[:8]) + (", ..." if len(features) > 8 else "")
    return f"this model expects {len(features)}: {shown}"


def _fault(cells: Any, names: Sequence[str]) -> str:
    """Say what keeps `cells` from being a table of numbers: the first fault, row by row."""
    if isinstance(cells, np.ndarray):
        cells = cells.tolist()
    if not isinstance(cells, list):
        return f"rows are a list of lists, as in [[1, 2]]; {_kind(cells)} came"
    if not cells:
        return "there are no rows; one row is [[1, 2]]"
    if not any(isinstance(row, list) for row in cells):
        return "rows are a list of lists: one row is [[1, 2]], not [1, 2]"
    faults = (_row_fault(i, row, cells[0], names) for i, row in enumerate(cells))
    return next(filter(None, faults), "the rows are not a table of numbers")


def _row_fault(i: int, row: Any, first: Any, names: Sequence[str]) -> str | None:
    if not isinstance(row, list):
        return f"row {i} is {_kind(row)}, not a list of numbers"
    if not row:
        return f"row {i} is empty"
    if len(row) != len(first):
        return f"row {i} has {count(len(row), 'column')}, row 0 has {len(first)}"
    for j, cell in enumerate(row):
        if fault := _cell_fault(cell):
            return f"row {i}, column {_column(j, names)}: {fault}"
    return None


def _column(j: int, names: Sequence[str]) -> str:
    return f"{j} ({_short(names[j])})" if j < len(names) else str(j)


def _cell_fault(cell: Any) -> str | None:
    if cell is None:
        return None
    if isinstance(cell, list):
        return "a list is too deep; a table has two dimensions"
    if isinstance(cell, dict):
        return "an object is not a number"
    try:
        number = float(cell if may_spell_numbers(str(cell)) else "")
    except ValueError:
        return f"{_short(cell)} is not a number"
    except OverflowError:
        return "the number is too large for 64 bits"
    return f"{_short(cell)} is not a finite number" if np.isinf(number) else None


def _short(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else text[:36] + "..." + text[-1:]


def _kind(value: Any) -> str:
    kinds = {dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a list" if isinstance(value, list) else "a number")


class Totals(NamedTuple):
    """Samples scored so far and the outliers among them."""

    samples: int = 0
    outliers: int = 0


NOTHING = Totals()
