"""Tables as files, for their owner's eyes only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .errors import BadInput

TIMES = ("time",)
"""Columns in seconds since 1970, which become dates."""


def write_table(columns: Mapping[str, Sequence[Any] | NDArray[Any]], path: Path) -> None:
    """Write columns of one length as a .csv or .parquet file, readable by its owner only.

    An array is written as it is; in other columns None is a cell left empty.

    Raises:
        BadInput: another kind of file, it cannot be written, or pandas is not installed.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise BadInput(f"{path} is neither a .csv nor a .parquet file")
    try:
        import pandas as pd  # noqa: PLC0415 - only this needs it, and a server goes without
    except ImportError as error:
        raise BadInput("exporting needs pandas: install isoserve[train]") from error
    table = pd.DataFrame(dict(columns))
    loose = [name for name, column in columns.items() if not isinstance(column, np.ndarray)]
    table[loose] = table[loose].convert_dtypes()  # whole numbers stay whole beside a None
    for name in TIMES:
        table[name] = pd.to_datetime(table[name], unit="s", utc=True)
    with _create_private(path) as file:
        if path.suffix == ".csv":
            table.to_csv(file, index=False)
        else:
            table.to_parquet(file, index=False)


def _create_private(path: Path) -> BinaryIO:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.fchmod(file, 0o600)  # of a file that was there before
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror})") from error
    return os.fdopen(file, "wb")
