"""Contributions against shap.TreeExplainer: time, and agreement on the features."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np

from .forests import Subject, subject
from .measure import Absent, Figure, Ratio, Result, in_turns

TARGETS = {"small": 50.0, "seldon": 2000.0}


def run(short: bool) -> Iterator[Result]:
    """Explain rows of the small and the Seldon-like forest."""
    if importlib.util.find_spec("shap") is None:
        yield Absent("contributions", "shap is not installed; `make bench` brings it")
        return
    for name in ["small"] if short else TARGETS:
        yield from against_shap(subject(name))


def against_shap(found: Subject) -> Iterator[Result]:
    """Time one row, and compare the values for twenty rows."""
    import shap

    ours, theirs = found.compiled.contributions, shap.TreeExplainer(found.forest).shap_values
    row, rows = found.rows[:1], found.rows[:20]
    for way, calls, target in (("hot", 200, TARGETS[found.name]), ("in turns", 1, None)):
        times = in_turns(15, lambda: ours(row), lambda: theirs(row), calls)
        what = f"{found.name}: contributions of 1 row, {way}"
        yield Ratio(what, "shap.TreeExplainer", *times, target)

    mine, shapley = ours(rows), theirs(rows)
    alike = np.corrcoef(mine.ravel(), shapley.ravel())[0, 1]
    same = int((mine.argmin(axis=1) == shapley.argmin(axis=1)).sum())
    agreement = f"correlation {alike:.3f}, the same first feature in {same} of 20 rows"
    yield Figure(f"{found.name}: agreement with SHAP values", agreement)
