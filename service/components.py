"""What the service does: tell outliers from inliers.

`Detector` is the one path that everything goes through. The two classes put it into the shape that
Seldon's own wrapper expects, so they need nothing of the web.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import IsolationForest

from .artifact import Model, load_model
from .counts import Counts, Totals
from .errors import BadInput, count
from .quality import Quality
from .rows import Rows, Verdict
from .seldon_v1 import encode_gauges, gauge


@dataclass(frozen=True)
class Detector:
    """A model and the threshold below which a score is an outlier's."""

    model: Model
    threshold: float = 0.0
    by_name: bool = True
    """Whether named columns may come in any order; else names are ignored."""

    def detect(self, rows: Rows) -> Verdict:
        """Score rows; nothing is counted and nothing remembered."""
        by_name = self.by_name and self.model.named
        values = rows.arranged(self.model.features, by_name).values
        return Verdict(self.model.scorer.decision_function(values), self.threshold)


class CoreIsolationForest:
    """An outlier detector as a Seldon component.

    The score is scikit-learn's `decision_function`: lower is more abnormal, and a row is an outlier
    when its score is below `threshold`. X is (n_rows, n_features), its columns in the order of the
    training table: names are ignored here. `metrics()` and `tags()` speak of the calling thread's
    latest call.
    """

    def __init__(self, threshold: float = 0.0, load_path: str = "./models/") -> None:
        """Load `model.pickle` from the folder `load_path`; BadModel when it cannot be served."""
        model = load_model(Path(load_path) / "model.pickle")
        self._detector = Detector(model, threshold, by_name=False)
        self._counts = Counts()
        self._latest = threading.local()

    @property
    def threshold(self) -> float:
        """The score below which a row is an outlier."""
        return self._detector.threshold

    @property
    def clf(self) -> IsolationForest:
        """The fitted scikit-learn forest."""
        return self._detector.model.forest

    @property
    def N(self) -> int:  # noqa: N802 - Seldon's name
        """Samples scored so far."""
        return self._counts.read().totals.samples

    @property
    def nb_outliers(self) -> int:
        """Outliers among them."""
        return self._counts.read().totals.outliers

    def predict(
        self, X: ArrayLike, feature_names: Sequence[str] | None = None, meta: Any = None
    ) -> NDArray[np.int64]:
        """Return 1 for each outlier and 0 for each inlier, (n_rows,)."""
        labels = self._get_preds(X)
        self._latest.tags = {}
        return labels

    def transform_input(
        self, X: ArrayLike, feature_names: Sequence[str] | None = None, meta: Any = None
    ) -> ArrayLike:
        """Return X unchanged; its labels become the tag `outlier-predictions`."""
        self._latest.tags = {"outlier-predictions": self._get_preds(X).tolist()}
        return X

    def send_feedback(
        self,
        X: ArrayLike,
        feature_names: Sequence[str],
        reward: float,
        truth: ArrayLike | None,
        routing: Any = None,
    ) -> None:
        """Take note of feedback; this class learns nothing from it."""

    def tags(self) -> dict[str, Any]:
        """Return the tags of this thread's latest call."""
        return dict(getattr(self._latest, "tags", {}))

    def metrics(self) -> list[dict[str, Any]]:
        """Return the gauges of this thread's latest call; what is not defined yet is left out."""
        verdict: Verdict | None = getattr(self._latest, "verdict", None)
        totals: Totals = getattr(self._latest, "totals", None) or self._counts.read().totals
        return encode_gauges(totals, self.threshold, verdict)

    def _get_preds(self, X: ArrayLike) -> NDArray[np.int64]:
        verdict = self._detect(X)
        self._latest.verdict = verdict
        self._latest.totals = self._counts.add(verdict)
        return verdict.labels

    def _detect(self, X: ArrayLike) -> Verdict:
        return self._detector.detect(Rows.parse(X))


class OutlierIsolationForest(CoreIsolationForest):
    """A CoreIsolationForest that learns from feedback how good it is."""

    def __init__(self, threshold: float = 0.0, load_path: str = "./models/") -> None:
        super().__init__(threshold, load_path)
        self._quality = Quality()
        self._quality_lock = threading.Lock()

    def send_feedback(
        self,
        X: ArrayLike,
        feature_names: Sequence[str],
        reward: float,
        truth: ArrayLike | None,
        routing: Any = None,
    ) -> None:
        """Judge the rows of X, scored again, by `truth`: 0 or 1 a row; without truth do nothing.

        Nothing is counted as a prediction.
        """
        truths = np.ravel(np.asarray([] if truth is None else truth, dtype=np.float64))
        if not truths.size:
            return
        labels = self._detect(X).labels
        if len(truths) != len(labels):
            raise BadInput(f"{count(len(truths), 'truth')} for {count(len(labels), 'row')}")
        if not np.isin(truths, (0, 1)).all():
            raise BadInput("truth is 0 for an inlier or 1 for an outlier")
        with self._quality_lock:
            for label, known in zip(labels.tolist(), truths.astype(int).tolist(), strict=True):
                self._quality.add(label, known)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the gauges of the base class and those that feedback has made known."""
        with self._quality_lock:
            learned = self._quality.gauges()
        return super().metrics() + [gauge(key, value) for key, value in learned.items()]
