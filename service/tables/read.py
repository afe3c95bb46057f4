"""Read tables from CSV and Parquet files.

pandas and pyarrow are imported when a file is read: a server does without them.
"""

from __future__ import annotations

import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cells import FILES, name_column
from ..errors import BadInput, nearest
from ..rows import Floats

if TYPE_CHECKING:
    import pandas as pd

_TYPES = {"b": "bool", "i": "int", "u": "int", "f": "float"}  # by numpy's kind


class Table:
    """The columns of a file, by name. Rows are counted from 0."""

    def __init__(self, path: Path, frame: pd.DataFrame) -> None:
        self.path = path
        self.names: list[str] = list(frame.columns)
        self._frame = frame

    def __len__(self) -> int:
        return len(self._frame)

    def type(self, name: str) -> str:
        """Return what a column of numbers holds: 'bool', 'int' or 'float'."""
        return _TYPES.get(self._frame[name].dtype.kind, "float")

    def floats(self, name: str) -> Floats:
        """Return a column as (n_rows,) floats: NaN for a missing cell and for text.

        Booleans count as 0 and 1, and numeric strings as numbers.

        Raises:
            BadInput: an integer is too large for a float.
        """
        import pandas as pd  # noqa: PLC0415

        column = self._frame[name]
        try:
            if column.dtype.kind == "O":
                column = pd.to_numeric(column.astype(object), errors="coerce")
            values: Floats = column.to_numpy(dtype=np.float64, na_value=np.nan)
        except OverflowError as error:
            raise BadInput(f"column {name!r} of {self.path} holds too large a number") from error
        return values

    def first_text(self, name: str) -> int | None:
        """Return the row of a column's first cell that is neither a number nor missing."""
        column = self._frame[name]
        if column.dtype.kind in _TYPES:
            return None
        text = column.notna().to_numpy()
        if column.dtype.kind == "O":
            text = text & np.isnan(self.floats(name))
        return int(text.argmax()) if text.any() else None

    def cell(self, name: str, row: int) -> Any:
        """Return a cell as it was read, None when it is missing."""
        column = self._frame[name].iloc[[row]]
        return None if column.isna().item() else column.iloc[0]


def read_table(path: Path) -> Table:
    """Read a .csv or .parquet file, whose columns have different names.

    Raises:
        BadInput: the text names the file and says what is wrong with it.
    """
    read = {".csv": _read_csv, ".parquet": _read_parquet}.get(path.suffix.lower())
    if read is None:
        raise BadInput(f"{path} is neither a .csv nor a .parquet file")
    try:
        frame = read(path.absolute())  # an absolute path is never read as a URL
    except ImportError as error:
        raise BadInput(
            f"{path} is read with pandas and pyarrow, which are not installed: "
            "pip install pandas pyarrow"
        ) from error
    except (OSError, ValueError, Warning) as error:
        raise BadInput(_fault(path, error)) from error
    if doubled := [name for name, times in Counter(frame.columns).items() if times > 1]:
        raise BadInput(f"{path} has two columns named {doubled[0]!r}; rename one")
    if frame.empty:
        raise BadInput(f"{path} has no rows")
    return Table(path, frame)


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file with a header line; blank lines are skipped.

    The header is also read by itself, because pandas renames doubled columns without a warning.
    """
    import pandas as pd  # noqa: PLC0415

    with warnings.catch_warnings():
        # pandas cuts rows that are longer than the header, with only a warning.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
        frame = pd.read_csv(
            path,
            index_col=False,
            low_memory=False,
            keep_default_na=False,
            na_values=list(FILES.missing),
        )
    names = [FILES.name(name) for name in header.iloc[0]]
    frame.columns = pd.Index([name or name_column(j) for j, name in enumerate(names)])
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    frame = pd.read_parquet(path)
    frame.columns = frame.columns.map(str)
    return frame


def _fault(path: Path, error: Exception) -> str:
    """Return the sentence for what kept a file from being read."""
    from pandas import errors  # noqa: PLC0415

    siblings: list[str] = []
    reason = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
    match error:
        case FileNotFoundError():
            with suppress(OSError):
                siblings = [file.name for file in path.parent.iterdir()]
            return f"there is no file {path}{nearest(path.name, siblings)}"
        case UnicodeDecodeError():
            return f"{path} is not text in UTF-8; save it as CSV in UTF-8"
        case errors.EmptyDataError():
            return f"{path} is empty"
        case errors.ParserWarning():
            return f"{path} has rows with more cells than its header"
        case OSError(strerror=str(text)):
            reason = text
    return f"{path} cannot be read: {reason}"
