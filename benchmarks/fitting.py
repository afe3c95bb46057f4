"""Fitting with a float contamination, where scikit-learn scores all rows to find the offset."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.ensemble import IsolationForest

from training.forest import fit_forest

from .measure import Ratio, Result, in_turns


def run(short: bool) -> Iterator[Result]:
    """Fit with contamination 0.1 by our training and by scikit-learn; both give one offset."""
    n = 100_000 if short else 1_000_000
    X = np.random.default_rng(16).lognormal(size=(n, 2))

    def ours() -> float:
        return float(fit_forest(X, contamination=0.1).offset_)

    def theirs() -> float:
        return float(IsolationForest(contamination=0.1, random_state=16).fit(X).offset_)

    assert ours() == theirs()
    times = in_turns(3 if short else 5, ours, theirs)
    yield Ratio(f"fit {n:,} x 2, contamination 0.1", "scikit-learn", *times)
