"""Other fast isolation forests, for comparison. Their scores differ from scikit-learn's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from .forests import Subject, subject
from .measure import Absent, Ratio, Result, in_turns

MISSING = {
    "treelite": "not installed; `make bench` brings it",
    "isotree": "not installed; `make bench` builds it from source",
}


def run(short: bool) -> Iterator[Result]:
    """Score 1,000 rows with treelite and isotree."""
    for name, prepare in {"treelite": treelite, "isotree": isotree}.items():
        if importlib.util.find_spec(name) is None:
            yield Absent(f"small: 1,000 rows, {name}", MISSING[name])
        else:
            yield against(name, prepare, 5 if short else 25)


def against(name: str, prepare: Callable[[Subject], Any], rounds: int) -> Ratio:
    """Time 1,000 rows of the small forest."""
    found = subject("small")
    rows, score = found.rows[:1000], prepare(found)
    times = in_turns(rounds, lambda: found.compiled.score_samples(rows), lambda: score(rows))
    return Ratio("small: 1,000 rows", name, *times)


def treelite(found: Subject) -> Any:
    """Convert the same forest; its scores are nearly the same."""
    import treelite

    model = treelite.sklearn.import_model(found.forest)
    return lambda rows: treelite.gtil.predict(model, rows)


def isotree(found: Subject) -> Any:
    """Fit isotree's own forest of the same size; its scores are different."""
    from isotree import IsolationForest

    forest = IsolationForest(ntrees=100, sample_size=256, ndim=1, nthreads=1, random_seed=16)
    return forest.fit(found.rows[:50_000]).predict
