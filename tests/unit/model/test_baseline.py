"""Population stability indices: worked out by hand, on real columns, and with too little data."""

import math
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.model.baseline import LEAST_ROWS, Baseline, Bins, Drift, Moments
from service.model.card import Column
from tests.support.cards import number

DATA = Path(__file__).parents[4] / "shared/data"
PERCENT = np.linspace(0, 1, 101)
RANDOM = np.random.default_rng(16)
VERSION = "0123456789ab"


def columns(values):
    """The columns of a record by name: a, b, or f0, f1, ... of many."""
    names = "ab" if values.shape[1] < 3 else [f"f{i}" for i in range(values.shape[1])]
    return dict(zip(names, values.T, strict=False))


def quantiles(values):
    return np.quantile(values, PERCENT).tolist()


def test_distinct_quantiles_give_ten_bins_and_two_open_ends():
    bins = Bins.from_quantiles(list(range(101)))
    assert bins.edges[1:].tolist() == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert bins.shares.tolist() == [0.005, *[0.1] * 10, 0.005]


def test_equal_quantiles_merge_into_one_bin():
    bins = Bins.from_quantiles([-1.0] * 5 + [0.0] * 70 + list(range(1, 27)))
    assert bins.edges[1:].tolist() == [-1, 0, 10, 20, 26]
    assert bins.shares == pytest.approx([0.005, 0.04, 0.7, 0.1, 0.1, 0.06, 0.005])


def test_the_index_equals_one_computed_by_hand():
    bins = Bins.from_quantiles([0.0] * 51 + [1.0] * 50)
    recent = np.array([0.0] * 200 + [1.0] * 800)
    by_hand = (0.2 - 0.5) * math.log(0.2 / 0.5) + (0.8 - 0.5) * math.log(0.8 / 0.5)
    assert bins.index(recent) == pytest.approx(by_hand)


def test_the_order_of_rows_does_not_matter():
    bins = Bins.from_quantiles(quantiles(RANDOM.normal(size=5000)))
    rows = RANDOM.normal(1, size=2000)
    assert bins.index(rows) == bins.index(np.sort(rows)) > 0.25


@pytest.mark.parametrize("value", [0.0, -3.5, 1e300])
def test_a_constant_column_drifts_only_when_it_changes(value):
    bins = Bins.from_quantiles([value] * 101)
    assert bins.index(np.full(1000, value)) == 0
    assert bins.index(np.full(1000, np.nextafter(value, 2e300))) > 1
    assert bins.index(np.full(1000, np.nextafter(value, -1))) > 1


@pytest.mark.parametrize("share", [0.0005, 0.005, 0.05, 0.5, 0.95, 0.999])
def test_a_binary_column_drifts_when_its_share_of_ones_changes(share):
    flags = (RANDOM.random(20_000) < share).astype(float)
    bins = Bins.from_quantiles(quantiles(flags))
    assert 0 <= bins.index(flags) < 0.01
    assert bins.index((RANDOM.random(20_000) < 0.25).astype(float)) > 0.1


def test_values_that_training_never_saw_are_drift():
    bins = Bins.from_quantiles(quantiles(RANDOM.random(5000)))
    assert bins.index(np.r_[RANDOM.random(900), np.full(100, 5.0)]) > 0.2
    assert bins.index(np.r_[RANDOM.random(900), np.full(100, -5.0)]) > 0.2


def test_without_drift_the_index_is_about_bins_divided_by_rows():
    bins = Bins.from_quantiles(quantiles(RANDOM.lognormal(size=50_000)))
    indices = [bins.index(RANDOM.lognormal(size=1000)) for _ in range(100)]
    assert np.mean(indices) == pytest.approx(0.01, rel=0.3)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize(
    "name", ["lovoo/train", "mammography/mammography", "shuttle/shuttle", "cardio/cardio"]
)
def test_real_training_rows_do_not_drift_from_themselves(name):
    table = pd.read_csv(DATA / f"{name}.csv").astype(float)
    for column in table:
        values = table[column].to_numpy()
        assert 0 <= Bins.from_quantiles(quantiles(values)).index(values) < 0.01


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not here")
def test_doubled_real_rows_drift():
    values = pd.read_csv(DATA / "lovoo/train.csv")["mean"].to_numpy()
    bins = Bins.from_quantiles(quantiles(values))
    assert bins.index(pd.read_csv(DATA / "lovoo/test.csv")["mean"].to_numpy()) < 0.01
    assert bins.index(values + 0.5) > 0.25


def baseline(scores, **features):
    return Baseline(VERSION, [number(*item) for item in features.items()], quantiles(scores))


def reader(values, scores):
    """Stand in for the record: rows of one model version."""
    asked = []

    def read(version, rows):
        asked.append((version, rows))
        return columns(values[-rows:]), scores[-rows:]

    return read, asked


def measure(values, scores, **features):
    known = features or {"a": quantiles(values[:, 0])}
    return baseline(scores, **known).measure(reader(values, scores)[0])


def test_nothing_is_shown_below_a_thousand_rows():
    values, scores = RANDOM.random((LEAST_ROWS, 1)), RANDOM.random(LEAST_ROWS)
    assert measure(values[1:], scores[1:]) == Drift(rows=999)
    drift = measure(values, scores)
    assert (drift.rows, list(drift.features)) == (1000, ["a"])
    assert drift.score == pytest.approx(0, abs=0.01)


def test_missing_values_are_left_out():
    values = RANDOM.random((3000, 2))
    values[::2, 0] = values[:2500, 1] = np.nan
    a = RANDOM.random(5000)
    drift = measure(values, RANDOM.random(3000), a=quantiles(a), b=quantiles(a))
    assert list(drift.features) == ["a"]  # too few values of b are left
    assert drift.features["a"] < 0.05


def test_a_feature_without_quantiles_is_not_shown():
    assert measure(RANDOM.random((1000, 1)), RANDOM.random(1000), a=[None] * 101).features == {}


def test_without_values_only_the_score_is_measured():
    drift = measure(np.empty((1000, 0)), RANDOM.random(1000), a=PERCENT.tolist())
    assert drift.features == {}
    assert drift.score is not None


def test_drift_uses_the_models_last_rows_and_fewer_for_wide_models():
    for features, rows in ((1, 10_000), (1000, 4000)):
        names = {"a" if features == 1 else f"f{i}": PERCENT.tolist() for i in range(features)}
        read, asked = reader(RANDOM.random((5000, features)), RANDOM.random(5000))
        assert len(baseline(RANDOM.random(5000), **names).measure(read).features) == features
        assert asked == [(VERSION, rows)]


def dates_of(hours, days):
    """Cells of a date column, 20 for each hour of each day from a Monday on."""
    moments = (datetime(2026, 6, 1, h) + timedelta(days=d) for d in range(days) for h in hours)
    texts = [f"{moment:%d.%m.%Y %H:%M}".encode() for moment in moments]
    return np.array(texts * 20, "S32")


@pytest.fixture
def moments():
    hours, weekdays = [0] * 24, [10] * 5 + [0, 0]
    hours[8:18] = [5] * 10
    counts = {"hour": hours, "weekday": weekdays}
    column = Column(
        "when", "date", "text", format="%d.%m.%Y %H:%M", parts=["hour", "weekday"], moments=counts
    )
    return Moments.from_column(column)


def test_hours_and_weekdays_of_dates_are_compared_as_categories(moments):
    assert moments.index(dates_of(range(8, 18), 5)) == pytest.approx(0, abs=0.05)
    assert moments.index(dates_of(range(20, 24), 14)) > 1  # at night
    assert moments.index(dates_of(range(8, 18), 14)) > 0.25  # on weekends, too


def test_dates_that_span_too_little_time_are_not_compared(moments):
    within_a_day = np.repeat(dates_of(range(20, 24), 1), 20)
    assert moments.index(within_a_day) is None
    assert moments.index(np.array([b"no date", b""] * 2000, "S32")) is None


def test_a_weekday_is_compared_only_after_a_week(moments):
    weekdays = replace(moments, shares={"weekday": moments.shares["weekday"]})
    assert weekdays.index(dates_of(range(24), 7)) is None
    assert weekdays.index(dates_of(range(24), 8)) > 0.1
