"""The profile of a column: all that recognition wants to know of it, gathered batch by batch.

A table that fits the memory is one batch, so the same rules decide about small and large tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.cells import LARGEST
from service.model.encoding import EPOCH
from service.rows import Floats
from service.tables.batches import Place
from service.tables.read import Cells
from training.datasets import POOL
from training.values import Dates, Distinct, Hashes, Moments, Values, hash_numbers

DAY = "%Y%m%d"
"""The format of dates that are written as whole numbers, as 20261231."""

_ID_NAMES = {"id", "ids", "uuid", "guid", "pk", "rowid", "rownum", "index", "idx"}
_DATE_NAMES = {"date", "time", "timestamp", "datetime", "ts", "epoch", "created", "updated", "at"}
_DATE_NAMES |= {"modified", "when", "day", "started", "ended", "start", "end"}

_EARLIEST, _LATEST = 631_152_000, 2_524_608_000  # 1990 and 2050, in seconds since 1970

_FIRST_DAY, _LAST_DAY = 19_000_101, 21_001_231  # of dates such as 20261231

# scikit-learn splits a column only where 32-bit floats differ by more than this.
_SMALLEST_STEP = np.float32(1e-7)

_PIECE = 2**20  # numbers that are hashed at a time


@dataclass(frozen=True)
class Spot:
    """A cell, and where it is."""

    place: Place
    row: int
    """In its file, from 0."""
    cell: Any
    """As the file has it."""

    def __str__(self) -> str:
        return f"row {self.row} of {self.place}"


class Profile:
    """What is known of a column after some batches of its cells."""

    def __init__(self, name: str, wanted: str = "", most: int = POOL) -> None:
        """Begin with nothing.

        `wanted` is a kind that was chosen for the column, or "use"; `most` the number of different
        values that are counted exactly.
        """
        self.name, self.wanted = name, wanted
        words = _tokens(name)
        self.names_rows = words[-1] in _ID_NAMES
        """Whether the name is that of an id."""
        self.names_date = bool(_DATE_NAMES & set(words))
        """Whether the name is that of a date."""
        self.rows = self.missing = self.bad = self.huge = 0
        """Cells; cells that are missing; texts that are no numbers; numbers beyond 32 bits."""
        self.first: Spot | None = None
        self.example: Spot | None = None
        """The first cell that is not missing."""
        self.first_missing: Spot | None = None
        self.first_bad: Spot | None = None
        self.first_huge: Spot | None = None
        self.low = self.high = self.first_number = np.nan
        self.has_leading_zeros = False
        """Whether a whole number begins with a zero, as a code does and no number."""
        self.values = Values(most)
        self._counted = 0
        self._types: set[str] = set()
        self._has_texts = False
        self._are_truths = self._are_flags = True
        self._numbers = Distinct(most)
        self._hashes = 0
        self._last = self._step = np.nan
        self._has_steps = True
        self._text_dates = Dates()
        self._number_dates = Dates((EPOCH, DAY))

    def add(self, cells: Cells, place: Place, first: int = 0) -> None:
        """Take the next cells of the column; the first one is in row `first` of its file."""
        n = len(cells)
        if not n:
            return
        missing = cells.missing
        if self.first is None:
            self.first = Spot(place, first, cells.written(0))
        self.example = self.example or _find(~missing, cells, place, first)
        self.first_missing = self.first_missing or _find(missing, cells, place, first)
        self.rows += n
        self.missing += int(missing.sum())
        if missing.all() and (self._has_texts or cells.texts is not None):  # of no type
            self._has_texts = True
            return
        self._types.add(cells.type)
        if cells.numbers is not None:
            self._add_numbers(cells.numbers, cells, place, first)
        if cells.texts is not None:
            self._add_texts(cells, place, first)
        elif self._counts_values:
            self.count_values(cells)

    @property
    def known(self) -> int:
        """The cells that are not missing."""
        return self.rows - self.missing

    @property
    def type(self) -> str:
        """'bool', 'int', 'float' or 'text'."""
        if self._has_texts and (self.bad or not self.known):
            return "bool" if self.known and self._are_truths else "text"
        if self._types == {"bool"} and not self._has_texts:
            return "bool"
        return "int" if self._types <= {"int", "bool"} else "float"

    @property
    def has_numbers(self) -> bool:
        """Whether all cells are numbers or truth values."""
        return self.type != "text"

    @property
    def has_texts(self) -> bool:
        """Whether the file holds the cells as texts."""
        return self._has_texts

    @property
    def are_flags(self) -> bool:
        """Whether all numbers are 0 or 1."""
        return self._are_flags

    @property
    def varies(self) -> bool:
        """Whether a tree can split the numbers; it can split missing cells from the others."""
        with np.errstate(over="ignore"):
            low, high = np.float32(self.low), np.float32(self.high)
        return bool(self.missing or high > low + _SMALLEST_STEP)

    @property
    def step(self) -> float | None:
        """The step of whole numbers that count the rows: 1 for all of a range, in any order."""
        if self.high - self.low + 1 == self.known and self._hashes == self._hash_range():
            return 1.0
        return float(self._step) if self._has_steps and self._step else None

    @property
    def is_epoch(self) -> bool:
        """Whether the numbers may be seconds since 1970."""
        return bool(self.low >= _EARLIEST and self.high <= _LATEST)

    @property
    def is_day(self) -> bool:
        """Whether the numbers may be days such as 20261231."""
        return bool(self.low >= _FIRST_DAY and self.high <= _LAST_DAY)

    def count_numbers(self) -> int:
        """Return how many different numbers a column with an id's name has."""
        return self._numbers.count()

    def find_dates(self, format: str = "") -> tuple[str, Moments] | None:
        """Return the format of dates that all cells have, and their parts; else None."""
        return (self._number_dates if self.has_numbers else self._text_dates).find(format)

    @property
    def lacks_values(self) -> bool:
        """Whether the values are wanted, but were not counted from the first batch on."""
        are_codes = self._counts_values or (self.type == "int" and self.has_leading_zeros)
        are_words = self._has_texts and self.type in ("bool", "text")
        return (are_codes or are_words) and self._counted < self.known

    def recount(self, most: int) -> None:
        """Forget the values, which are then counted anew by `count_values`."""
        self.values, self._counted = Values(most), 0

    def count_values(self, cells: Cells) -> None:
        """Count the different texts of some cells."""
        self.values.add(*cells.counts)
        self._counted += int(cells.counts[1].sum())

    @property
    def _counts_values(self) -> bool:
        """Whether values are counted though all cells are numbers."""
        return self.names_rows or self.wanted in ("category", "text")

    def _add_numbers(self, numbers: Floats, cells: Cells, place: Place, first: int) -> None:
        huge = np.abs(numbers) > LARGEST
        self.first_huge = self.first_huge or _find(huge, cells, place, first)
        self.huge += int(huge.sum())
        self.low = float(np.fmin(self.low, np.fmin.reduce(numbers)))
        self.high = float(np.fmax(self.high, np.fmax.reduce(numbers)))
        known = numbers[~np.isnan(numbers)]
        if len(known) and np.isnan(self.first_number):
            self.first_number = float(known[0])
        self._are_flags = self._are_flags and bool(np.isin(known, (0, 1)).all())
        if self.wanted == "date" or (self.names_date and (self.is_epoch or self.is_day)):
            self._number_dates.add(*_counted(cells))
        if "float" in self._types or not len(known):
            return
        hashes = hash_numbers(known)
        self._hashes = (self._hashes + _add_up(hashes)) % 2**64
        if self.names_rows:
            self._numbers.add(hashes)
        self._add_steps(known)

    def _add_steps(self, known: Floats) -> None:
        if not self._has_steps:
            return
        steps = np.diff(known if np.isnan(self._last) else np.append(self._last, known))
        if len(steps):
            self._step = steps[0] if np.isnan(self._step) else self._step
            self._has_steps = bool((steps == self._step).all())
        self._last = known[-1]

    def _add_texts(self, cells: Cells, place: Place, first: int) -> None:
        self._has_texts = True
        self.first_bad = self.first_bad or _find(cells.bad, cells, place, first)
        self.bad += int(cells.bad.sum())
        is_number = cells.type in ("int", "float")
        if cells.type == "int":
            self.has_leading_zeros = self.has_leading_zeros or cells.has_leading_zeros
        if self._are_truths and cells.type != "bool":
            self._are_truths = is_number and self._are_flags and _are_digits(cells)
        if not is_number or self.has_leading_zeros or self._counts_values:
            self.count_values(cells)
        if self._text_dates.is_possible:
            self._text_dates.add(*_counted(cells))

    def _hash_range(self) -> int:
        """Return the sum of the hashes of all whole numbers from the lowest to the highest."""
        total = 0
        for start in np.arange(self.low, self.high + 1, _PIECE):
            end = min(start + _PIECE, self.high + 1)
            total += _add_up(hash_numbers(np.arange(start, end, dtype=np.float64)))
        return total % 2**64


def _find(where: Any, cells: Cells, place: Place, first: int) -> Spot | None:
    """Return the first cell of those that are marked."""
    i = int(where.argmax())
    return Spot(place, first + i, cells.written(i)) if where[i] else None


def _counted(cells: Cells) -> tuple[list[str], list[int]]:
    """Return the different texts of some cells, and how many rows have each."""
    texts, counts = cells.counts
    return texts.to_pylist(), counts.tolist()


def _are_digits(cells: Cells) -> bool:
    """Return whether each text is the digit 0 or 1."""
    return set(cells.counts[0].to_pylist()) <= {"0", "1"}


def _add_up(hashes: Hashes) -> int:
    return int(hashes.sum(dtype=np.uint64))  # it wraps


def _tokens(name: str) -> list[str]:
    """Return the words of a name in lower case.

    >>> _tokens("customerId"), _tokens("created_at")
    (['customer', 'id'], ['created', 'at'])
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
    return [word.lower() for word in words] or [""]
