"""Drift: how far recent rows have moved from the training rows, as population stability indices.

The index of a column compares the shares of its values in some bins, training (expected) against
recent (actual): the sum of (actual - expected) * ln(actual / expected). 0 is the same distribution;
by custom 0.1 is worth a look and 0.25 is another population. Without any drift it is about the
number of bins divided by the number of rows.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..rows import Floats
from ..state.shared import Cell, MappedFile

LEAST_ROWS = 1_000
"""With fewer rows chance alone would look like drift: ten bins over 1,000 rows give 0.01."""

# Enough rows that chance is 0.001, few enough that a burst shows soon; and of wide rows as many as
# are looked at in a fraction of a second.
_MOST_ROWS, _MOST_CELLS = 10_000, 4_000_000

# A bin spans a tenth of the training rows, as is usual for this index.
_BINS = 10

# Seconds from one measurement to the next, and until one is too old to be shown.
_EVERY, _STALE = 5.0, 60.0

# The numbers that are shared, by place in a copy of their cell; place 0 is the sequence.
_VERSION, _MEASURED, _ROWS, _SCORE, _FEATURES = range(1, 6)

Read = Callable[[str, int], tuple[Floats, Floats]]
"""Given a model's version and n: the values (rows, n_features) and the scores (rows,) that it gave,
of the last n rows or fewer; values without columns where they are not known."""

logger = logging.getLogger(__name__)


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


class DriftWatch:
    """The drift of the model being served, measured in one process and read in all.

    The latest figures lie in memory that is shared with the processes forked after this object was
    made. One of those that have begun to watch holds a lock and measures every few seconds; when it
    dies, the kernel gives the lock to another. So every process tells the same, and none measures
    while it answers. Figures of another model than the reader's, or of a minute ago, are not shown.
    """

    def __init__(self, read: Read, baseline: Callable[[], Baseline | None], features: int) -> None:
        """Watch the drift from `baseline()`, that of the current model, of so many features.

        It is None where training's quantiles are not known.
        """
        self._read, self._baseline = read, baseline
        layout = {"kind": "drift", "features": features}
        self._file = MappedFile.anonymous(layout, 8 * Cell.words(_FEATURES + features))
        body = memoryview(self._file.memory)[self._file.start :]
        self._cell = Cell(body.cast("q"), body.cast("d"), 0, _FEATURES + features)

    def begin(self) -> None:
        """Measure from now on, in a thread of this process, unless another process does."""
        threading.Thread(target=self._watch, name="drift", daemon=True).start()

    def latest(self) -> Drift:
        """Return the latest drift of the current model; an empty one while there is none."""
        baseline = self._baseline()
        words, floats = self._cell.read()
        age = time.monotonic_ns() - words[_MEASURED]
        if baseline is None or words[_VERSION] != int(baseline.version, 16) or age > _STALE * 1e9:
            return Drift()
        score = None if math.isnan(floats[_SCORE]) else floats[_SCORE]
        indices = zip(baseline.features, floats[_FEATURES:], strict=True)
        known = {name: index for name, index in indices if not math.isnan(index)}
        return Drift(words[_ROWS], score, known)

    def measure(self) -> None:
        """Measure now, and let every process know; for one process at a time."""
        baseline = self._baseline()
        if baseline is None:
            return
        drift = baseline.measure(self._read)
        words, floats, place = self._cell.begin()
        words[place + _VERSION] = int(baseline.version, 16)
        words[place + _MEASURED] = time.monotonic_ns()
        words[place + _ROWS] = drift.rows
        floats[place + _SCORE] = math.nan if drift.score is None else drift.score
        for i, name in enumerate(baseline.features, place + _FEATURES):
            floats[i] = drift.features.get(name, math.nan)
        self._cell.commit()

    def _watch(self) -> None:
        locks = self._file.locks()  # released by the kernel when this process dies
        while True:
            try:
                if locks.take(0):
                    self.measure()
            except Exception:  # what is wrong now may be right in a while
                logger.exception("drift cannot be measured")
            time.sleep(_EVERY)


def _bins(quantiles: Sequence[float | None]) -> Bins | None:
    known = [value for value in quantiles if value is not None]
    return Bins.from_quantiles(known) if len(known) == len(quantiles) else None
