"""A table whose names and cells would be markup, a formula or a script if they were not escaped."""

import csv

import numpy as np

SCRIPT, IMAGE = "<script>window.hit=1</script>", "\"'><img src=x onerror=window.hit=2>"
SHOPS = ["cafe", "fuel", "<b>bold</b>", "javascript:window.hit=3", "{{ 7*7 }}"]
COLUMNS = ["amount", SCRIPT, "shop", IMAGE, "is_new"]
"""The columns that are trained on."""

ODD = [9_000.0, 80, "</td></table><svg onload=window.hit=4>", "=cmd|' /C calc'!A0", "yes"]
"""A row that is flagged, with two texts that training never saw."""


def make_rows(n, seed=5):
    """Yield usual rows, the id first."""
    chance = np.random.default_rng(seed)
    for i in range(n):
        yield [
            f"id<{i}>",
            round(float(chance.lognormal(3)), 2),
            int(chance.integers(0, 50)),
            str(chance.choice(SHOPS)),
            f"note {chance.integers(30)} <i>",
            str(chance.choice(["yes", "no"])),
        ]


def train_model(folder, rows=400, trees=20):
    """Train on the table and save the model in a folder; return the path of the model."""
    from training.export import describe, save_model
    from training.forest import fit_forest
    from training.tables import from_file

    with (folder / "hostile.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", *COLUMNS])
        writer.writerows(make_rows(rows))
    dataset = from_file(folder / "hostile.csv")
    forest = fit_forest(dataset.X, n_estimators=trees)
    save_model(folder, forest, describe(forest, dataset))
    return folder / "model.pickle"


def table(rows):
    """Return rows as `/invocations` takes them."""
    return {"dataframe_split": {"columns": COLUMNS, "data": rows}}
