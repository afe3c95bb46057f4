"""Fit an Isolation Forest."""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn.ensemble import IsolationForest

from service.errors import CannotTrain, count
from service.model.scorer import compile_forest
from service.rows import Floats

Auto = Literal["auto"]


def fit_forest(  # noqa: PLR0913 -- scikit-learn's own parameters
    X: Floats,
    *,
    contamination: float | Auto = "auto",
    n_estimators: int = 100,
    max_samples: float | Auto = "auto",
    max_features: float = 1.0,
    seed: int = 16,
) -> IsolationForest:
    """Return the same forest as `IsolationForest(...).fit(X)`.

    This is faster where contamination is a number: scikit-learn then scores every row to find the
    offset, a percentile of the scores. Our scorer gives the same scores in less time.
    """
    _check_amounts(X, max_samples, max_features)
    forest = IsolationForest(
        n_estimators=n_estimators,
        max_samples=max_samples,
        max_features=max_features,
        contamination="auto",
        random_state=seed,
    ).fit(X)
    if contamination != "auto":
        scores = compile_forest(forest).score_samples(X)
        forest.offset_ = np.percentile(scores, 100.0 * contamination)
        forest.set_params(contamination=contamination)
    return forest


def _check_amounts(X: Floats, max_samples: float | Auto, max_features: float) -> None:
    """Refuse more rows or columns than the table has. An int is a count, a float a share."""
    rows, columns = X.shape
    if isinstance(max_samples, int) and max_samples > rows:
        raise CannotTrain(f"--max_samples {max_samples}: the table has {count(rows, 'row')}")
    if isinstance(max_samples, float) and int(max_samples * rows) < 1:
        raise CannotTrain(f"--max_samples {max_samples} of {count(rows, 'row')} is less than one")
    if isinstance(max_features, int) and max_features > columns:
        raise CannotTrain(
            f"--max_features {max_features}: the table has {count(columns, 'column')}"
        )
