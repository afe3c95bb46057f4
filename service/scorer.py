"""The forest, ready to score."""

from __future__ import annotations

from dataclasses import dataclass

from sklearn.ensemble import IsolationForest

from .rows import Floats


@dataclass(frozen=True)
class CompiledForest:
    """A fitted forest that scores tables of floats."""

    forest: IsolationForest

    def score_samples(self, X: Floats) -> Floats:
        """Return scikit-learn's `score_samples`: (n_rows,) in [-1, 0), lower is more abnormal."""
        scores: Floats = self.forest.score_samples(X)
        return scores

    def decision_function(self, X: Floats) -> Floats:
        """Return scikit-learn's `decision_function`: (n_rows,), below 0 is an outlier to it."""
        return self.score_samples(X) - float(self.forest.offset_)


def compile_forest(forest: IsolationForest) -> CompiledForest:
    """Prepare a fitted forest for scoring."""
    return CompiledForest(forest)
