"""Compare our p-values with those of the library nonconform, in an environment of its own.

    python3.12 -m venv .venv-nonconform && .venv-nonconform/bin/pip install nonconform
    python -m tests.interop.pvalues .venv-nonconform/bin/python

nonconform needs Python 3.12. A forest is fitted on some rows; ours are the p-values that its card
keeps, theirs are made from all out-of-bag scores.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from service.model.pvalues import KEPT, PValues
from service.model.scorer import compile_forest
from service.rows import Floats
from training.calibration import calibrate, score_out_of_bag
from training.forest import fit_forest

_PROGRAM = """
import json, sys
import numpy as np
from nonconform import Empirical
known, scores = (-np.array(part) for part in json.load(sys.stdin))
json.dump(Empirical().compute_p_values(scores, known).tolist(), sys.stdout)
"""


def compare(python: str, rows: int) -> str:
    """Return in a sentence how far both are apart; AssertionError if that is too far."""
    chance = np.random.default_rng(rows)
    X, new = (chance.lognormal(size=(n, 3)).round(1) for n in (rows, 5_000))  # with equal rows
    forest = fit_forest(X, seed=1)
    scorer = compile_forest(forest)
    known, without = score_out_of_bag(forest, scorer, X)
    kept = calibrate(known, without)
    known = known[~np.isnan(known)]
    scores = np.concatenate([scorer.decision_function(new), known, [-1.0, 1.0]])
    ours = PValues(kept.rows, np.array(kept.scores)).of(scores)
    theirs = ask(python, known, scores)
    exact = theirs <= KEPT / (len(known) + 1)
    assert np.allclose(ours[exact], theirs[exact], rtol=1e-12, atol=0)
    excess = ours / theirs - 1
    assert excess.min() > -1e-12
    assert excess.max() <= 0.01 + 1e-12
    return (
        f"{rows:,} rows: {exact.sum():,} of {len(scores):,} p-values are equal by rule, the others "
        f"at most {excess.max():.2%} of theirs higher"
    )


def ask(python: str, known: Floats, scores: Floats) -> Floats:
    """Return nonconform's p-values of scores, from the scores that are known."""
    content = json.dumps([known.tolist(), scores.tolist()])
    found = subprocess.run(
        [python, "-c", _PROGRAM], input=content, capture_output=True, text=True, check=True
    )
    return np.array(json.loads(found.stdout))


if __name__ == "__main__":
    for number in (300, 1_500, 20_000):
        print(compare(sys.argv[1], number), flush=True)
