"""Seldon components: the detector with the methods that Seldon's own wrapper calls.

They import numpy and numba, but no web framework, and no scikit-learn.
"""

import math
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BadInput, BadModel, BadSetting, count
from .model.content import read_model_file
from .model.file import Model, load_fitted, load_model
from .protocols.seldon.gauges import encode_gauges, gauge
from .rows import Floats, RawTable, Totals, Verdict
from .serving.detector import Detector
from .state.counts import Counts
from .threshold_choice import ThresholdChoice
from .truths import RunningConfusion


class _LatestCall(threading.local):
    """The results of a thread's latest call, for `metrics` and `tags`."""

    def __init__(self) -> None:
        self.put()

    def put(self, verdict: Verdict | None = None, totals: Totals | None = None) -> None:
        """Replace the results of the previous call."""
        self.verdict, self.totals = verdict, totals
        self.transformed: NDArray[np.int64] | None = None


class CoreIsolationForest:
    """An outlier detector as a Seldon component.

    The score is scikit-learn's `decision_function`: lower is more abnormal, and a row is an outlier
    when its score is below `threshold`. X is (n_rows, n_features). Named columns may come in any
    order if the model has names, too; columns without names are in the order of the training table.
    `metrics()`, `tags()`, `prediction`, `decision_val` and `prediction_meta` describe the calling
    thread's latest call.
    """

    def __init__(
        self,
        threshold: float = 0.0,
        load_path: str = "./models/",
        outlier_share: float | None = None,
    ) -> None:
        """Load `model.pickle` from the folder `load_path`; BadModel when it cannot be served.

        With `outlier_share` this share (0 to 1) of rows like training's is flagged, in place of a
        threshold. BadInput if both are given, or the model cannot promise the share.
        """
        threshold = _read_threshold(threshold)
        if outlier_share is not None and threshold:
            raise BadInput("threshold and outlier_share are both given; choose one of them")
        self._path = Path(load_path) / "model.pickle"
        choice = (
            ThresholdChoice(threshold)
            if outlier_share is None
            else ThresholdChoice(share=outlier_share)
        )
        self._detector = Detector(_load(Path(load_path))).flagging(choice)
        self._counts = Counts()
        self._latest = _LatestCall()

    @property
    def threshold(self) -> float:
        """The score below which a row is an outlier; a new one holds from the next call on."""
        return self._detector.threshold

    @threshold.setter
    def threshold(self, threshold: float) -> None:
        self._detector = self._detector.flagging(ThresholdChoice(_read_threshold(threshold)))

    @cached_property
    def clf(self) -> Any:
        """The fitted `sklearn.ensemble.IsolationForest`, loaded when it is first asked for.

        BadSetting if scikit-learn is not installed; BadModel if the file has changed since.
        """
        file, served = read_model_file(self._path), self._detector.model
        if file.sha256 != served.sha256:
            raise BadModel(f"{self._path} is no longer the file that is served", "sha256")
        try:
            return load_fitted(file)
        except ImportError as error:
            made = served.card.versions.get("scikit-learn") if served.card else None
            library = f"scikit-learn=={made}" if made else "scikit-learn"
            raise BadSetting(f"clf needs scikit-learn: pip install {library}") from error

    @property
    def N(self) -> int:  # noqa: N802 - Seldon's name
        """Samples scored so far."""
        return self._counts.totals().samples

    @property
    def nb_outliers(self) -> int:
        """Outliers found so far."""
        return self._counts.totals().outliers

    @property
    def prediction(self) -> NDArray[np.int64] | None:
        """The labels of this thread's latest call, (n_rows,); None if it scored nothing."""
        return None if self._latest.verdict is None else self._latest.verdict.labels

    @property
    def decision_val(self) -> Floats | None:
        """The scores of this thread's latest call, (n_rows,); None if it scored nothing."""
        return None if self._latest.verdict is None else self._latest.verdict.scores

    @property
    def pvalues(self) -> Floats | None:
        """The p-values of this thread's latest call, (n_rows,); None if it scored nothing.

        BadInput if the model has none; the text says why.
        """
        if self._latest.verdict is None:
            return None
        return self._detector.require_pvalues().of(self._latest.verdict.scores)

    @property
    def prediction_meta(self) -> NDArray[np.int64] | None:
        """The labels of this thread's latest call, if it was `transform_input`; else None."""
        return self._latest.transformed

    def predict(
        self, X: ArrayLike, feature_names: Sequence[str] | None = None, meta: Any = None
    ) -> NDArray[np.int64]:
        """Return 1 for each outlier and 0 for each inlier, (n_rows,)."""
        return self._get_preds(X, feature_names)

    def transform_input(
        self, X: ArrayLike, feature_names: Sequence[str] | None = None, meta: Any = None
    ) -> ArrayLike:
        """Return X unchanged; its labels become the tag `outlier-predictions`."""
        self._latest.transformed = self._get_preds(X, feature_names)
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
        self._evaluate(X, feature_names, truth)

    def health_status(self) -> str:
        """Answer a health check, which has no tags."""
        self._latest.put()
        return "healthy"

    def tags(self) -> dict[str, Any]:
        """Return the tags of this thread's latest call: the labels of a `transform_input`."""
        labels = self.prediction_meta
        return {} if labels is None else {"outlier-predictions": labels.tolist()}

    def metrics(self) -> list[dict[str, Any]]:
        """Return the gauges of this thread's latest call; undefined ones are left out."""
        totals = self._latest.totals or self._counts.totals()
        return encode_gauges(totals, self.threshold, self._latest.verdict)

    def _get_preds(
        self, X: ArrayLike, feature_names: Sequence[str] | None = None
    ) -> NDArray[np.int64]:
        verdict = self._detect(X, feature_names)
        self._latest.put(verdict, self._counts.add(verdict))
        return verdict.labels

    def _detect(self, X: ArrayLike, feature_names: Sequence[str] | None) -> Verdict:
        names, cells = _read_names(X, feature_names), X if isinstance(X, list) else np.asarray(X)
        return self._detector.detect(RawTable(cells, names))

    def _evaluate(
        self, X: ArrayLike, feature_names: Sequence[str] | None, truth: ArrayLike | None
    ) -> None:
        """Ignore feedback."""


class OutlierIsolationForest(CoreIsolationForest):
    """A CoreIsolationForest that measures its quality by feedback."""

    def __init__(
        self,
        threshold: float = 0.0,
        load_path: str = "./models/",
        outlier_share: float | None = None,
    ) -> None:
        super().__init__(threshold, load_path, outlier_share)
        self._quality = RunningConfusion()
        self._quality_lock = threading.Lock()

    def _evaluate(
        self, X: ArrayLike, feature_names: Sequence[str] | None, truth: ArrayLike | None
    ) -> None:
        """Score the rows of X again and compare the labels with `truth`, if there is any."""
        try:
            truths = np.ravel(np.asarray([] if truth is None else truth, dtype=np.float64))
        except (ValueError, TypeError) as error:
            raise BadInput("truth is 0 for an inlier or 1 for an outlier") from error
        if not truths.size:
            return
        labels = self._detect(X, feature_names).labels
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


def _load(folder: Path) -> Model:
    """Load `model.pickle` from a folder; BadModel names `load_path`, which these classes read."""
    path = folder / "model.pickle"
    try:
        return load_model(path)
    except BadModel as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise BadModel(
            f"{path} cannot be read ({error.__cause__.strerror}); give the folder that holds "
            "model.pickle as load_path, or make a model with `python -m training.train`",
            error.reason,
        ) from error


def _read_threshold(threshold: Any) -> float:
    """Return a threshold as a float; BadInput if it is not a finite number."""
    try:
        number = float(threshold)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"threshold is {threshold!r}; give a finite number, such as 0.0")
    return number


def _read_names(X: Any, feature_names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the columns, empty if there are none.

    A data frame has names itself. pandas' 0, 1, ... for columns without names are none.

    Raises:
        BadInput: `feature_names` contradicts the names of the data frame.
    """
    given = () if feature_names is None else tuple(map(str, feature_names))
    columns = list(getattr(X, "columns", ()))
    own = () if columns == list(range(len(columns))) else tuple(map(str, columns))
    if given and own and given != own:
        raise BadInput(
            f"feature_names are {', '.join(given)}, but the columns of X are {', '.join(own)}; "
            "pass X alone, or its values"
        )
    return given or own
