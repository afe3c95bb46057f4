"""Exact running counts, kept in one place."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .rows import Verdict

# decision_function lies in (-1, 1) and nearly always in -0.5..0.5: score_samples is in [-1, 0) and
# the offset subtracted from it is -0.5, or lower for a small contamination.
SCORE_BOUNDS = tuple(round(-0.5 + 0.05 * i, 2) for i in range(21))

# Seconds. One row takes well under a millisecond, a batch of 200,000 about one second.
DURATION_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0)


@dataclass(frozen=True)
class Totals:
    """Samples scored so far and the outliers among them."""

    samples: int = 0
    outliers: int = 0


@dataclass(frozen=True)
class Durations:
    """Requests of one route and status class: how many, and how long they took."""

    count: int = 0
    seconds: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS) + 1)
    """How many fell into each interval of DURATION_BOUNDS, the last one open."""


@dataclass(frozen=True)
class Snapshot:
    """All counts at one moment."""

    totals: Totals = Totals()
    score_sum: float = 0.0
    score_buckets: tuple[int, ...] = (0,) * (len(SCORE_BOUNDS) + 1)
    """How many scores fell into each interval of SCORE_BOUNDS, the last one open."""
    last_outlier_share: float = 0.0
    last_mean_score: float = 0.0
    """Of the latest scored request; meaningless while nothing was scored."""
    requests: Mapping[tuple[str, str], Durations] = field(default_factory=dict)
    """(route, status class such as '2xx') to durations; only what has happened."""


class Counts:
    """Counts shared by the threads of this process.

    A lock makes each update one step, so `add` returns totals that include its own rows and every
    row added before it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot = Snapshot()

    def add(self, verdict: Verdict) -> Totals:
        """Count the rows of one verdict and return the totals that include them."""
        places = np.searchsorted(SCORE_BOUNDS, verdict.scores, side="left")
        buckets = np.bincount(places, minlength=len(SCORE_BOUNDS) + 1)
        outliers = int(verdict.labels.sum())
        with self._lock:
            old = self._snapshot
            totals = Totals(old.totals.samples + len(verdict), old.totals.outliers + outliers)
            self._snapshot = Snapshot(
                totals,
                old.score_sum + float(verdict.scores.sum()),
                tuple(int(n) for n in old.score_buckets + buckets),
                outliers / len(verdict),
                float(verdict.scores.mean()),
                old.requests,
            )
        return totals

    def observe(self, route: str, status_class: str, seconds: float) -> None:
        """Count one answered request."""
        place = bisect_left(DURATION_BOUNDS, seconds)
        with self._lock:
            requests = dict(self._snapshot.requests)
            old = requests.get((route, status_class), Durations())
            buckets = tuple(n + (i == place) for i, n in enumerate(old.buckets))
            requests[route, status_class] = Durations(old.count + 1, old.seconds + seconds, buckets)
            self._snapshot = replace(self._snapshot, requests=requests)

    def read(self) -> Snapshot:
        """Return all counts as they are now."""
        return self._snapshot
