"""What a column holds, counted in bounded memory: its different values, and the parts of dates.

Both are exact as long as a column has at most `most` different values, which a table that is not
larger than the pool of training rows never exceeds. Beyond that the counts of common values and the
number of different ones are close.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from service.model.card import PARTS
from service.model.encoding import EPOCH, FORMATS, date_parser
from service.rows import Floats

if TYPE_CHECKING:
    import pyarrow as pa

Hashes = NDArray[np.uint64]

Moments = dict[str, Counter[int]]
"""How many rows have each value of each part of a date."""


class Distinct:
    """How many different values there are, from their 64-bit hashes.

    Beyond `most` values the number is estimated from the `most` smallest hashes (k minimum values:
    Bar-Yossef et al., 2002). Its relative standard error is 1 / sqrt(most), so 0.1 % for a million.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._smallest: Hashes = np.empty(0, np.uint64)
        self._new: list[Hashes] = []
        self._waiting = 0
        self._limit: int | None = None

    def add(self, hashes: Hashes) -> None:
        """Take the hashes of some values, (n,)."""
        new = hashes if self._limit is None else hashes[hashes < self._limit]
        self._new.append(new)
        self._waiting += len(new)
        if self._waiting > max(self._most, 1):
            self._merge()

    def count(self) -> int:
        """Return how many different values there were."""
        self._merge()
        if self._limit is None:
            return len(self._smallest)
        return round((self._most - 1) * 2.0**64 / self._limit)

    def _merge(self) -> None:
        merged = np.unique(np.concatenate([self._smallest, *self._new]))
        if len(merged) > self._most:
            merged = merged[: self._most]
            self._limit = int(merged[-1])
        self._smallest, self._new, self._waiting = merged, [], 0


def hash_numbers(numbers: Floats) -> Hashes:
    """Return a hash of each number, (n,) (splitmix64: Steele et al., 2014)."""
    bits = (numbers + 0.0).view(np.uint64)  # 0.0 and -0.0 are one number
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(31))


def _hash_texts(texts: Sequence[str]) -> Hashes:
    digests = b"".join(hashlib.blake2b(one.encode(), digest_size=8).digest() for one in texts)
    return np.frombuffer(digests, np.uint64)


class Values:
    """The different texts of a column, and how many rows have each; missing cells do not count.

    Beyond `most` texts only the more common half is counted on (after lossy counting: Manku and
    Motwani, 2002), and their number is estimated.
    """

    def __init__(self, most: int) -> None:
        self.total = 0
        """The rows with a text."""
        self._most = most
        self._words = 0
        self._tables: list[pa.Table] = []
        self._waiting = 0
        self._distinct: Distinct | None = None  # once there are too many

    def add(self, texts: pa.Array, counts: NDArray[np.int64]) -> None:
        """Take some different texts, and how many rows have each."""
        import pyarrow as pa  # noqa: PLC0415

        listed = texts.to_pylist()
        self.total += int(counts.sum())
        words = zip(listed, counts.tolist(), strict=True)
        self._words += sum(len(text.split()) * number for text, number in words)
        self._tables.append(pa.table({"text": texts, "rows": counts}))
        self._waiting += len(texts)
        if self._distinct is not None:
            self._distinct.add(_hash_texts(listed))
        if len(self._tables) > 1 and self._waiting > self._most:
            self._merge()

    @property
    def words(self) -> float:
        """The mean number of words of a text."""
        return self._words / self.total

    def count(self) -> int:
        """Return how many different texts there are."""
        table = self._merge()
        return len(table) if self._distinct is None else min(self._distinct.count(), self.total)

    def most_common(self, most: int) -> dict[str, int]:
        """Return the texts that most rows have, and their rows; of equals the first in order."""
        table = self._merge()
        if len(table) > most:
            rows = np.asarray(table["rows"])
            least = np.partition(rows, len(rows) - most)[len(rows) - most]
            table = table.take(np.flatnonzero(rows >= least))
        found = zip(table["text"].to_pylist(), table["rows"].to_pylist(), strict=True)
        return dict(sorted(found, key=lambda item: (-item[1], item[0]))[:most])

    def _merge(self) -> pa.Table:
        """Add up the rows of equal texts; of too many texts the less common half goes."""
        import pyarrow as pa  # noqa: PLC0415

        if not self._tables:
            return pa.table({"text": pa.array([], pa.string()), "rows": pa.array([], pa.int64())})
        table = self._tables[0]
        if len(self._tables) > 1:
            joined = pa.concat_tables(self._tables)
            grouped = joined.group_by("text", use_threads=False).aggregate([("rows", "sum")])
            table = grouped.select(["text", "rows_sum"]).rename_columns(["text", "rows"])
        if len(table) > self._most:
            if self._distinct is None:
                self._distinct = Distinct(self._most)
                self._distinct.add(_hash_texts(table["text"].to_pylist()))
            table = table.sort_by([("rows", "descending"), ("text", "ascending")])
            table = table.slice(0, max(self._most // 2, 1)).combine_chunks()
        self._tables, self._waiting = [table], 0
        return table


class Dates:
    """The formats of dates that read every text so far, and what they read."""

    def __init__(self, formats: Sequence[str] = ()) -> None:
        """Take the formats to try; without any, the first text says whether it may be a date."""
        self._given = bool(formats)
        self._started = self._given
        self._seen: dict[str, Moments] = {one: _no_moments() for one in formats}

    @property
    def is_possible(self) -> bool:
        """Whether there may be a format."""
        return bool(self._seen) or not self._started

    def add(self, texts: Sequence[str], counts: Sequence[int]) -> None:
        """Read some different texts, and how many rows have each."""
        if not self._started and texts:
            self._started = True
            if re.search(r"\d.*[-/.: T].*\d", texts[0]):
                formats = [one for one in FORMATS if one != EPOCH]
                self._seen = {one: _no_moments() for one in formats}
        for format in list(self._seen):
            if not _read_all(date_parser(format), texts, counts, self._seen[format]):
                del self._seen[format]

    def find(self, format: str = "") -> tuple[str, Moments] | None:
        """Return a format that reads every text, by default the first, and the parts of the dates.

        Where both are possible, the day comes before the month.
        """
        format = format or next(iter(self._seen), "")
        if format not in self._seen:
            return None
        return format, self._seen[format]


def _no_moments() -> Moments:
    return {part: Counter() for part in PARTS}


def _read_all(
    parse: Callable[[str], Any], texts: Sequence[str], counts: Sequence[int], seen: Moments
) -> bool:
    """Count the parts of each date; return whether all texts are dates."""
    parts = list(seen.values())
    try:
        for text, rows in zip(texts, counts, strict=True):
            for part, number in zip(parts, parse(text), strict=True):
                part[number] += rows
    except (ValueError, OverflowError, OSError):
        return False
    return True
