"""A small part of two storms; `make nightly` runs them all, and in full."""

import pytest

from tests.stress.storms.__main__ import run
from tests.stress.storms.clients import Answer, count_wrong_totals, fitting_sizes
from tests.stress.storms.model import Tally
from tests.stress.storms.predictions import storm_clock, storm_rows, storm_workers


@pytest.mark.slow
@pytest.mark.parametrize(("storm", "share"), [(storm_workers, 0.03), (storm_rows, 0.05)])
def test_counts_are_exact_after_a_small_storm(storm, share):
    report = run(storm, share)
    assert report.faults == []
    assert report.acknowledged > 0


@pytest.mark.slow
def test_the_clock_storm_detects_durations_measured_by_the_time_of_day():
    report = run(storm_clock, 0.1, faults=("perf_counter", "monotonic_ns"))
    assert "durations follow the clock" in report.faults
    assert "the order of the record follows the clock" in report.faults
    assert "the clock did not jump" not in report.faults


def tally(outliers, rows):
    return Tally(rows, outliers, (rows - outliers, outliers))


def test_the_requests_that_were_counted_without_an_answer_are_found_among_many():
    known = tally(3, 100)
    broken = [tally(min(n % 5, 2 ** (n % 8)), 2 ** (n % 8)) for n in range(40)]
    for chosen in ([], [7], [0, 9, 23, 39], range(40)):
        counted = Tally.sum([known, *(broken[n] for n in chosen)])
        assert len(chosen) in fitting_sizes(counted, known, broken)
    assert fitting_sizes(tally(5, 101), known, broken) == []
    assert fitting_sizes(tally(3, 99), known, broken) == []
    assert fitting_sizes(tally(4, 101), known, []) == []
    twice = [tally(1, 1), tally(1, 2), tally(2, 3)]
    assert sorted(fitting_sizes(tally(5, 103), known, twice)) == [1, 2]  # not told apart


def answer(began, ended, rows, observation):
    return Answer("p", began, ended, Tally(rows), observation, 0)


def test_totals_outside_what_was_answered_and_sent_are_detected():
    first, second = answer(0.0, 1.0, 5, 5), answer(2.0, 3.0, 1, 6)
    assert count_wrong_totals([first, second], "observation") == 0
    assert count_wrong_totals([first, answer(2.0, 3.0, 1, 5)], "observation") == 1
    assert count_wrong_totals([answer(0.0, 1.0, 5, 6), second], "observation") == 1
    beside = answer(0.5, 3.0, 1, 6)
    assert count_wrong_totals([answer(0.0, 1.0, 5, 6), beside], "observation") == 0
    assert count_wrong_totals([answer(0.0, 1.0, 5, 5), beside], "observation") == 0
