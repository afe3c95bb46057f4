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
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..rows import Floats
from .card import Column
from .encoding import store

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
        return float(((actual - self.shares) * np.log(actual / self.shares)).sum())


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
        actual = np.maximum(counts / len(cells), _LEAST_SHARE)
        return float(((actual - self.shares) * np.log(actual / self.shares)).sum())


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
        indices = {}
        for name, bins in self._bins.items():
            cells = columns.get(name, np.empty(0))
            if isinstance(bins, Bins):
                cells = cells[~np.isnan(cells)]
            if bins and len(cells) >= LEAST_ROWS:
                indices[name] = bins.index(cells)
        return Drift(len(scores), Bins.from_quantiles(self.score).index(scores), indices)

    @cached_property
    def _bins(self) -> dict[str, Bins | Shares | None]:
        """The bins of each column; None for dates, and where training had no value."""
        return {column.name: _make_bins(column) for column in self.columns}


def _make_bins(column: Column) -> Bins | Shares | None:
    if column.values:
        return Shares.from_column(column)
    if column.quantiles is None or None in column.quantiles:
        return None
    return Bins.from_quantiles(cast(list[float], column.quantiles))
