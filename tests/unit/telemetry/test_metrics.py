"""The page of metrics: its size is limited, and no request is left out."""

from dataclasses import replace

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from service.model.baseline import Drift
from service.rows import Totals
from service.state.counts import OTHER, SERIES, Counts, Snapshot
from service.telemetry.metrics import MOST_SERIES, _Families, render_metrics
from service.telemetry.readings import Readings
from service.truths import Confusion, FeedbackSummary

KNOWN = FeedbackSummary(Confusion(1, 1, 1, 1), Confusion(1, 1, 1, 1))
WIDE = Drift(10_000, 0.1, {f"f{i}": i / 4096 for i in range(4096)})
READINGS = Readings(
    Snapshot(),
    threshold=0.0,
    model_info={"name": "clf", "version": "v"},
    seldon_labels={"model_name": "clf"},
    training_outlier_share=0.1,
    drift=WIDE,
    summary=KNOWN,
)


def samples(snapshot):
    page = render_metrics(replace(READINGS, snapshot=snapshot)).decode()
    families = text_string_to_metric_families(page)
    found = [sample for family in families for sample in family.samples]
    assert len(found) == sum(not line.startswith("#") for line in page.splitlines())
    return {(s.name, *s.labels.values()): s.value for s in found}


@pytest.fixture(scope="module")
def busy():
    """Counts of more routes and status classes than are shown one by one."""
    counts = Counts()
    for i in range(300):
        for status, times in (("2xx", 3), ("4xx", 2), ("5xx", 1)):
            for _ in range(times):
                counts.observe(f"/{i}", status, 0.001 * i)
    snapshot = counts.read()
    assert len(snapshot.requests) > SERIES - 5
    return snapshot


def test_the_number_of_series_is_limited_for_many_routes_and_features(busy):
    assert len(samples(busy)) <= MOST_SERIES


@pytest.mark.parametrize("series", [100, 170, 250, 330])
def test_the_number_of_series_is_limited_when_metrics_are_added(busy, monkeypatch, series):
    others = _Families._others

    def more(self):
        yield from others(self)
        family = GaugeMetricFamily("more", "More.", labels=["number"])
        for i in range(series - len(samples_without_routes)):
            family.add_metric([str(i)], i)
        yield family

    bare = render_metrics(READINGS).decode().splitlines()
    samples_without_routes = [line for line in bare if not line.startswith("#")]
    monkeypatch.setattr(_Families, "_others", more)
    seen = samples(busy)
    assert len(seen) <= MOST_SERIES
    assert seen["isoserve_request_duration_seconds_count", OTHER] > 0


def test_every_request_is_counted_if_there_are_many_routes(busy):
    seen = samples(busy)
    for name in ("isoserve_requests_total", "isoserve_request_duration_seconds_count"):
        assert sum(value for (key, *_), value in seen.items() if key == name) == 300 * 6
    name = "isoserve_request_duration_seconds"
    assert seen[f"{name}_count", "/0"] == 6
    assert (f"{name}_count", "/30") not in seen


def test_the_routes_requested_first_keep_their_own_histograms():
    counts = Counts()
    for i in range(40):
        counts.observe(f"/{i}", "2xx", 0.25)
    for i in range(40):
        counts.observe(f"/{i}", "4xx", 0.25)
    seen = samples(counts.read())
    timed = {key[1] for key in seen if key[0] == "isoserve_request_duration_seconds_sum"}
    assert timed == {OTHER, *(f"/{i}" for i in range(19))}
    assert seen["isoserve_request_duration_seconds_sum", "/7"] == 0.5
    assert seen["isoserve_request_duration_seconds_sum", OTHER] == 21 * 0.5


def test_the_features_that_drift_most_are_shown():
    seen = samples(Snapshot(totals=Totals(1, 0)))
    shown = {key[1] for key in seen if key[0] == "isoserve_drift_psi"}
    assert shown == {f"f{i}" for i in range(4046, 4096)}
