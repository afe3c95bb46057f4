"""Encoders: how the cells of one column become features of the forest, in training and requests.

docs/internals/columns.md describes the kinds of columns. An encoder is made from the card's
`Column`. `one` encodes a single cell in plain Python, `many` a list of cells with numpy.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cells import bounded, fault, is_missing, may_spell_numbers, parse_cell, parse_text, short
from ..rows import ODD, TEXT_BYTES, Floats
from .card import PARTS, Column

OUT_OF_RANGE, UNKNOWN, MISSING = range(len(ODD))
USUAL = -1
"""A cell such as training had."""

MOST_VALUES = 10_000
"""The most values of a column that a card keeps; training encodes the others as unknown ones."""

EPOCH = "seconds since 1970"
ISO = "ISO 8601"
DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%Y%m%d")
TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
FORMATS = (
    EPOCH,
    ISO,
    *(date + time for date in DATES for time in TIMES),
    "%H:%M",
    "%H:%M:%S",
)
"""How the cells of a column of dates may be written: `strptime` formats and two more."""

One = tuple[tuple[float, ...], Any, int]
"""The features of a cell, the cell as it is recorded, and what is odd about it."""
Many = tuple[NDArray[Any], dict[int, int]]
"""The cells as they are recorded, and how many are odd, by kind."""


class CellFault(Exception):
    """A cell cannot be encoded; `row` is its index and `text` says why."""

    def __init__(self, row: int, text: str) -> None:
        super().__init__(text)
        self.row, self.text = row, text


_LARGEST = sys.float_info.max

_NONE_TAKEN = "a missing value (null, NaN or empty); this column takes none"


class NumberEncoder:
    """Numbers and flags: the feature is the number, NaN where the cell is missing."""

    is_text = False

    def __init__(self, column: Column) -> None:
        self.features = (column.name,)
        self.takes_missing = column.missing > 0
        self._flag = column.kind == "flag"
        low, high = column.range
        self.low, self.high = max(low, -_LARGEST), min(high, _LARGEST)

    def one(self, cell: Any, decimal: str) -> One:
        """Encode a cell; CellFault if it is no number."""
        number = cell if type(cell) is float else self._parse(0, cell, decimal)
        if self.low <= number <= self.high:
            return (number,), number, USUAL
        if math.isnan(number):
            if not self.takes_missing:
                raise CellFault(0, _NONE_TAKEN)
            return (number,), number, MISSING
        if math.isinf(number):
            raise CellFault(0, str(fault(cell)))
        return (number,), number, OUT_OF_RANGE

    def many(self, cells: Sequence[Any], decimal: str, out: Floats) -> Many:
        """Encode the cells of a column into `out`, (n_rows, 1)."""
        try:
            numbers = np.frombuffer(array("d", cells))
        except (TypeError, OverflowError):
            parsed = (self._parse(i, cell, decimal) for i, cell in enumerate(cells))
            numbers = np.fromiter(parsed, np.float64, len(cells))
        out[:, 0] = numbers
        return numbers, self.check(numbers)

    def check(self, numbers: Floats) -> dict[int, int]:
        """Return how many numbers are missing or out of range; CellFault for an infinite one."""
        usual = (numbers >= self.low) & (numbers <= self.high)
        if usual.all():
            return {}
        missing = np.isnan(numbers)
        if not self.takes_missing and missing.any():
            raise CellFault(int(missing.argmax()), _NONE_TAKEN)
        infinite = np.isinf(numbers)
        if infinite.any():
            i = int(infinite.argmax())
            raise CellFault(i, str(fault(float(numbers[i]))))
        return {OUT_OF_RANGE: int((~usual & ~missing).sum()), MISSING: int(missing.sum())}

    def _parse(self, i: int, cell: Any, decimal: str) -> float:
        try:
            return parse_cell(cell, decimal, self._flag)
        except (ValueError, TypeError, OverflowError) as error:
            if self._flag and isinstance(cell, str):
                text = f"{short(cell)} is neither a number nor true, false, yes or no"
            else:
                text = fault(cell) or f"{short(cell)} is not a number"
            raise CellFault(i, text) from error


class _Codes(dict[Any, int]):
    """The code of each text; any other key has the code `unknown`."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__((text, code) for code, text in enumerate(texts))
        self.is_small = len(texts) < 255
        self.unknown = 255 if self.is_small else -1

    def __missing__(self, key: Any) -> int:
        return self.unknown

    def find(self, cells: Sequence[Any]) -> NDArray[np.intp]:
        """Return the code of each cell. Getting many items in one call is three times faster."""
        found = itemgetter(*cells)(self) if len(cells) > 1 else (self[cells[0]],)
        codes = np.frombuffer(bytes(found), np.uint8) if self.is_small else array("h", found)
        return np.array(codes, np.intp)


class TextEncoder:
    """Categories, a 0/1 feature for each value, or text: the logarithm of its share in training."""

    is_text = True
    low, high = -math.inf, math.inf

    def __init__(self, column: Column) -> None:
        name, counts = column.name, dict(column.values or {})
        self._rarest = len(counts) - 1  # the values are sorted by their number of rows
        self.takes_missing = column.missing > 0
        if self.takes_missing:
            counts[""] = column.missing
        self._is_category = column.kind == "category"
        if self._is_category:
            self.features = tuple(
                f"{name} = {text}" if text else f"{name} missing" for text in counts
            )
        else:
            self.features = (f"{name}: log share",)
        self._shares = np.log(np.array([*counts.values()], np.float64) / column.rows)
        self._codes = _Codes([*counts])
        self._missing = len(counts) - 1 if self.takes_missing else -1
        self._stored = np.array([store(text) for text in counts], f"S{TEXT_BYTES}")
        self._ones = {text: self._make_one(code, text) for text, code in self._codes.items()}

    def one(self, cell: Any, decimal: str) -> One:
        """Encode a cell; CellFault for one that is missing in a column that takes none."""
        found = self._ones.get(cell) if type(cell) is str else None
        if found is None:
            text = self._read(0, cell)
            found = self._ones.get(text)
            if found is None:
                features, _, _ = self._make_one(self._rarest, text)
                return features, pad(store(text)), UNKNOWN
        return found

    def many(self, cells: Sequence[Any], decimal: str, out: Floats) -> Many:
        """Encode the cells of a column into `out`, (n_rows, n_features), which is all zeros."""
        codes, new = self._find(cells)
        if self._is_category:
            out[np.arange(len(codes)), codes] = 1.0
        else:
            out[:, 0] = self._shares[codes]
        stored = self._stored[codes]
        for i, text in new.items():
            stored[i] = store(text)
        missing = int((codes == self._missing).sum()) if self.takes_missing else 0
        return stored, {UNKNOWN: len(new), MISSING: missing}

    def _find(self, cells: Sequence[Any]) -> tuple[NDArray[np.intp], dict[int, str]]:
        """Return the code of each cell, and the texts that are unknown by their row."""
        try:
            codes = self._codes.find(cells)
        except TypeError:  # there are lists or objects among them
            codes = np.full(len(cells), self._codes.unknown, np.intp)
        new: dict[int, str] = {}
        for i in np.flatnonzero(codes == self._codes.unknown).tolist():
            text = self._read(i, cells[i])
            code = self._codes[text]
            if code == self._codes.unknown:
                code, new[i] = self._rarest, text
            codes[i] = code
        return codes, new

    def _make_one(self, code: int, text: str) -> One:
        if self._is_category:
            features = tuple(float(code == other) for other in range(len(self.features)))
        else:
            features = (float(self._shares[code]),)
        return features, pad(store(text)), USUAL if text else MISSING

    def _read(self, i: int, cell: Any) -> str:
        try:
            text = parse_text(cell)
        except TypeError as error:
            raise CellFault(i, str(error)) from error
        if not text and not self.takes_missing:
            raise CellFault(i, _NONE_TAKEN)
        return text


class DateEncoder:
    """Dates and times: the parts that vary in training, NaN where the cell is missing."""

    is_text = True
    low, high = -math.inf, math.inf

    def __init__(self, column: Column) -> None:
        parts = column.parts or []
        self.features = tuple(f"{column.name}: {part}" for part in parts)
        self.takes_missing = column.missing > 0
        self._chosen = [list(PARTS).index(part) for part in parts]
        self._format = column.format or ISO
        if self._format not in FORMATS:
            raise ValueError(f"{self._format[:40]!r} is no format of dates")
        self._parse = date_parser(self._format)

    def one(self, cell: Any, decimal: str) -> One:
        """Encode a cell; CellFault if it is no date."""
        return self._encode(0, cell)

    def many(self, cells: Sequence[Any], decimal: str, out: Floats) -> Many:
        """Encode the cells of a column into `out`, (n_rows, n_features)."""
        known: dict[Any, One] = {}  # many rows have the same date
        stored, missing = [], 0
        for i, cell in enumerate(cells):
            key = cell if type(cell) is str else None
            found = known.get(key)
            if found is None:
                found = self._encode(i, cell)
                if key is not None:
                    known[key] = found
            out[i], text, odd = found
            missing += odd == MISSING
            stored.append(text)
        return np.array(stored, f"S{TEXT_BYTES}"), {MISSING: missing}

    def _encode(self, i: int, cell: Any) -> One:
        if is_missing(cell):
            if not self.takes_missing:
                raise CellFault(i, _NONE_TAKEN)
            return (math.nan,) * len(self._chosen), pad(b""), MISSING
        try:
            text = parse_text(cell)
            parts = self._parse(text)
        except (ValueError, TypeError, OverflowError, OSError) as error:
            what = f"{short(cell)} is no date; this column takes {describe_format(self._format)}"
            raise CellFault(i, what) from error
        return tuple(float(parts[part]) for part in self._chosen), pad(store(text)), USUAL


Encoder = NumberEncoder | TextEncoder | DateEncoder

_ENCODERS: dict[str, Callable[[Column], Encoder]] = {
    "number": NumberEncoder,
    "flag": NumberEncoder,
    "category": TextEncoder,
    "text": TextEncoder,
    "date": DateEncoder,
}
KINDS = tuple(_ENCODERS)
"""The kinds of columns that are trained on."""


def make_encoder(column: Column) -> Encoder:
    """Return the encoder of a column."""
    return _ENCODERS[column.kind](column)


def date_parser(format: str) -> Callable[[str], tuple[int, int, int]]:
    """Return the function that reads a date in a format of FORMATS as hour, weekday and day.

    It raises ValueError, OverflowError or OSError for any other text.

    >>> date_parser("%d.%m.%Y %H:%M")("30.11.2026 16:42")
    (16, 0, 30)
    """
    return partial(_read_parts, moment_parser(format))


def moment_parser(format: str) -> Callable[[str], datetime]:
    """Return the function that reads a date in a format of FORMATS, as written; raises likewise."""
    read = {EPOCH: _read_epoch, ISO: datetime.fromisoformat}.get(format)
    return partial(_read_date, read or partial(_read_format, format))


def describe_format(format: str) -> str:
    """Return what a column of dates takes, for an error, with an example."""
    if format == EPOCH:
        return "whole seconds since 1970, such as 1798650120"
    moment = datetime(2026, 12, 31, 16, 42, tzinfo=UTC)
    example = "2026-12-31 16:42:00" if format == ISO else moment.strftime(format)
    return (
        f"dates such as {example}" if "d" in format or format == ISO else f"times such as {example}"
    )


def _read_epoch(text: str) -> datetime:
    return datetime.fromtimestamp(float(text), UTC)


def _read_format(format: str, text: str) -> datetime:
    return datetime.strptime(text, format)  # as written, without a zone


def _read_date(read: Callable[[str], datetime], text: str) -> datetime:
    if not may_spell_numbers(text):
        raise ValueError("digits of another script")
    return read(text)


def _read_parts(read: Callable[[str], datetime], text: str) -> tuple[int, int, int]:
    moment = read(text)
    return moment.hour, moment.weekday(), moment.day


def store(text: str) -> bytes:
    """Return a text as it is recorded: see `cells.bounded`."""
    return bounded(text, TEXT_BYTES)


def pad(content: bytes) -> bytes:
    """Return the bytes of a recorded text, all TEXT_BYTES of them."""
    return content.ljust(TEXT_BYTES, b"\0")
