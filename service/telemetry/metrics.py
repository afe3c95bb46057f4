"""The numbers, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..model.baseline import Drift
from ..settings import Settings
from ..state.counts import DURATION_BOUNDS, OTHER, SCORE_BOUNDS, Durations, Snapshot
from ..state.generations import Changes
from ..truths import FeedbackSummary

# A page of metrics stays readable, however wide the rows, whatever is asked and whoever adds to it.
MOST_SERIES = 500
_MOST_FEATURES = 50
_MOST_TIMED = 20

_NO_LABELS: Mapping[str, str] = MappingProxyType({})

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# name -> (type, help); the README's table is held against this.
METRICS = {
    "isoserve_samples_total": ("counter", "Samples scored for clients."),
    "isoserve_outliers_total": ("counter", "Samples among them with a score below the threshold."),
    "isoserve_score": (
        "histogram",
        "Scores (scikit-learn's decision_function): lower is more abnormal.",
    ),
    "isoserve_threshold": ("gauge", "A sample is an outlier when its score is below this."),
    "isoserve_training_outlier_share": (
        "gauge",
        "Share (0 to 1) of the training rows with a score below the threshold; "
        "absent without a model card.",
    ),
    "isoserve_drift_psi": (
        "gauge",
        "Population stability index of a feature, recent rows against training; the largest 50.",
    ),
    "isoserve_score_drift_psi": ("gauge", "The same of the score."),
    "isoserve_model_swaps_total": ("counter", "Models taken while the service ran."),
    "isoserve_model_load_failures_total": (
        "counter",
        "Models refused while the service ran, by reason; the former one was served on.",
    ),
    "isoserve_threshold_changes_total": ("counter", "Thresholds set while the service ran."),
    "isoserve_model_info": ("gauge", "The model being served: its labels; the value is 1."),
    "isoserve_requests_total": ("counter", "Requests answered, by route and class of status."),
    "isoserve_request_duration_seconds": (
        "histogram",
        "Time to answer a request, by route, in seconds.",
    ),
    "isoserve_storage_up": (
        "gauge",
        "1 while feedback can be stored, tried at each scrape; else 0.",
    ),
    "isoserve_feedback_unmatched_total": (
        "counter",
        "Feedback about no known prediction, answered with 404.",
    ),
    "isoserve_workers": ("gauge", "Worker processes that are alive."),
    "isoserve_state_size_bytes": ("gauge", "Size of the file system that the state folder is on."),
    "isoserve_state_free_bytes": ("gauge", "What of it is free for the service."),
    "is_outlier": ("gauge", "Seldon: share of outliers in the latest request."),
    "anomaly_score": ("gauge", "Seldon: mean score of the latest request."),
    "nb_outliers": ("gauge", "Seldon: outliers so far."),
    "fraction_outliers": ("gauge", "Seldon: share of outliers so far."),
    "observation": ("gauge", "Seldon: samples scored so far."),
    "threshold": ("gauge", "Seldon: a sample is an outlier when its score is below this."),
    "seldon_api_model_feedback_total": ("counter", "Seldon: feedback with a reward other than 0."),
    "seldon_api_model_feedback_reward_total": ("counter", "Seldon: the sum of the rewards."),
    "true_negative": ("gauge", "Seldon: inliers not flagged, of the rows that feedback judged."),
    "false_positive": ("gauge", "Seldon: inliers flagged."),
    "false_negative": ("gauge", "Seldon: outliers not flagged."),
    "true_positive": ("gauge", "Seldon: outliers flagged."),
    **{
        f"{name}_{suffix}": ("gauge", f"Seldon: {text}, {which}.")
        for suffix, which in (("tot", "so far"), ("roll", "in the window"))
        for name, text in (
            ("nb_labels", "rows that feedback judged"),
            ("nb_outliers", "true outliers among them"),
            ("accuracy", "share of right labels"),
            ("precision", "share of outliers among the flagged"),
            ("recall", "share of flagged among the outliers"),
            ("f1", "harmonic mean of precision and recall"),
            ("f2", "the same, recall weighted double"),
        )
    },
}


@dataclass(frozen=True)
class Facts:
    """What is not counted: the model and the names that this service goes by."""

    threshold: float
    model_info: Mapping[str, str]
    """Labels of isoserve_model_info."""
    training_outlier_share: float | None
    seldon_labels: dict[str, str]


@dataclass(frozen=True)
class Readings:
    """All that a page of metrics shows."""

    snapshot: Snapshot
    facts: Facts
    drift: Drift = field(default_factory=Drift)
    changes: Changes = field(default_factory=Changes)
    """Of the model and the threshold."""
    summary: FeedbackSummary | None = None
    """From feedback; None where that cannot be read."""
    storage_up: bool = True
    workers: int = 0
    """Processes that are alive."""
    space: tuple[int, int] | None = None
    """Bytes of the state folder's file system: in all, and free; None where it cannot be told."""


def render_metrics(readings: Readings) -> bytes:
    """Return the exposition in Prometheus' text format, version 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Families(readings))
    return generate_latest(registry)


class _Families(Collector):
    """Every family of METRICS, once."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def describe(self) -> list[Metric]:
        """Name nothing in advance, so that registering collects nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield them; durations, which take the most series, get what the others leave."""
        others = list(self._others())
        left = MOST_SERIES - sum(len(family.samples) for family in others)
        yield from others
        yield _durations(
            self._readings.snapshot, min(_MOST_TIMED, left // (len(DURATION_BOUNDS) + 3))
        )

    def _others(self) -> Iterator[Metric]:
        snapshot, facts = self._readings.snapshot, self._readings.facts
        yield _counter("isoserve_samples_total", snapshot.totals.samples)
        yield _counter("isoserve_outliers_total", snapshot.totals.outliers)
        yield _score(snapshot)
        yield _requests(snapshot)
        yield _gauge("isoserve_threshold", facts.threshold)
        if facts.training_outlier_share is not None:
            yield _gauge("isoserve_training_outlier_share", facts.training_outlier_share)
        yield from _drift(self._readings.drift)
        yield from _changes(self._readings.changes)
        yield _gauge("isoserve_model_info", 1, facts.model_info)
        for name, value in _seldon_gauges(snapshot, facts.threshold).items():
            yield _gauge(name, value, facts.seldon_labels)
        yield _gauge("isoserve_storage_up", int(self._readings.storage_up))
        if self._readings.summary is not None:
            yield from _feedback_metrics(
                self._readings.summary, facts.seldon_labels | {"method": "feedback"}
            )
        yield _gauge("isoserve_workers", self._readings.workers)
        if self._readings.space:
            yield _gauge("isoserve_state_size_bytes", self._readings.space[0])
            yield _gauge("isoserve_state_free_bytes", self._readings.space[1])


def _seldon_gauges(snapshot: Snapshot, threshold: float) -> dict[str, float]:
    totals = snapshot.totals
    gauges: dict[str, float] = {}
    if totals.samples:
        gauges["is_outlier"] = snapshot.last_outlier_share
        gauges["anomaly_score"] = snapshot.last_mean_score
        gauges["fraction_outliers"] = totals.outliers / totals.samples
    gauges["nb_outliers"] = totals.outliers
    gauges["observation"] = totals.samples
    gauges["threshold"] = threshold
    return gauges


def _feedback_metrics(summary: FeedbackSummary, labels: Mapping[str, str]) -> Iterator[Metric]:
    yield _counter("isoserve_feedback_unmatched_total", summary.unmatched)
    yield _counter("seldon_api_model_feedback_total", summary.rewarded, labels)
    yield _counter("seldon_api_model_feedback_reward_total", summary.reward, labels)
    for name, value in summary.gauges().items():
        yield _gauge(name, value, labels)


def seldon_labels(settings: Settings) -> dict[str, str]:
    """Return the labels that Seldon's wrapper puts on each metric, but for the worker's pid."""
    image, _, version = settings.model_image.rpartition(":")
    values = {
        "deployment_name": settings.deployment_name,
        "model_name": settings.model_name,
        "model_image": image,
        "model_version": version,
        "predictor_name": settings.predictor_name,
        "predictor_version": settings.predictor_version,
        "seldon_deployment_name": settings.deployment_name,
        "image_name": image,
        "image_version": version,
    }
    known = {name: value or "NOT_IMPLEMENTED" for name, value in values.items()}
    return known | {"method": "predict"}


def _counter(name: str, value: float, labels: Mapping[str, str] = _NO_LABELS) -> Metric:
    family = CounterMetricFamily(name.removesuffix("_total"), METRICS[name][1], labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _gauge(name: str, value: float, labels: Mapping[str, str] = _NO_LABELS) -> Metric:
    family = GaugeMetricFamily(name, METRICS[name][1], labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _changes(changes: Changes) -> Iterator[Metric]:
    yield _counter("isoserve_model_swaps_total", changes.swaps)
    name = "isoserve_model_load_failures_total"
    failures = CounterMetricFamily(name.removesuffix("_total"), METRICS[name][1], labels=["reason"])
    for reason, number in changes.failures.items():
        failures.add_metric([reason], number)
    yield failures
    yield _counter("isoserve_threshold_changes_total", changes.thresholds)


def _drift(drift: Drift) -> Iterator[Metric]:
    if drift.score is not None:
        yield _gauge("isoserve_score_drift_psi", drift.score)
    if drift.features:
        name = "isoserve_drift_psi"
        family = GaugeMetricFamily(name, METRICS[name][1], labels=["feature"])
        for feature, index in drift.largest(_MOST_FEATURES):
            family.add_metric([feature], index)
        yield family


def _score(snapshot: Snapshot) -> Metric:
    family = Metric("isoserve_score", METRICS["isoserve_score"][1], "histogram")
    _add_histogram(family, {}, SCORE_BOUNDS, snapshot.score_buckets, snapshot.score_sum)
    return family


def _requests(snapshot: Snapshot) -> Metric:
    text = METRICS["isoserve_requests_total"][1]
    family = CounterMetricFamily("isoserve_requests", text, labels=["route", "status"])
    for key, durations in sorted(snapshot.requests.items()):
        family.add_metric(key, durations.count)
    return family


def _durations(snapshot: Snapshot, most: int) -> Metric:
    """Give the routes that were asked first a histogram each, and all others one together."""
    name = "isoserve_request_duration_seconds"
    family = Metric(name, METRICS[name][1], "histogram")
    routes = dict.fromkeys(route for route, _ in snapshot.requests if route != OTHER)
    apart = set(list(routes)[: max(most - 1, 0)])
    by_route: dict[str, Durations] = {}
    for (route, _), durations in snapshot.requests.items():
        shown = route if route in apart else OTHER
        by_route[shown] = by_route.get(shown, Durations()) + durations
    for route, durations in sorted(by_route.items()):
        labels = {"route": route}
        _add_histogram(family, labels, DURATION_BOUNDS, durations.buckets, durations.seconds)
    return family


def _add_histogram(
    family: Metric,
    labels: dict[str, str],
    bounds: Sequence[float],
    buckets: Sequence[int],
    total: float,
) -> None:
    """Add the samples of one histogram by hand.

    prometheus_client's own histogram family drops `_count` and `_sum` when a bound is negative.
    """
    cumulative = list(accumulate(buckets))
    for bound, value in zip([*map(str, bounds), "+Inf"], cumulative, strict=True):
        family.add_sample(f"{family.name}_bucket", labels | {"le": bound}, value)
    family.add_sample(f"{family.name}_count", labels, cumulative[-1])
    family.add_sample(f"{family.name}_sum", labels, total)
