"""Cards for models made by tests."""

import hashlib

import numpy as np

from service.model.card import Calibration, Card, Column, Golden
from service.model.pvalues import kept_ranks


def number(name, quantiles=(0.0,) * 101, missing=0):
    """Return the column of a card that holds numbers; with `missing` requests may miss them."""
    return Column(name, "number", "float", missing, list(quantiles))


def calibration(scores):
    """Return the out-of-bag scores of a card; no scores, for a card that says why."""
    kept = np.sort(scores)[kept_ranks(len(scores)) - 1]
    return Calibration(len(scores), kept.tolist(), "" if len(scores) else "too few trees")


def make_card(content, forest, table, n_golden=3, **changes):
    """Return a card for the file `model.pickle` of a forest: columns mean and sd, and `changes`."""
    golden = table[:n_golden] if n_golden else None
    fields = {
        "created": "2026-01-01T00:00:00Z",
        "dataset": "test",
        "rows": len(table),
        "columns": [number(name) for name in ("mean", "sd")],
        "left_out": [],
        "id": None,
        "decimal": ".",
        "parameters": {},
        "seed": 16,
        "offset": float(forest.offset_),
        "training_outlier_share": 0.125,
        "score_quantiles": [0.0] * 101,
        "golden": Golden([], None, [])
        if golden is None
        else Golden(golden.tolist(), None, forest.decision_function(golden).tolist()),
        "quality": None,
        "versions": {},
        "files": {"model.pickle": hashlib.sha256(content).hexdigest()},
    }
    return Card(**fields | changes)
