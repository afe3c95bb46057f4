"""Search many forests for a score that differs from scikit-learn's: `make nightly ONLY=exactness`.

Print a short report and exit with code 1 if any row differs in any bit.
"""

import argparse
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import sklearn
from sklearn.ensemble import IsolationForest

from service.model import kernels
from service.model.scorer import compile_forest
from tests.support.adversary import CHOICES, TABLES, Case, answers

BATCHES = [1, 2, 7, 15, 16, 17, 31, 33, 100, 777]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forests", type=int, default=600)
    parser.add_argument("--rows", type=int, default=2000, help="rows for each forest")
    parser.add_argument("--seed", type=int, default=16)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    start = time.monotonic()
    forests, rows, wrong, gaps = Counter(), Counter(), [], [0.0]
    for i in range(options.forests):
        drawn = {name: choices[rng.integers(len(choices))] for name, choices in CHOICES.items()}
        case = Case(seed=int(rng.integers(2**31)), **drawn | {"table": TABLES[i % len(TABLES)]})
        forest = case.fit()
        X = case.rows(forest, options.rows)
        differing, gap = compare(forest, X[:, :] if i % 2 else np.asfortranarray(X))
        gaps.append(gap)
        forests[case.table] += 1
        rows[case.table] += len(X)
        if differing:
            wrong.append(f"{differing:,} rows of {case}")
    for name, forest, X in giants():
        differing, gap = compare(forest, X)
        gaps.append(gap)
        forests[name] += 1
        rows[name] += len(X)
        if differing:
            wrong.append(f"{differing:,} rows of the {name}")
    print(f"scikit-learn {sklearn.__version__}, numpy {np.__version__}, seed {options.seed}")
    for name in forests:
        print(f"  {name:<24}{forests[name]:>6,} forests{rows[name]:>12,} rows")
    print(f"  {'together':<24}{forests.total():>6,} forests{rows.total():>12,} rows")
    print(f"largest error of the sum of contributions: {max(gaps):.1e} (allowed: 1e-12)")
    print(
        f"{time.monotonic() - start:.0f} seconds; different from scikit-learn: {len(wrong)} forests"
    )
    for line in wrong[:10]:
        print(f"  {line}")
    sys.exit(bool(wrong) or max(gaps) > 1e-12)


def compare(forest, X):
    """Return how many rows differ in any bit, and the largest error of the sum of contributions."""
    compiled = compile_forest(forest)
    wide = replace(compiled, nodes=compiled.nodes.astype(kernels.WIDE))
    scores, decisions, labels = answers(forest, X)
    wrong = compiled.score_samples(X) != scores
    wrong |= wide.score_samples(X) != scores
    wrong |= compiled.decision_function(X) != decisions
    wrong |= np.where(compiled.decision_function(X) < 0, -1, 1) != labels
    start = 0
    for n in BATCHES:
        wrong[start : start + n] |= (
            compiled.score_samples(X[start : start + n]) != scores[start : start + n]
        )
        start += n
    shares = compiled.contributions(X).sum(axis=1)
    gap = np.abs(shares - (compiled.depths(X) - compiled.mean_depth)).max()
    return int(wrong.sum()), float(gap)


def giants():
    """Yield the forests that take long to fit."""
    rng = np.random.default_rng(16)
    X = rng.uniform(size=(50_000, 18))
    yield "2 million nodes", IsolationForest(max_samples=0.8, random_state=16).fit(X), X[:20_000]
    X = rng.uniform(size=(1_000_000, 4))
    forest = IsolationForest(n_estimators=2, max_samples=1.0, random_state=16).fit(X)
    yield "trees of many nodes", forest, X[:20_000]
    X = rng.normal(size=(2_000, 5_000))
    yield "5,000 columns", IsolationForest(random_state=16).fit(X), X


if __name__ == "__main__":
    main()
