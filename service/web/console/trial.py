"""The view Try: score a row that somebody types; it is neither counted nor recorded."""

import math
from typing import Any

import numpy as np

from ...errors import BadInput
from ...model.card import Card, Column
from ...model.encoding import describe_format
from ...rows import RawTable, Rows
from ...serving.detector import Detector
from ...serving.review import Review
from .charts import Grid, quantile
from .formats import flag_words
from .review import describe_columns, restore_flags, whole
from .view import Console, Data, Query, View

_ACROSS, _UPWARDS = 72, 54
"""Cells of the grid that shows the boundary of two columns."""

_MOST_VALUES = 100
"""The most values of a column that its field offers."""


def read(console: Console, query: Query) -> Data:
    """Return the fields of a row, and its score and reasons or what is wrong with it.

    The query has the cells as `c0`, `c1`, ... by column, as texts. Without them the row is the one
    on record that `puid` and `row` name, or a usual row of training's.
    """
    detector = console.predictor.detector
    names, card = detector.columns.names, detector.model.card
    columns = card.columns if card else [Column(name, "number", "float") for name in names]
    cells = _read_cells(console, detector, query, len(names))
    data: Data = {
        "model_version": detector.model.version,
        "threshold": detector.threshold,
        "fields": [_describe_field(*pair) for pair in zip(columns, cells, strict=True)],
        "fault": "",
        "result": None,
        "boundary": None,
        "rows": [],
    }
    try:
        rows = detector.columns.encode(RawTable([cells], names, is_csv=True))
    except BadInput as error:
        return data | {"fault": str(error).removeprefix("row 0, ")}
    return data | {
        "result": _score(detector, rows),
        "boundary": _find_boundary(detector, columns, rows),
        "rows": describe_columns(detector, rows),
    }


def _read_cells(console: Console, detector: Detector, query: Query, n: int) -> list[str]:
    """Return the cells to begin with, as texts."""
    card = detector.model.card
    if any(f"c{j}" in query for j in range(n)):
        return [query.get(f"c{j}", "") for j in range(n)]
    if query.get("puid"):
        review = Review(console.predictor, console.matcher.store)
        found = review.find(query["puid"], whole(query.get("row", "0"), "row"))
        encoded = None if found is None else review.encode(found)
        if encoded is not None:
            return _as_texts(detector.columns.cells(encoded)[0], card)
    return _as_texts(detector.examples[0], card)


def _as_texts(cells: list[Any], card: Card | None) -> list[str]:
    """Return cells as somebody would type them into the training file."""
    own = restore_flags(cells, card) if card else cells
    texts = ["" if cell is None else f"{cell:.15g}" if isinstance(cell, float) else str(cell)
             for cell in own]  # fmt: skip
    if card and card.decimal == ",":
        pairs = zip(texts, card.columns, strict=True)
        texts = [_with_comma(text) if one.kind == "number" else text for text, one in pairs]
    return texts


def _with_comma(text: str) -> str:
    return text.replace(".", ",")


def _describe_field(column: Column, cell: str) -> Data:
    """Return the name, kind and cell of a field, and what training says of its column.

    `usual` are its 5 % and 95 % quantiles; `values` its values, the most common first.
    """
    quantiles = [one for one in column.quantiles or [] if one is not None]
    is_number = column.kind == "number" and bool(quantiles)
    return {
        "name": column.name,
        "kind": column.kind,
        "cell": cell,
        "usual": [quantile(quantiles, share) for share in (0.05, 0.95)] if is_number else None,
        "values": _values(column),
        "format": describe_format(column.format) if column.format else None,
        "takes_missing": column.missing > 0,
    }


def _values(column: Column) -> list[str]:
    if column.kind == "flag":
        return list(flag_words(column.type))
    return list(column.values or {})[:_MOST_VALUES]


def _score(detector: Detector, rows: Rows) -> Data:
    verdict, pvalues = detector.score(rows), detector.pvalues
    return {
        "score": float(verdict.scores[0]),
        "p_value": float(pvalues.of(verdict.scores)[0]) if pvalues else None,
        "flagged": bool(verdict.labels[0]),
    }


def _find_boundary(detector: Detector, columns: list[Column], rows: Rows) -> Data | None:
    """Return the scores of a grid of values, if there are two columns, and both are numbers."""
    if len(columns) != 2 or detector.columns.features != detector.columns.names:
        return None
    row = rows.values[0]
    if not np.isfinite(row).all():
        return None
    across, upwards = (_range(*pair) for pair in zip(columns, row.tolist(), strict=True))
    x, y = np.meshgrid(np.linspace(*across, _ACROSS), np.linspace(*upwards, _UPWARDS))
    scores = detector.model.scorer.decision_function(np.column_stack([x.ravel(), y.ravel()]))
    return {
        "names": [column.name for column in columns],
        "across": list(across),
        "upwards": list(upwards),
        "row": row.tolist(),
        "scores": scores.reshape(x.shape).tolist(),
    }


def _range(column: Column, cell: float) -> tuple[float, float]:
    """Return what an axis shows: most of training's rows, and the cell."""
    known = [one for one in column.quantiles or [] if one is not None] or [cell - 1, cell + 1]
    low, high = quantile(known, 0.01), quantile(known, 0.99)
    room = 0.25 * (high - low) or abs(high) or 1.0
    low, high = min(low - room, cell), max(high + room, cell)
    return (low, high) if math.isfinite(high - low) else (-1.0, 1.0)


def _grid(found: Data) -> Grid:
    """Return what the chart of a boundary draws."""
    return Grid(np.array(found["scores"]), tuple(found["across"]), tuple(found["upwards"]))


VIEW = View("try", "Try", read, table="rows", helpers={"grid": _grid})
