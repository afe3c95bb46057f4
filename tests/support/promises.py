"""Compare promised false-alarm rates with those seen on rows that were not trained on.

    python -m tests.support.promises FOLDER      # prints the table of docs/guide/thresholds.md

A table is split at random, half to train on and half to score, several times. The rows of both
halves are of one distribution, outliers included, so the share of scored rows with a p-value of at
most `a` should be about `a`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from service.model.card import Card
from service.model.columns import Columns
from service.model.pvalues import PValues
from service.model.scorer import compile_forest
from service.rows import Floats, RawTable
from training.datasets import Dataset
from training.export import describe
from training.forest import fit_forest

PROMISED = (0.01, 0.05)
SPLITS = 12
LARGEST = 20_000
"""Rows of a half at most, so that all tables take a minute."""

FOLDER = Path(__file__).parents[3] / "shared" / "data"

TABLES = {
    "breastw": "breastw/breastw.csv",
    "cardio": "cardio/cardio.csv",
    "mammography": "mammography/mammography.csv",
    "shuttle": "shuttle/shuttle.csv",
    "lovoo": "lovoo/train.csv",
}


class Observed(NamedTuple):
    """Shares of scored rows in each split, (n_splits, n_promised)."""

    rows: int
    """Rows that each forest was trained on."""
    pvalues: Floats
    """By p-values."""
    seen: Floats
    """By the quantiles of the scores that training rows get from trees that saw them."""

    @property
    def interval(self) -> tuple[Floats, Floats]:
        """The bounds, of 95 %, of the mean share by p-values."""
        mean, spread = self.pvalues.mean(axis=0), self.pvalues.std(axis=0, ddof=1)
        half = 2.2 * spread / np.sqrt(len(self.pvalues))  # Student's t for 11 degrees
        return mean - half, mean + half


def observe(split: Callable[[int], tuple[Card, Floats]], splits: int = SPLITS) -> Observed:
    """Return the shares in several splits; `split` returns a card, and scores of new rows."""
    shares, seen = [], []
    for seed in range(splits):
        card, scores = split(seed)
        assert card.calibration is not None
        found = PValues(card.calibration.rows, np.array(card.calibration.scores)).of(scores)
        shares.append([(found <= share).mean() for share in PROMISED])
        levels = np.quantile(card.score_quantiles, PROMISED)
        seen.append([(scores < level).mean() for level in levels])
    return Observed(card.rows, np.array(shares), np.array(seen))


def of_numbers(X: Floats, rows: int | None = None) -> Callable[[int], tuple[Card, Floats]]:
    """Return a function that splits a table of numbers; `rows` are trained on, by default half."""

    def split(seed: int) -> tuple[Card, Floats]:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(X))
        n = min(rows or len(X) // 2, LARGEST)
        train, new = X[order[:n]], X[order[n : n + LARGEST]]
        forest = fit_forest(train, seed=seed)
        names = [f"f{j}" for j in range(X.shape[1])]
        card = describe(forest, Dataset.of_numbers("table", train, names))
        return card, compile_forest(forest).decision_function(new)

    return split


def of_dataset(
    read: Callable[[list[int]], Dataset], cells: list[list[object]], rows: int
) -> Callable[[int], tuple[Card, Floats]]:
    """Return a function that splits a table of any cells; `read` makes a dataset of some rows."""

    def split(seed: int) -> tuple[Card, Floats]:
        order = np.random.default_rng(seed).permutation(len(cells)).tolist()
        dataset = read(order[:rows])
        forest = fit_forest(dataset.X, seed=seed)
        card = describe(forest, dataset)
        new = RawTable([cells[row] for row in order[rows:]])
        values = Columns.from_card(card, by_name=False).encode(new).values
        return card, compile_forest(forest).decision_function(values)

    return split


def measure(folder: Path) -> Iterator[tuple[str, Observed]]:
    """Observe each real table."""
    for name, path in TABLES.items():
        table = np.loadtxt(folder / path, delimiter=",", skiprows=1)
        yield name, observe(of_numbers(table if name == "lovoo" else table[:, :-1]))


def main(folder: Path) -> None:
    """Print the table in Markdown."""
    print("| table | rows trained on | 1 % promised | 5 % promised | 5 % by scores of seen rows |")
    print("| --- | --- | --- | --- | --- |")
    for name, found in measure(folder):
        low, high = found.interval
        means = found.pvalues.mean(axis=0)
        cells = [
            f"{mean:.2%} ({one:.2%} to {other:.2%})"
            for mean, one, other in zip(means, low, high, strict=True)
        ]
        print(f"| {name} | {found.rows:,} | {' | '.join(cells)} | {found.seen[:, 1].mean():.2%} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
