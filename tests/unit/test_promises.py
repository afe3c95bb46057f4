"""The promised false-alarm rate is kept on rows that were not trained on.

Each case is trained on some rows of one distribution, outliers included, and scores others of it.
`python -m tests.support.promises` measures the real tables in full.
"""

import csv

import numpy as np
import pytest

from tests.support.promises import FOLDER, PROMISED, TABLES, observe, of_dataset, of_numbers
from training.tables import from_file

SPLITS = 3


def check(found, scored):
    """Check the mean share of the splits; its spread is that of a beta-binomial distribution.

    A small forest is cautious: its out-of-bag scores come from fewer trees, so they spread more.
    """
    for i, share in enumerate(PROMISED):
        m, n = found.rows, scored
        deviation = np.sqrt(share * (1 - share) * (1 / n + 1 / (m + 2)) / len(found.pvalues))
        mean = found.pvalues[:, i].mean()
        assert mean <= share + 4 * deviation, (share, found)
        assert mean >= share * (0.25 if m < 1_000 else 0.9) - 4 * deviation, (share, found)


@pytest.mark.parametrize("rows", [300, 8_000])
def test_tables_of_numbers(rows):
    rng = np.random.default_rng(4)
    X = rng.lognormal(size=(rows + 8_000, 3))
    X[rng.random(len(X)) < 0.01] *= 30
    check(observe(of_numbers(X, rows), SPLITS), 8_000)


@pytest.mark.parametrize("rows", [300, 3_000])
def test_tables_with_columns_of_text(rows, tmp_path):
    rng, n = np.random.default_rng(5), rows + 3_000
    shops = rng.choice(["cafe", "fuel", "grocer", "books"], n, p=[0.5, 0.3, 0.15, 0.05])
    towns = [f"town {i}" for i in rng.zipf(1.5, n).clip(0, 9_999)]
    amounts = np.where(rng.random(n) < 0.01, 5_000, rng.lognormal(3, 1, n)).round(2)
    cells = list(map(list, zip(amounts.tolist(), shops.tolist(), towns, strict=True)))

    def read(chosen):
        with (tmp_path / "t.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["amount", "shop", "town"], *(cells[i] for i in chosen)])
        return from_file(tmp_path / "t.csv")

    check(observe(of_dataset(read, cells, rows), SPLITS), 3_000)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the real data sets are not beside the repository")
@pytest.mark.parametrize(
    "name",
    [
        *("breastw", "cardio", "mammography"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("shuttle", "lovoo")),
    ],
)
def test_real_tables(name):
    table = np.loadtxt(FOLDER / TABLES[name], delimiter=",", skiprows=1)
    X = table if name == "lovoo" else table[:, :-1]
    check(observe(of_numbers(X), SPLITS), len(X) - len(X) // 2)
