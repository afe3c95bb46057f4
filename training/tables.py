"""The user's own table: a CSV or Parquet file, read and checked.

The one door to pandas, an extra: import this module only where a table of the user's is wanted.
"""

from __future__ import annotations

import re
import shlex
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.errors import CannotTrain, count, nearest
from service.rows import Floats
from training.datasets import Dataset, listed, pick

_TYPES = {"b": "bool", "i": "int", "u": "int", "f": "float"}  # numpy's kinds to the card's words
_LARGEST = float(np.finfo(np.float32).max)  # a forest holds its rows in 32 bits

# What pandas calls a column without a name, most often an index that was saved with the table.
_UNNAMED = re.compile(r"Unnamed: \d+")


def from_file(
    path: Path,
    keep_cols: Sequence[str] | None = None,
    label: str | None = None,
    allow_missing: bool = False,
) -> Dataset:
    """Read a table of numbers; booleans count as 0 and 1.

    Without `keep_cols` every column but the label is taken. One that is not numeric is then refused
    rather than left out in silence: it may be a column of numbers with one cell mistyped.

    Raises:
        CannotTrain: the text names the file, the column and the first row (counted from 0).
    """
    frame = _read(path)
    names = list(frame.columns)
    labels = None if label is None else _labels(path, frame, label)
    features = _named(path, names, label) if keep_cols is None else pick(keep_cols, names)
    features = [name for name in features if name != label]
    if not features:
        raise CannotTrain(f"{path} has no column to train on besides the label")
    _refuse_text(path, frame[features])
    X = np.column_stack([_floats(path, frame[name]) for name in features])
    _refuse_cells(path, X, features, allow_missing)
    types = tuple(_TYPES.get(frame[name].dtype.kind, "float") for name in features)
    return Dataset(path.name, X, tuple(features), types, labels, allow_missing=allow_missing)


def _read(path: Path) -> pd.DataFrame:
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise CannotTrain(f"{path} is neither a .csv nor a .parquet file")
    try:
        # An absolute path is never taken for an address on the network.
        frame = readers[path.suffix.lower()](path.absolute())
    except FileNotFoundError as error:
        raise CannotTrain(_no_file(path)) from error
    except UnicodeDecodeError as error:
        raise CannotTrain(f"{path} is not text in UTF-8; save it as CSV in UTF-8") from error
    except pd.errors.EmptyDataError as error:
        raise CannotTrain(f"{path} is empty") from error
    except pd.errors.ParserWarning as error:
        raise CannotTrain(f"{path} has rows with more cells than its header") from error
    except OSError as error:
        raise CannotTrain(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, ImportError) as error:
        reason = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
        raise CannotTrain(f"{path} cannot be read: {reason}") from error
    if doubled := [name for name, times in Counter(frame.columns).items() if times > 1]:
        raise CannotTrain(f"{path} has two columns named {doubled[0]!r}; rename one")
    if frame.empty:
        raise CannotTrain(f"{path} has no rows")
    return frame


def _no_file(path: Path) -> str:
    siblings: list[str] = []
    with suppress(OSError):
        siblings = [file.name for file in path.parent.iterdir()]
    return f"there is no file {path}{nearest(path.name, siblings)}"


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file with a header line; blank lines are skipped.

    The header is read by itself as well, because pandas renames doubled columns in silence.
    """
    with warnings.catch_warnings():
        # Where rows are longer than the header pandas cuts them, with no more than a warning.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
        frame = pd.read_csv(path, index_col=False, low_memory=False)
    names = [name.strip() for name in header.iloc[0]]
    frame.columns = pd.Index([name or f"Unnamed: {j}" for j, name in enumerate(names)])
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    frame.columns = frame.columns.map(str)
    return frame


def _named(path: Path, names: list[str], label: str | None) -> list[str]:
    """Return the columns, each of which must have a name of its own."""
    unnamed = [j for j, name in enumerate(names) if _UNNAMED.fullmatch(name)]
    if unnamed:
        rest = [name for j, name in enumerate(names) if j not in unnamed and name != label]
        raise CannotTrain(
            f"column {unnamed[0]} of {path} has no name; if it is an index that was saved with the "
            f"table, leave it out{_by_keeping(rest)}"
        )
    return names


def _refuse_text(path: Path, frame: pd.DataFrame) -> None:
    """Refuse columns that are not numbers, and give the option that leaves them out."""
    names: list[str] = list(frame.columns)
    text = {name: row for name in names if (row := _first_text(path, frame[name])) is not None}
    if not text:
        return
    numeric = [name for name in names if name not in text]
    if not numeric:
        cut = "; are its cells separated by commas?" if len(text) == 1 else ""
        raise CannotTrain(f"{path} has no numeric column, only {listed(list(text))}{cut}")
    name, row = next(iter(text.items()))
    cell = frame[name].iloc[row]
    what = "text" if isinstance(cell, str) else "no numbers"
    raise CannotTrain(
        f"column {name!r} of {path} holds {what}, such as {_shown(cell)} in row {row}"
        f"{_also(list(text)[1:])}; mend it, or leave it out{_by_keeping(numeric)}"
    )


def _first_text(path: Path, column: pd.Series[Any]) -> int | None:
    """Return the row of the first cell that is neither a number nor missing."""
    if column.dtype.kind in _TYPES:
        return None
    text = column.notna().to_numpy()
    if column.dtype.kind == "O":
        text = text & np.isnan(_floats(path, column))
    return int(text.argmax()) if text.any() else None


def _floats(path: Path, column: pd.Series[Any]) -> Floats:
    """Return a column as floats, NaN for a missing cell and for whatever is no number."""
    try:
        if column.dtype.kind == "O":
            column = pd.to_numeric(column.astype(object), errors="coerce")
        values: Floats = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except OverflowError as error:
        raise CannotTrain(f"column {column.name!r} of {path} holds too large a number") from error
    return values


def _refuse_cells(path: Path, X: Floats, features: Sequence[str], allow_missing: bool) -> None:
    """Refuse numbers beyond what a forest holds, and missing cells unless they are allowed."""
    _refuse_where(np.abs(X) > _LARGEST, "infinite or above 3.4e38", "mend them", path, features)
    if not allow_missing:
        cure = "fill them, or train with the gaps by --allow_missing"
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


def _labels(path: Path, frame: pd.DataFrame, label: str) -> NDArray[np.int64]:
    """Return the label column, which may hold 0 and 1 only (1 for an outlier)."""
    if label not in frame:
        names = list(frame.columns)
        raise CannotTrain(f"--label: {path} has no column {label!r}{nearest(label, names)}")
    values = _floats(path, frame[label])
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        raise CannotTrain(
            f"--label: column {label!r} of {path} holds {_shown(frame[label].iloc[wrong[0]])} in "
            f"row {wrong[0]}; a label is 0, or 1 for an outlier"
        )
    return values.astype(np.int64)


def _also(names: Sequence[str]) -> str:
    return f" (likewise in {listed(names)})" if names else ""


def _by_keeping(names: Sequence[str]) -> str:
    """Return the option that keeps these columns, as it is typed in a shell."""
    if not names:
        return ""
    plain = all(re.fullmatch(r"[^\s,\[(][^,]*(?<!\s)", name) for name in names)
    return f": --keep_cols {shlex.quote(','.join(names) if plain else repr(list(names)))}"


def _shown(cell: Any) -> str:
    """Return a cell for a sentence: short, on one line."""
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return "nothing"
    text = repr(cell) if isinstance(cell, str) else str(cell)
    return text if len(text) <= 40 else f"{text[:36]}..."
