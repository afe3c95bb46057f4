import os

import numpy as np
import pytest

from service.rows import Verdict
from service.state.counts import DURATION_BOUNDS, Counts
from service.telemetry.history import EVERY, SPAN, History, quantile


@pytest.fixture
def counts():
    return Counts()


@pytest.fixture
def history(counts):
    return History(counts.read)


def count(counts, *scores):
    counts.add(Verdict(np.array(scores), threshold=0.0))
    counts.observe("/invocations", "2xx", 0.02)


def test_a_span_is_the_exact_difference_of_two_readings(counts, history):
    count(counts, 0.5)
    history.record(100.0)
    count(counts, -0.25, 0.5)
    counts.observe("/predict", "5xx", 2.0)
    counts.observe("/metrics", "2xx", 2.0)  # no prediction
    history.record(105.5)
    (span,) = history.spans()
    assert (span.start, span.seconds) == (100.0, 5.5)
    assert (span.rows, span.outliers, span.score_sum) == (2, 1, 0.25)
    assert (span.requests, span.failed) == (2, 1)
    assert span.duration_sum == pytest.approx(2.02)
    assert sum(span.buckets) == 2 and span.buckets[-1] == 1


def test_the_ring_keeps_the_last_15_minutes(counts, history):
    points = int(SPAN / EVERY)
    for number in range(points + 50):
        count(counts, 0.5)
        history.record(number * EVERY)
    spans = history.spans()
    assert len(spans) == points
    assert [span.start for span in spans] == [EVERY * n for n in range(49, points + 49)]
    assert {span.rows for span in spans} == {1}


def test_there_is_no_span_where_the_clock_was_set_back(history):
    for now in (100.0, 50.0, 55.0):
        history.record(now)
    assert [(span.start, span.seconds) for span in history.spans()] == [(50.0, 5.0)]


def test_a_new_history_is_empty(history):
    assert history.spans() == []


def test_all_processes_see_the_readings_of_one(counts, history):
    if os.fork() == 0:
        history.record(100.0)
        history.record(105.0)
        os._exit(0)
    os.wait()
    assert [span.start for span in history.spans()] == [100.0]


def test_a_quantile_is_interpolated_in_its_bucket():
    buckets = [0] * (len(DURATION_BOUNDS) + 1)
    assert quantile(tuple(buckets), 0.5) is None
    buckets[1] = 10  # from 0.5 to 1 ms
    assert quantile(tuple(buckets), 0.5) == pytest.approx(0.00075)
    buckets[-1] = 90
    assert quantile(tuple(buckets), 0.99) == DURATION_BOUNDS[-1]
