"""Scoring against scikit-learn, by forest and number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .forests import Subject, subject
from .measure import Ratio, Result, in_turns

BULK_TARGETS = {"small": 6.0, "seldon": 3.3, "wide": 5.5, "deep": 2.0}


def run(short: bool) -> Iterator[Result]:
    """Compare one row, hot and in turns, and batches on one and two threads."""
    for name in ["small"] if short else BULK_TARGETS:
        found = subject(name)
        yield against_sklearn(found, 1, "1 row, hot", 400, calls=200)
        yield against_sklearn(found, 1, "1 row, in turns", 80)
        yield against_sklearn(found, 32, "32 rows")
        yield against_sklearn(found, 1_000, "1,000 rows")
        yield against_sklearn(found, 20_000, "20,000 rows, one thread", BULK_TARGETS[name])
        yield against_sklearn(found, 100_000, "100,000 rows, one thread")
        yield two_threads(found)


def against_sklearn(
    found: Subject, n: int, what: str, target: float | None = None, *, calls: int = 1
) -> Ratio:
    """Time `decision_function` for n rows, after checking that both give equal scores."""
    rows = found.rows[:n]
    ours, theirs = found.compiled.decision_function, found.forest.decision_function
    assert np.array_equal(ours(rows), theirs(rows))
    rounds = 5 if n > 20_000 else 7 if n > 1_000 else 25
    times = in_turns(rounds, lambda: ours(rows), lambda: theirs(rows), calls)
    return Ratio(f"{found.name}: {what}", "scikit-learn", *times, target)


def two_threads(found: Subject) -> Ratio:
    """Time 100,000 rows on two threads against one."""
    one, two = found.compiled, replace(found.compiled, threads=2)
    assert np.array_equal(two.decision_function(found.rows), one.decision_function(found.rows))
    times = in_turns(
        9, lambda: two.decision_function(found.rows), lambda: one.decision_function(found.rows)
    )
    return Ratio(f"{found.name}: 100,000 rows, two threads", "one thread", *times, target=1.4)
