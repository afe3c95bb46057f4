"""The view Model: its card, readable, and when which model and threshold were served."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ...model.card import Card, Column
from .formats import flag_words
from .view import Console, Data, Query, View

_MOST_VALUES = 6
"""The values of a category that are listed."""


def read(console: Console, query: Query) -> Data:
    """Return what the card says of the model, and every change of what is served."""
    detector = console.predictor.detector
    model, card = detector.model, detector.model.card
    return {
        "name": console.settings.model_name,
        "version": model.version,
        "sha256": model.sha256,
        "file": console.settings.model.name,
        "threshold": detector.threshold,
        "trees": int(model.scorer.roots.size),
        "card": _describe(card) if card else None,
        "columns": [_column(column) for column in card.columns]
        if card
        else [{"column": name, "kind": "number"} for name in model.features],
        "rows": list(_changes(console)),
    }


def _describe(card: Card) -> Data:
    return {
        "created": card.created,
        "dataset": card.dataset,
        "training_rows": card.rows,
        "training_outlier_share": card.training_outlier_share,
        "parameters": card.parameters,
        "seed": card.seed,
        "id": card.id,
        "left_out": [asdict(one) for one in card.left_out],
        "quality": asdict(card.quality) if card.quality else None,
        "versions": card.versions,
        "golden_rows": len(card.golden.rows),
    }


def _column(column: Column) -> Data:
    """Return a column as a line: its usual values, 5 % to 95 % of the training rows."""
    line: Data = {"column": column.name, "kind": column.kind, "missing": column.missing}
    quantiles = column.quantiles
    if column.kind == "flag" and quantiles:
        words = enumerate(flag_words(column.type))
        shares = [
            {"value": word, "share": quantiles.count(value) / len(quantiles)}
            for value, word in words
        ]
        return line | {"shares": shares, "more": 0}
    if quantiles and None not in quantiles:
        low, median, high = (quantiles[round(p * (len(quantiles) - 1))] for p in (0.05, 0.5, 0.95))
        ends = {"least": quantiles[0], "most": quantiles[-1]}
        return line | ends | {"low": low, "median": median, "high": high}
    if column.values:
        common = list(column.values.items())[:_MOST_VALUES]
        more = len(column.values) - len(common)
        shares = [{"value": value, "share": number / column.rows} for value, number in common]
        return line | {"shares": shares, "more": more}
    return line | {"format": column.format, "parts": column.parts}


def _changes(console: Console) -> Iterator[dict[str, Any]]:
    """Yield each change of the model or the threshold, the latest first."""
    for change in reversed(console.reloader.history()):
        what, old, new = change["what"], change["old"], change["new"]
        if what == "model":  # the versions that everything else shows
            old, new = str(old)[:12], str(new)[:12]
        yield {"when": change["when"], "what": what, "from": old, "to": new, "who": change["who"]}


VIEW = View("model", "Model", read, table="rows")
