"""A table of numbers, text, dates, flags, gaps and ids."""

import csv

import numpy as np

NAMES = ["amount", "merchant", "city", "when", "is_new", "visits"]
SHOPS = ["cafe", "fuel", "grocer", "books"]
CITIES = [f"city {i}" for i in range(60)]


def make_rows(n, seed=3):
    chance = np.random.default_rng(seed)
    day = np.datetime64("2026-01-01T00:00:00")
    for i in range(n):
        when = str(day + np.timedelta64(int(chance.integers(0, 10**7)), "s")).replace("T", " ")
        yield {
            "id": f"A{i:05}",
            "amount": round(float(chance.lognormal(3)), 2),
            "merchant": "casino" if i % 100 == 7 else str(chance.choice(SHOPS)),
            "city": str(chance.choice(CITIES)),
            "when": when,
            "is_new": str(chance.choice(["yes", "no"])),
            "visits": "" if i % 20 == 3 else int(chance.poisson(3)),
            "note": f"the order number {i} of this year",
        }


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def train(folder):
    """Write `my.csv` and a small model of it into a folder."""
    from training.export import describe, save_model
    from training.forest import fit_forest
    from training.tables import from_file

    write_csv(folder / "my.csv", list(make_rows(600)))
    dataset = from_file(folder / "my.csv")
    forest = fit_forest(dataset.X, n_estimators=10)
    save_model(folder, forest, describe(forest, dataset))
    return folder
