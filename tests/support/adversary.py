"""Forests and rows that could show a difference between the scorer and scikit-learn."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import IsolationForest

TABLES = ["normal", "skewed", "integers", "constant"]
TABLES += ["duplicates", "scales", "infinite", "missing"]

# The values from which a case is drawn.
CHOICES = {
    "table": TABLES,
    "n_rows": [1, 2, 17, 300, 1000],
    "n_features": [1, 2, 3, 8, 30, 200],
    "n_estimators": [1, 7, 8, 9, 30],
    "max_samples": ["auto", 1.0, 0.5, 1],
    "max_features": [1.0, 0.7, 0.3, 1],
    "bootstrap": [False, True],
    "weighted": [False, True],
    "contamination": ["auto", 0.1],
}

# Zeros, denormals and the ends of float32; above 3.4028235677973362e38 float64 rounds to infinity.
SPECIAL = [0.0, -0.0, 7e-46, 1e-45, -1e-45, 1e-310, -1e-310, 1.1754944e-38, 1e300, -1e300]
SPECIAL += [3.4028234663852886e38, 3.4028235677973362e38, 3.4028235677973366e38]
SPECIAL += [np.inf, -np.inf, np.nan]


@dataclass(frozen=True)
class Case:
    """A training table, and the parameters of the forest that is fitted on it."""

    seed: int = 0
    table: str = "normal"
    n_rows: int = 300
    n_features: int = 3
    n_estimators: int = 10
    max_samples: float | int | str = "auto"
    max_features: float | int = 1.0
    bootstrap: bool = False
    weighted: bool = False
    contamination: float | str = "auto"

    def training_rows(self):
        rng = np.random.default_rng(self.seed)
        X = rng.normal(size=(self.n_rows, self.n_features))
        if self.table == "skewed":
            X = np.exp(X)
        elif self.table == "integers":
            X = np.round(3 * X)
        elif self.table == "constant":
            X[:, ::2] = 7.0
        elif self.table == "duplicates":
            X = X[rng.integers(0, 1 + self.n_rows // 10, self.n_rows)]
        elif self.table == "scales":
            X *= 10.0 ** rng.integers(-6, 38, self.n_features)
        elif self.table == "infinite":
            X[:, 0] = np.where(X[:, 0] > 2, np.inf, X[:, 0])
        elif self.table == "missing":
            X[rng.random(X.shape) < 0.2] = np.nan
        return X

    def fit(self):
        """Fit scikit-learn's forest."""
        X = self.training_rows()
        weights = np.linspace(0.5, 2.0, len(X)) if self.weighted else None
        forest = IsolationForest(
            n_estimators=self.n_estimators,
            max_samples=self.max_samples if len(X) > 1 else 1.0,
            max_features=self.max_features,
            bootstrap=self.bootstrap,
            contamination=self.contamination,
            random_state=self.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about too few samples, or too large values
            return forest.fit(X, sample_weight=weights)

    def rows(self, forest, n):
        """Make n rows of thresholds, their neighbours, training values and special values."""
        rng = np.random.default_rng([self.seed, n])
        training = self.training_rows()
        X = training[rng.integers(0, len(training), n)]
        for j, values in enumerate(thresholds(forest)):
            at = rng.random(n) < 0.5 * bool(values)
            X[at, j] = neighbours(rng, rng.choice(values, at.sum())) if at.any() else X[at, j]
        at = rng.random(X.shape) < 0.1
        X[at] = rng.choice(SPECIAL, at.sum())
        return X


def thresholds(forest):
    """Return a list of the thresholds of each feature of a forest."""
    found = [[] for _ in range(forest.n_features_in_)]
    for estimator, columns in zip(forest.estimators_, forest.estimators_features_, strict=True):
        tree = estimator.tree_
        for i in np.flatnonzero(tree.feature >= 0):
            found[columns[tree.feature[i]]].append(tree.threshold[i])
    return found


def neighbours(rng, values):
    """Return each value itself or a float near it, where rounding to float32 matters."""
    with np.errstate(all="ignore"):
        single = values.astype(np.float32)
        singles = [single, np.nextafter(single, np.inf), np.nextafter(single, -np.inf)]
        at, above, below = (kind.astype(np.float64) for kind in singles)
        half = at + (above - at) / 2  # the float64 above it rounds up, the one below rounds down
        kinds = [values, at, above, below, half]
        kinds += [np.nextafter(kind, end) for kind in (values, half) for end in (np.inf, -np.inf)]
    return np.choose(rng.integers(0, len(kinds), len(values)), kinds)


def answers(forest, X):
    """Return scikit-learn's score_samples, decision_function and predict."""
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # scikit-learn warns of values beyond float32
        return forest.score_samples(X), forest.decision_function(X), forest.predict(X)
