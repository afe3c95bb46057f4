"""Seldon components: the detector with the methods that Seldon's own wrapper calls.

They import numpy, numba and scikit-learn, but no web framework.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import IsolationForest

from .errors import BadInput, count
from .model.file import load_model
from .protocols.seldon.gauges import encode_gauges, gauge
from .rows import RawTable, Totals, Verdict
from .serving.detector import Detector
from .state.counts import Counts
from .truths import RunningConfusion


class _LatestCall(threading.local):
    """The results of a thread's latest call, for `metrics` and `tags`."""

    def __init__(self) -> None:
        self.put()

    def put(self, verdict: Verdict | None = None, totals: Totals | None = None) -> None:
        """Replace the results of the previous call."""
        self.verdict, self.totals = verdict, totals
        self.tags: dict[str, Any] = {}


class CoreIsolationForest:
    """An outlier detector as a Seldon component.

    The score is scikit-learn's `decision_function`: lower is more abnormal, and a row is an outlier
    when its score is below `threshold`. X is (n_rows, n_features) with its columns in the order of
    the training table; names are ignored. `metrics()` and `tags()` describe the calling thread's
    latest call.
    """

    def __init__(self, threshold: float = 0.0, load_path: str = "./models/") -> None:
        """Load `model.pickle` from the folder `load_path`; BadModel when it cannot be served."""
        model = load_model(Path(load_path) / "model.pickle")
        self._detector = Detector(model, float(threshold), by_name=False)
        self._counts = Counts()
        self._latest = _LatestCall()

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
        return self._counts.totals().samples

    @property
    def nb_outliers(self) -> int:
        """Outliers found so far."""
        return self._counts.totals().outliers

    def predict(
        self, X: ArrayLike, feature_names: Sequence[str] | None = None, meta: Any = None
    ) -> NDArray[np.int64]:
        """Return 1 for each outlier and 0 for each inlier, (n_rows,)."""
        return self._get_preds(X)

    def transform_input(
        self, X: ArrayLike, feature_names: Sequence[str] | None = None, meta: Any = None
    ) -> ArrayLike:
        """Return X unchanged; its labels become the tag `outlier-predictions`."""
        labels = self._get_preds(X)
        self._latest.tags = {"outlier-predictions": labels.tolist()}
        return X

    def send_feedback(
        self,
        X: ArrayLike,
        feature_names: Sequence[str],
        reward: float,
        truth: ArrayLike | None,
        routing: Any = None,
    ) -> None:
        """Accept feedback: `truth` is 0 or 1 for each row of X. Nothing is counted as scored."""
        self._latest.put()
        self._evaluate(X, truth)

    def health_status(self) -> str:
        """Answer a health check, which has no tags."""
        self._latest.put()
        return "healthy"

    def tags(self) -> dict[str, Any]:
        """Return the tags of this thread's latest call."""
        return dict(self._latest.tags)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the gauges of this thread's latest call; undefined ones are left out."""
        totals = self._latest.totals or self._counts.totals()
        return encode_gauges(totals, self.threshold, self._latest.verdict)

    def _get_preds(self, X: ArrayLike) -> NDArray[np.int64]:
        verdict = self._detect(X)
        self._latest.put(verdict, self._counts.add(verdict))
        return verdict.labels

    def _detect(self, X: ArrayLike) -> Verdict:
        return self._detector.detect(RawTable(X))

    def _evaluate(self, X: ArrayLike, truth: ArrayLike | None) -> None:
        """Ignore feedback."""


class OutlierIsolationForest(CoreIsolationForest):
    """A CoreIsolationForest that measures its quality by feedback."""

    def __init__(self, threshold: float = 0.0, load_path: str = "./models/") -> None:
        super().__init__(threshold, load_path)
        self._quality = RunningConfusion()
        self._quality_lock = threading.Lock()

    def _evaluate(self, X: ArrayLike, truth: ArrayLike | None) -> None:
        """Score the rows of X again and compare the labels with `truth`, if there is any."""
        try:
            truths = np.ravel(np.asarray([] if truth is None else truth, dtype=np.float64))
        except (ValueError, TypeError) as error:
            raise BadInput("truth is 0 for an inlier or 1 for an outlier") from error
        if not truths.size:
            return
        labels = self._detect(X).labels
        if len(truths) != len(labels):
            raise BadInput(f"{count(len(truths), 'truth')} for {count(len(labels), 'row')}")
        if not np.isin(truths, (0, 1)).all():
            raise BadInput("truth is 0 for an inlier or 1 for an outlier")
        with self._quality_lock:
            for label, correct in zip(labels.tolist(), truths.astype(int).tolist(), strict=True):
                self._quality.add(label, correct)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the gauges of the base class and those of the feedback so far."""
        with self._quality_lock:
            summary = self._quality.summary().gauges()
        return super().metrics() + [gauge(key, value) for key, value in summary.items()]
