"""A dataset from a CSV or Parquet file: choose its columns and check their cells."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.cells import FILES, LABELS, is_unnamed, short
from service.errors import BadInput, CannotTrain, count, nearest
from service.rows import Floats
from service.tables.read import Table, read_table
from training.datasets import Dataset, listed, pick


def from_file(
    path: Path,
    keep_cols: Sequence[str] | None = None,
    label: str | None = None,
    allow_missing: bool = False,
) -> Dataset:
    """Read a table of numbers; booleans count as 0 and 1.

    Without `keep_cols` every column but the label is taken. A column of text is then refused, not
    left out: it may be a column of numbers with one mistyped cell.

    Raises:
        CannotTrain: the text names the file, the column and the first row (counted from 0).
    """
    try:
        table = read_table(path)
        labels = None if label is None else _labels(table, label)
        features = _choose(table, keep_cols, label)
        _refuse_text(table, features)
        X = np.column_stack([table.floats(name) for name in features])
    except BadInput as error:
        raise CannotTrain(str(error)) from error
    _refuse_cells(path, X, features, allow_missing)
    types = tuple(map(table.type, features))
    return Dataset(path.name, X, tuple(features), types, labels, allow_missing=allow_missing)


def _choose(table: Table, keep_cols: Sequence[str] | None, label: str | None) -> list[str]:
    """Return the columns to train on, without the label."""
    if keep_cols is None:
        _refuse_unnamed(table, label)
    chosen = table.names if keep_cols is None else pick(keep_cols, table.names)
    features = [name for name in chosen if name != label]
    if not features:
        raise CannotTrain(f"{table.path} has no column to train on besides the label")
    return features


def _refuse_unnamed(table: Table, label: str | None) -> None:
    unnamed = [j for j, name in enumerate(table.names) if is_unnamed(name)]
    if unnamed:
        rest = [name for name in table.names if not is_unnamed(name) and name != label]
        raise CannotTrain(
            f"column {unnamed[0]} of {table.path} has no name; if it is an index that was saved "
            f"with the table, leave it out{_by_keeping(rest)}"
        )


def _refuse_text(table: Table, names: Sequence[str]) -> None:
    """Refuse columns that are not numbers, and give the option that leaves them out."""
    text = {name: row for name in names if (row := table.first_text(name)) is not None}
    if not text:
        return
    numeric = [name for name in names if name not in text]
    if not numeric:
        cut = "; are its cells separated by commas?" if len(text) == 1 else ""
        raise CannotTrain(f"{table.path} has no numeric column, only {listed(list(text))}{cut}")
    name, row = next(iter(text.items()))
    cell = table.cell(name, row)
    what = "text" if isinstance(cell, str) else "no numbers"
    raise CannotTrain(
        f"column {name!r} of {table.path} holds {what}, such as {short(cell)} in row {row}"
        f"{_also(list(text)[1:])}; correct it, or leave it out{_by_keeping(numeric)}"
    )


def _refuse_cells(path: Path, X: Floats, features: Sequence[str], allow_missing: bool) -> None:
    """Refuse numbers that a forest cannot hold, and missing cells unless they are allowed."""
    too_large = np.abs(X) > FILES.largest
    _refuse_where(too_large, "infinite or above 3.4e38", "correct them", path, features)
    if not allow_missing:
        cure = "fill them, or train with missing cells: --allow_missing"
        _refuse_where(np.isnan(X), "missing", cure, path, features)


def _refuse_where(
    faults: NDArray[np.bool_], what: str, cure: str, path: Path, features: Sequence[str]
) -> None:
    columns = np.flatnonzero(faults.any(axis=0))
    if not len(columns):
        return
    first = columns[0]
    rows = np.flatnonzero(faults[:, first])
    more = _also([features[j] for j in columns[1:]])
    raise CannotTrain(
        f"column {features[first]!r} of {path} has {count(len(rows), 'cell')} {what}, the first in "
        f"row {rows[0]}{more}; {cure}"
    )


def _labels(table: Table, label: str) -> NDArray[np.int64]:
    """Return the label column, (n_rows,) of 0 and 1 (an outlier)."""
    if label not in table.names:
        hint = nearest(label, table.names)
        raise CannotTrain(f"--label: {table.path} has no column {label!r}{hint}")
    values = table.floats(label)
    wrong = np.flatnonzero(~np.isin(values, LABELS))
    if len(wrong):
        cell = table.cell(label, wrong[0])
        raise CannotTrain(
            f"--label: column {label!r} of {table.path} holds "
            f"{'nothing' if cell is None else short(cell)} in row {wrong[0]}; a label is 0, or 1 "
            "for an outlier"
        )
    return values.astype(np.int64)


def _also(names: Sequence[str]) -> str:
    return f" (also in {listed(names)})" if names else ""


def _by_keeping(names: Sequence[str]) -> str:
    """Return the option that keeps these columns, as it is typed in a shell."""
    if not names:
        return ""
    plain = all(re.fullmatch(r"[^\s,\[(][^,]*(?<!\s)", name) for name in names)
    return f": --keep_cols {shlex.quote(','.join(names) if plain else repr(list(names)))}"
