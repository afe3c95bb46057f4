"""Cards for models made by tests."""

import hashlib

from service.model.card import Card, Feature, Golden


def make_card(content, forest, table, n_golden=3, **changes):
    """Return a card for the file `model.pickle` of a forest: columns mean and sd, and `changes`."""
    golden = table[:n_golden] if n_golden else None
    fields = {
        "created": "2026-01-01T00:00:00Z",
        "dataset": "test",
        "rows": len(table),
        "features": [Feature(name, "float", [0.0] * 101) for name in ("mean", "sd")],
        "parameters": {},
        "seed": 16,
        "offset": float(forest.offset_),
        "training_outlier_share": 0.125,
        "allow_missing": False,
        "score_quantiles": [0.0] * 101,
        "golden": Golden([], [])
        if golden is None
        else Golden(golden.tolist(), forest.decision_function(golden).tolist()),
        "quality": None,
        "versions": {},
        "files": {"model.pickle": hashlib.sha256(content).hexdigest()},
    }
    return Card(**fields | changes)
