"""The distribution of the training rows, and how far recent rows have moved from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..rows import Floats

LEAST_ROWS = 1_000
"""With fewer rows chance alone would look like drift: ten bins over 1,000 rows give 0.01."""


# Enough rows that chance is 0.001, few enough that a burst shows soon; and of wide rows as many as
# are looked at in a fraction of a second.
_MOST_ROWS, _MOST_CELLS = 10_000, 4_000_000


# A bin spans a tenth of the training rows, as is usual for this index.
_BINS = 10


Read = Callable[[str, int], tuple[Floats, Floats]]
"""Given a model's version and n: the values (rows, n_features) and the scores (rows,) that it gave,
of the last n rows or fewer; values without columns where they are not known."""


@dataclass(frozen=True)
class Bins:
    """Bins with upper `edges` (k,), the last one open, and the `shares` (k + 1,) expected in them.

    No share is less than half a step of the quantiles: they do not tell it any finer.
    """

    edges: Floats
    shares: Floats
    floor: float

    @classmethod
    def from_quantiles(cls, quantiles: Sequence[float]) -> Bins:
        """Bin a column by equally spaced quantiles of its training rows, minimum to maximum.

        Equal quantiles are one value that many rows share; its bin is as many steps wide as there
        are. A value of a bin's size or more has a bin of its own, so that a 0/1 column is two bins.
        One more at each end takes what training never saw.
        """
        steps = len(quantiles) - 1
        least = steps // _BINS
        ends = {value: place for place, value in enumerate(quantiles)}  # the last place of each
        cuts: list[tuple[float, int]] = []  # upper edge and last place of each bin
        before: tuple[float, int] | None = None
        for cut in ends.items():
            if before and before not in cuts and cut[1] - before[1] >= least:
                cuts.append(before)
            if cut[1] - (cuts[-1][1] if cuts else 0) >= least:
                cuts.append(cut)
            before = cut
        if before and before not in cuts:
            cuts.append(before)
        edges = [np.nextafter(quantiles[0], -np.inf), *(value for value, _ in cuts)]
        places = [0, 0, *(place for _, place in cuts), steps]
        floor = 0.5 / steps
        return cls(np.array(edges), np.maximum(np.diff(places) / steps, floor), floor)

    def index(self, values: Floats) -> float:
        """Return the population stability index of some values (n,)."""
        places = np.searchsorted(self.edges, values, side="left")
        counts = np.bincount(places, minlength=len(self.shares))
        actual = np.maximum(counts / len(values), self.floor)
        return float(((actual - self.shares) * np.log(actual / self.shares)).sum())


@dataclass(frozen=True)
class Drift:
    """Population stability indices of the last `rows` rows; empty while those are too few."""

    rows: int = 0
    score: float | None = None
    features: Mapping[str, float] = field(default_factory=dict)

    def largest(self, most: int) -> list[tuple[str, float]]:
        """Return the features that drifted most, with their indices, the largest first."""
        return sorted(self.features.items(), key=lambda item: -item[1])[:most]


@dataclass(frozen=True)
class Baseline:
    """What training knew of a model's features and scores, to measure drift from."""

    version: str
    """12 hexadecimal digits."""
    features: Mapping[str, Sequence[float | None]]
    """The quantiles of each feature, as in the model's card."""
    score: Sequence[float]
    """The quantiles of the score."""

    def measure(self, read: Read) -> Drift:
        """Return the drift of the last rows that this model has scored."""
        most = _MOST_CELLS // max(len(self.features), 1)
        values, scores = read(self.version, max(LEAST_ROWS, min(_MOST_ROWS, most)))
        if len(scores) < LEAST_ROWS:
            return Drift(len(scores))
        found = {}
        # Without values there are no columns, and nothing is paired.
        for (name, bins), column in zip(self._bins.items(), values.T, strict=False):
            known = column[~np.isnan(column)]
            if bins and len(known) >= LEAST_ROWS:
                found[name] = bins.index(known)
        return Drift(len(scores), Bins.from_quantiles(self.score).index(scores), found)

    @cached_property
    def _bins(self) -> dict[str, Bins | None]:
        return {name: _bins(quantiles) for name, quantiles in self.features.items()}


def _bins(quantiles: Sequence[float | None]) -> Bins | None:
    known = [value for value in quantiles if value is not None]
    return Bins.from_quantiles(known) if len(known) == len(quantiles) else None
