"""The forests and rows that the benchmarks use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from service.model.scorer import CompiledForest, compile_forest


@dataclass(frozen=True)
class Subject:
    """A forest, its compiled form for one thread, and 100,000 rows it was not trained on."""

    name: str
    forest: IsolationForest
    compiled: CompiledForest
    rows: NDArray[np.float64]


@cache
def subject(name: str) -> Subject:
    """Fit a forest: small (100 x 256 rows), seldon (100 x 40,000), wide (1,000 x 256) or deep.

    Columns are right-skewed, like amounts of money. Those of the deep forest are uniform, which
    makes its trees twenty times as large as those of the seldon forest.
    """
    rng = np.random.default_rng(16)
    draw = rng.random if name == "deep" else rng.lognormal
    n_rows, n_features = (100_000, 2) if name == "small" else (50_000, 18)
    forest = IsolationForest(
        n_estimators=1000 if name == "wide" else 100,
        max_samples=0.8 if name in {"seldon", "deep"} else 256,
        random_state=16,
    ).fit(draw(size=(n_rows, n_features)))
    rows = draw(size=(100_000, n_features))
    return Subject(name, forest, compile_forest(forest, threads=1), rows)
