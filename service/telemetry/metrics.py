"""Render the metrics as text for Prometheus."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ..state.counts import DURATION_BOUNDS, OTHER, SCORE_BOUNDS, Durations, Snapshot
from ..truths import FeedbackSummary
from .readings import Readings

MOST_SERIES = 500
"""Limit of the series on a page, for any number of features and routes."""

_MOST_FEATURES, _MOST_TIMED, _MOST_CELLS = 50, 20, 60
"""Limits of the columns with a drift, the routes with a histogram, the series of odd cells."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_HELP = {
    "isoserve_samples_total": "Samples scored for clients.",
    "isoserve_outliers_total": "Samples scored for clients with a score below the threshold.",
    "isoserve_score": "Scores (scikit-learn's decision_function); lower is more abnormal.",
    "isoserve_threshold": "A sample is an outlier when its score is below this.",
    "isoserve_outlier_share": "The share (0 to 1) of rows like training's that is flagged, by "
    "choice; absent while a threshold is chosen.",
    "isoserve_pvalue_below_total": "Samples with a p-value of at most the level; of rows like "
    "training's at most this share. Absent for a model without p-values.",
    "isoserve_pvalue_rows": "Training rows that the p-values rest on; absent without p-values.",
    "isoserve_training_outlier_share": "Share (0 to 1) of the training rows with a score below the "
    "threshold; absent without a model card.",
    "isoserve_drift_psi": "Population stability index of a feature, recent rows against training; "
    "the 50 largest.",
    "isoserve_score_drift_psi": "Population stability index of the score, recent rows against "
    "training.",
    "isoserve_cells_total": "Cells of scored rows that are unlike all of training's, by column "
    "and kind: out_of_range, unknown or missing; the columns with most.",
    "isoserve_model_swaps_total": "Models loaded while the service ran.",
    "isoserve_model_load_failures_total": "Model files refused while the service ran, by reason; "
    "the previous model stayed.",
    "isoserve_threshold_changes_total": "Threshold changes while the service ran.",
    "isoserve_model_info": "The model being served, in the labels; the value is always 1.",
    "isoserve_requests_total": "Requests answered, by route and status class.",
    "isoserve_request_duration_seconds": "Time to answer a request in seconds, by route.",
    "isoserve_storage_up": "1 if feedback can be stored, tested in its tables at each scrape; "
    "otherwise 0.",
    "isoserve_quarantined_files": "Files in the state folder that were quarantined, because they "
    "were damaged or of another layout.",
    "isoserve_feedback_unmatched_total": "Feedback messages about an unknown prediction, answered "
    "with 404.",
    "isoserve_feedback_rewards": "Rewards other than 0 in the stored feedback; falls when one is "
    "revised or deleted.",
    "isoserve_feedback_reward": "The sum of these rewards.",
    "isoserve_feedback_models": "Model versions that scored the rows with feedback; precision, "
    "recall and the other figures of feedback are about all of them.",
    "isoserve_workers": "Worker processes that are alive.",
    "isoserve_state_size_bytes": "Size of the file system that holds the state folder.",
    "isoserve_state_free_bytes": "Space on that file system that is free for the service.",
    "is_outlier": "Seldon: share of outliers in the latest request.",
    "anomaly_score": "Seldon: mean score of the latest request.",
    "nb_outliers": "Seldon: outliers so far.",
    "fraction_outliers": "Seldon: share of outliers so far.",
    "observation": "Seldon: samples scored so far.",
    "threshold": "Seldon: a sample is an outlier when its score is below this.",
    "seldon_api_model_feedback_total": "Seldon: feedback messages accepted, repeated ones too.",
    "seldon_api_model_feedback_reward_total": "Seldon: the sum of the positive rewards in them.",
    "true_negative": "Seldon: inliers not flagged, among rows with feedback.",
    "false_positive": "Seldon: inliers flagged, among rows with feedback.",
    "false_negative": "Seldon: outliers not flagged, among rows with feedback.",
    "true_positive": "Seldon: outliers flagged, among rows with feedback.",
    **{
        f"{name}_{suffix}": f"Seldon: {text.format(which)}."
        for suffix, which in (("tot", "so far"), ("roll", "in the window"))
        for name, text in (
            ("nb_labels", "rows with feedback, {}"),
            ("nb_outliers", "true outliers among rows with feedback, {}"),
            ("accuracy", "share of correct labels among rows with feedback, {}"),
            ("precision", "share of true outliers among flagged rows with feedback, {}"),
            (
                "recall",
                "share of flagged rows among true outliers with feedback, {}; absent while only "
                "flagged rows have feedback",
            ),
            ("f1", "harmonic mean of precision and recall, {}; absent where recall is"),
            ("f2", "F-score with recall weighted double, {}; absent where recall is"),
        )
    },
}

_HISTOGRAMS = "isoserve_score", "isoserve_request_duration_seconds"


def _kind(name: str) -> str:
    if name in _HISTOGRAMS:
        return "histogram"
    return "counter" if name.endswith("_total") else "gauge"


METRICS = {name: (_kind(name), text) for name, text in _HELP.items()}
"""The type and the help of each metric; docs/reference.md is written from this."""


def render_metrics(readings: Readings) -> bytes:
    """Return the readings in Prometheus' text format, version 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Families(readings))
    return generate_latest(registry)


class _Families(Collector):
    """Every family of METRICS, once."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def describe(self) -> list[Metric]:
        """Return nothing; without this method registering would collect every family."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family; the histograms of durations get the series that are left."""
        others = list(self._others())
        left = MOST_SERIES - sum(len(family.samples) for family in others)
        yield from others
        series = len(DURATION_BOUNDS) + 3  # of one histogram: with +Inf, count and sum
        yield _durations(self._readings.snapshot, min(_MOST_TIMED, left // series))

    def _others(self) -> Iterator[Metric]:
        readings = self._readings
        snapshot, changes, drift = readings.snapshot, readings.changes, readings.drift
        scores = _family("isoserve_score")
        _add_histogram(scores, {}, SCORE_BOUNDS, snapshot.score_buckets, snapshot.score_sum)
        yield scores
        yield _requests(snapshot)
        if drift.features:
            largest = drift.largest(_MOST_FEATURES)
            yield _family("isoserve_drift_psi", [({"feature": name}, psi) for name, psi in largest])
        low = [({"level": f"{level:g}"}, rows) for level, rows in readings.low_pvalues.items()]
        yield _family("isoserve_pvalue_below_total", low)
        yield _family("isoserve_cells_total", _most_cells(readings.odd_cells))
        failures = [({"reason": reason}, number) for reason, number in changes.failures.items()]
        yield _family("isoserve_model_load_failures_total", failures)
        yield _family("isoserve_model_info", [(readings.model_info, 1)])
        seldon = readings.seldon_labels
        for labels, numbers in (
            ({}, _numbers(readings)),
            (seldon, _seldon_gauges(snapshot, readings.threshold)),
            (seldon | {"method": "feedback"}, _feedback(readings.summary)),
        ):
            for name, value in numbers.items():
                yield _family(name, [(labels, value)])


def _numbers(readings: Readings) -> dict[str, float]:
    """Return the metrics without labels, apart from those that are unknown."""
    totals, changes, summary = readings.snapshot.totals, readings.changes, readings.summary
    size, free = readings.space or (None, None)
    numbers = {
        "isoserve_samples_total": totals.samples,
        "isoserve_outliers_total": totals.outliers,
        "isoserve_threshold": readings.threshold,
        "isoserve_outlier_share": readings.share,
        "isoserve_pvalue_rows": readings.calibrated,
        "isoserve_training_outlier_share": readings.training_outlier_share,
        "isoserve_score_drift_psi": readings.drift.score,
        "isoserve_model_swaps_total": changes.swaps,
        "isoserve_threshold_changes_total": changes.thresholds,
        "isoserve_storage_up": int(readings.storage_up),
        "isoserve_feedback_unmatched_total": summary.unmatched if summary else None,
        "isoserve_feedback_rewards": summary.rewarded if summary else None,
        "isoserve_feedback_reward": summary.reward if summary else None,
        "isoserve_feedback_models": len(summary.models) if summary else None,
        "isoserve_workers": readings.workers,
        "isoserve_state_size_bytes": size,
        "isoserve_state_free_bytes": free,
        "isoserve_quarantined_files": readings.quarantined,
    }
    return {name: value for name, value in numbers.items() if value is not None}


def _most_cells(odd: Mapping[tuple[str, str], int]) -> list[tuple[dict[str, str], float]]:
    """Return the samples of the columns with most odd cells.

    Those at 0 are there, too: Prometheus would miss the first of a series that begins later.
    """
    most = sorted(odd.items(), key=lambda item: -item[1])[:_MOST_CELLS]
    return [({"column": column, "kind": kind}, number) for (column, kind), number in most]


def _requests(snapshot: Snapshot) -> Metric:
    samples = [
        ({"route": route, "status": status_class}, durations.count)
        for (route, status_class), durations in sorted(snapshot.requests.items())
    ]
    return _family("isoserve_requests_total", samples)


def _seldon_gauges(snapshot: Snapshot, threshold: float) -> dict[str, float]:
    samples, outliers = snapshot.totals.samples, snapshot.totals.outliers
    gauges = {"nb_outliers": outliers, "observation": samples, "threshold": threshold}
    if samples:
        gauges["is_outlier"] = snapshot.last_outlier_share
        gauges["anomaly_score"] = snapshot.last_mean_score
        gauges["fraction_outliers"] = outliers / samples
    return gauges


def _feedback(summary: FeedbackSummary | None) -> dict[str, float]:
    if summary is None:
        return {}
    return summary.gauges() | {
        "seldon_api_model_feedback_total": summary.accepted,
        "seldon_api_model_feedback_reward_total": summary.accepted_reward,
    }


def _durations(snapshot: Snapshot, most: int) -> Metric:
    """Return at most `most` histograms: the routes requested first, and OTHER for the rest."""
    family = _family("isoserve_request_duration_seconds")
    routes = dict.fromkeys(route for route, _ in snapshot.requests if route != OTHER)
    shown = set(list(routes)[: max(most - 1, 0)])
    by_route: dict[str, Durations] = {}
    for (route, _), durations in snapshot.requests.items():
        name = route if route in shown else OTHER
        by_route[name] = by_route.get(name, Durations()) + durations
    for name, durations in sorted(by_route.items()):
        labels = {"route": name}
        _add_histogram(family, labels, DURATION_BOUNDS, durations.buckets, durations.seconds)
    return family


def _family(name: str, samples: Iterable[tuple[Mapping[str, str], float]] = ()) -> Metric:
    """Return the family of a metric, with its type and help, and these labels and values."""
    kind, text = METRICS[name]
    family = Metric(name.removesuffix("_total"), text, kind)
    for labels, value in samples:
        family.add_sample(name, dict(labels), value)
    return family


def _add_histogram(
    family: Metric,
    labels: dict[str, str],
    bounds: Sequence[float],
    buckets: Sequence[int],
    total: float,
) -> None:
    """Add the samples of one histogram.

    prometheus_client's own histogram family drops `_count` and `_sum` when a bound is negative.
    """
    cumulative = list(accumulate(buckets))
    for bound, value in zip([*map(str, bounds), "+Inf"], cumulative, strict=True):
        family.add_sample(f"{family.name}_bucket", labels | {"le": bound}, value)
    family.add_sample(f"{family.name}_count", labels, cumulative[-1])
    family.add_sample(f"{family.name}_sum", labels, total)
