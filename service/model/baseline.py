"""The distribution of the training rows, and how far recent rows have moved from it.

The population stability index (PSI) of a column compares the shares of its values in some bins,
training (expected) against recent (actual): the sum of (actual - expected) * ln(actual / expected).
0 is the same distribution; by convention 0.1 is a moderate change and 0.25 a large one. Without
drift it is about the number of bins divided by the number of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..rows import Floats
from .card import PARTS, Column
from .encoding import ISO, moment_parser, store

LEAST_ROWS = 1_000
"""With fewer rows chance alone would look like drift: ten bins over 1,000 rows give 0.01."""

# Enough rows that chance alone gives only 0.001, and few enough that a burst shows soon. Fewer if
# the rows are wide, so that a measurement takes a fraction of a second.
_MOST_ROWS, _MOST_CELLS = 10_000, 4_000_000

_BINS = 10  # usual for this index: each holds a tenth of the training rows

_MOST_SHARES = 20
"""The most values of a category or text that have a bin of their own."""

_LEAST_SHARE = 0.005
"""No bin has a smaller share: the quantiles of numbers are no finer."""

_SPANS = {"hour": timedelta(days=1), "weekday": timedelta(days=7), "day": timedelta(days=31)}
"""How much time dates must span before they may have every value of a part."""

_PART: Mapping[str, Callable[[datetime], int]] = {
    "hour": lambda moment: moment.hour,
    "weekday": datetime.weekday,
    "day": lambda moment: moment.day - 1,
}
"""The bin of a date for each part."""

Read = Callable[[str, int], tuple[Mapping[str, NDArray[Any]], Floats]]
"""Returns the cells of each column, (rows,) floats or bytes, and the scores, (rows,).

They are those of the last rows that a model scored.
The arguments are the model's version and the most rows to look at. There are no columns if the
cells were not kept."""


def recent_rows(columns: int) -> int:
    """Return how many of the last rows are compared with training, for a number of columns."""
    return max(LEAST_ROWS, min(_MOST_ROWS, _MOST_CELLS // max(columns, 1)))


@dataclass(frozen=True)
class Bins:
    """Bins of a column, and the share of the training rows in each.

    No share is less than half a quantile step, because the quantiles are no finer.
    """

    edges: Floats
    """(k,) The upper edge of each bin; the last bin has none."""
    shares: Floats
    """(k + 1,) The expected shares."""
    floor: float
    """The smallest share."""

    @classmethod
    def from_quantiles(cls, quantiles: Sequence[float]) -> Bins:
        """Make bins from equally spaced quantiles of the training rows, minimum to maximum.

        A value that fills a bin or more has a bin of its own, so that a 0/1 column is two bins. The
        first and the last bin are for values outside of training's range.
        """
        steps = len(quantiles) - 1
        cuts = _cuts(quantiles)
        edges = [np.nextafter(quantiles[0], -np.inf), *(value for value, _ in cuts)]
        ends = [0, 0, *(end for _, end in cuts), steps]
        floor = 0.5 / steps
        return cls(np.array(edges), np.maximum(np.diff(ends) / steps, floor), floor)

    def index(self, values: Floats) -> float:
        """Return the population stability index of recent values (n,)."""
        bins = np.searchsorted(self.edges, values, side="left")
        counts = np.bincount(bins, minlength=len(self.shares))
        actual = np.maximum(counts / len(values), self.floor)
        return _compare(actual, self.shares)


def _compare(actual: Floats, expected: Floats) -> float:
    """Return the population stability index of the shares in some bins, none of which is 0."""
    return float(((actual - expected) * np.log(actual / expected)).sum())


def _cuts(quantiles: Sequence[float]) -> list[tuple[float, int]]:
    """Return the upper edge of each bin, and the index of the last quantile in it."""
    least = (len(quantiles) - 1) // _BINS  # quantile steps in a bin
    last = {value: i for i, value in enumerate(quantiles)}  # the last index of equal quantiles
    cuts: list[tuple[float, int]] = []
    before: tuple[float, int] | None = None
    for value in last.items():
        if before and before not in cuts and value[1] - before[1] >= least:
            cuts.append(before)  # this value fills a bin of its own
        if value[1] - (cuts[-1][1] if cuts else 0) >= least:
            cuts.append(value)
        before = value
    if before and before not in cuts:
        cuts.append(before)
    return cuts


@dataclass(frozen=True)
class Shares:
    """The most common values of a category or text, and the share of the training rows of each."""

    values: Mapping[bytes, int]
    """Each value as it is recorded, and its bin; a missing cell is an empty text."""
    shares: Floats
    """(k + 1,) The expected shares; the last bin is for all other values."""

    @classmethod
    def from_column(cls, column: Column) -> Shares:
        """Make bins from the values of a card's column."""
        counts: Counter[bytes] = Counter()
        for value, number in (column.values or {}).items():
            counts[store(value)] += number
        if column.missing:
            counts[b""] = column.missing
        most = counts.most_common(_MOST_SHARES)
        shares = [number / column.rows for _, number in most]
        shares.append(1 - sum(shares))
        values = {value: i for i, (value, _) in enumerate(most)}
        return cls(values, np.maximum(shares, _LEAST_SHARE))

    def index(self, cells: NDArray[np.bytes_]) -> float:
        """Return the population stability index of recent cells (n,)."""
        found, numbers = np.unique(cells, return_counts=True)
        bins = [self.values.get(value, len(self.values)) for value in found.tolist()]
        counts = np.bincount(bins, numbers, len(self.shares))
        return _compare(np.maximum(counts / len(cells), _LEAST_SHARE), self.shares)


@dataclass(frozen=True)
class Moments:
    """The share of the training rows of a date at each hour, weekday and day of the month.

    Rows of one hour never look like those of a year. So a part is compared only where the recent
    dates span all of its values: a day for the hours, a week for the weekdays.
    """

    parse: Callable[[str], datetime]
    shares: Mapping[str, Floats]
    """The expected shares of the values of each part."""

    @classmethod
    def from_column(cls, column: Column) -> Moments:
        """Make bins from the counts in a card's column."""
        shares = {
            part: np.maximum(np.array(counts) / max(sum(counts), 1), _LEAST_SHARE)
            for part, counts in (column.moments or {}).items()
        }
        return cls(moment_parser(column.format or ISO), shares)

    def index(self, cells: NDArray[np.bytes_]) -> float | None:
        """Return the largest index of the parts of recent cells (n,).

        None if there are too few dates, or they span too little time.
        """
        dates, rows = self._read(cells)
        if rows.sum() < LEAST_ROWS:
            return None
        span = max(dates) - min(dates)
        indices = [
            _compare(np.maximum(_share(part, dates, rows), _LEAST_SHARE), expected)
            for part, expected in self.shares.items()
            if span >= _SPANS[part]
        ]
        return max(indices, default=None)

    def recent(self, cells: NDArray[np.bytes_]) -> Mapping[str, Floats]:
        """Return the shares of recent cells (n,) at the values of each part; none without dates."""
        dates, rows = self._read(cells)
        return {part: _share(part, dates, rows) for part in self.shares} if dates else {}

    def _read(self, cells: NDArray[np.bytes_]) -> tuple[list[datetime], NDArray[np.intp]]:
        """Return the different dates among some cells, and how many rows have each."""
        found, numbers = np.unique(cells[cells != b""], return_counts=True)
        moments = [_parse(self.parse, text) for text in found.tolist()]
        return [one for one in moments if one], numbers[[one is not None for one in moments]]


def _share(part: str, dates: Sequence[datetime], rows: NDArray[np.intp]) -> Floats:
    """Return the share of rows at each value of a part."""
    bins = [_PART[part](moment) for moment in dates]
    shares: Floats = np.bincount(bins, rows, len(PARTS[part])) / rows.sum()
    return shares


def _parse(parse: Callable[[str], datetime], text: bytes) -> datetime | None:
    """Return the moment as it is written; None for a text that is no such date."""
    try:
        return parse(text.decode()).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None


@dataclass(frozen=True)
class Drift:
    """Population stability indices of the last `rows` rows; no indices if the rows are too few."""

    rows: int = 0
    score: float | None = None
    features: Mapping[str, float] = field(default_factory=dict)

    def largest(self, most: int) -> list[tuple[str, float]]:
        """Return up to `most` features and their indices, the largest index first."""
        return sorted(self.features.items(), key=lambda item: -item[1])[:most]


@dataclass(frozen=True)
class Baseline:
    """The distribution of a model's columns and scores in training."""

    version: str
    """12 hexadecimal digits."""
    columns: Sequence[Column]
    """The columns of the model's card."""
    score: Sequence[float]
    """The quantiles of the score."""

    def measure(self, read: Read) -> Drift:
        """Return the drift of the last rows that this model has scored."""
        columns, scores = read(self.version, recent_rows(len(self.columns)))
        if len(scores) < LEAST_ROWS:
            return Drift(len(scores))
        indices: dict[str, float] = {}
        for name, bins in self._bins.items():
            cells = columns.get(name, np.empty(0))
            if isinstance(bins, Bins):
                cells = cells[~np.isnan(cells)]
            if bins and len(cells) >= LEAST_ROWS:
                index = bins.index(cells)
                indices |= {} if index is None else {name: index}
        return Drift(len(scores), Bins.from_quantiles(self.score).index(scores), indices)

    @cached_property
    def _bins(self) -> dict[str, Bins | Shares | Moments | None]:
        """The bins of each column; None where training had no value."""
        return {column.name: _make_bins(column) for column in self.columns}


def _make_bins(column: Column) -> Bins | Shares | Moments | None:
    if column.values:
        return Shares.from_column(column)
    if column.moments:
        return Moments.from_column(column)
    if column.quantiles is None or None in column.quantiles:
        return None
    return Bins.from_quantiles(cast(list[float], column.quantiles))
