"""One process measures drift, all show it. The computation: tests/unit/model/test_baseline.py."""

import mmap
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from service.model.baseline import Baseline, Drift
from service.telemetry.drift import DriftWatch
from tests.support.cards import number

RANDOM = np.random.default_rng(16)


def quantiles(values):
    return np.quantile(values, np.linspace(0, 1, 101)).tolist()


def watch(current, rows=2000):
    values = {"a": RANDOM.random(rows), "b": RANDOM.random(rows) + 5}
    recorded = values, RANDOM.random(rows)
    return DriftWatch(lambda version, most: recorded, lambda: current[0], 3)


@pytest.fixture
def current():
    """A list with the baseline of the model that is served, to be replaced as a reload does."""
    known = quantiles(RANDOM.random(5000))
    columns = [number("a", known), number("b", known), number("c", [None] * 101)]
    return [Baseline("0123456789ab", columns, known)]


def in_child(action):
    pid = os.fork()
    if pid:
        return pid
    try:
        action()
        time.sleep(60)
    finally:
        os._exit(1)


def wait_until(true):
    limit = time.monotonic() + 20
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def stop(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_drift_measured_by_one_process_is_shown_by_all(current):
    shared = watch(current)
    assert shared.latest() == Drift()
    child = in_child(shared.measure)
    wait_until(lambda: shared.latest().rows)
    stop(child)
    here = watch(current)
    here._read = shared._read
    here.measure()
    assert shared.latest() == here.latest()
    assert list(shared.latest().features) == ["a", "b"]
    assert shared.latest().features["a"] < 0.05
    assert shared.latest().features["b"] > 1


def test_drift_of_another_model_is_not_shown(current):
    shared = watch(current)
    shared.measure()
    first = shared.latest()
    current[0] = replace(current[0], version="ba9876543210")
    assert shared.latest() == Drift()
    shared.measure()
    assert shared.latest() == first
    current[0] = None  # a model without a card
    shared.measure()
    assert shared.latest() == Drift()


def test_a_measurement_older_than_a_minute_is_not_shown(current, monkeypatch):
    shared, clock = watch(current), time.monotonic_ns()
    shared.measure()
    monkeypatch.setattr("service.telemetry.drift.time.monotonic_ns", lambda: clock + 50 * 10**9)
    assert shared.latest().rows == 2000
    monkeypatch.setattr("service.telemetry.drift.time.monotonic_ns", lambda: clock + 70 * 10**9)
    assert shared.latest() == Drift()


def test_one_process_measures_and_another_takes_over_when_it_dies(current, monkeypatch):
    monkeypatch.setattr("service.telemetry.drift._EVERY", 0.02)
    shared = watch(current)
    measured = mmap.mmap(-1, 8 * 2)  # how often each child has measured
    times = memoryview(measured).cast("q")

    def work(child):
        read = shared._read

        def counting(*asked):
            times[child] += 1
            return read(*asked)

        shared._read = counting
        shared.begin()

    first = in_child(lambda: work(0))
    wait_until(lambda: times[0])
    second = in_child(lambda: work(1))
    wait_until(lambda: times[0] > 10)
    assert times[1] == 0
    stop(first)
    wait_until(lambda: times[1] > 1)
    stop(second)
    assert shared.latest().rows == 2000


def test_a_failed_measurement_is_logged_and_repeated(current, monkeypatch, caplog):
    shared = watch(current)
    read, shared._read = shared._read, None

    def sleep(_):
        if shared.latest().rows:
            raise KeyboardInterrupt
        shared._read = read

    monkeypatch.setattr("service.telemetry.drift.time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        shared._watch()
    assert "drift cannot be measured" in caplog.text
    assert shared.latest().rows == 2000
