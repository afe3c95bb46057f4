"""Fitting with a float contamination: scikit-learn scores every training row for its offset."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.ensemble import IsolationForest

from service.scorer import compile_forest

from .measure import Ratio, Result, in_turns


def run(short: bool) -> Iterator[Result]:
    """Fit with contamination 0.1, and let the compiled forest score for the same offset."""
    n = 100_000 if short else 1_000_000
    X = np.random.default_rng(16).lognormal(size=(n, 2)).astype(np.float32)

    def ours() -> float:
        forest = IsolationForest(random_state=16).fit(X)
        return float(np.percentile(compile_forest(forest).score_samples(X), 10.0))

    def theirs() -> float:
        return float(IsolationForest(contamination=0.1, random_state=16).fit(X).offset_)

    assert ours() == theirs()
    yield Ratio(f"fit {n:,} x 2, contamination 0.1", "scikit-learn", *in_turns(3, ours, theirs))
