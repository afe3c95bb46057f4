"""The view Review: flagged rows that wait for a label, and why each was flagged."""

from typing import Any
from urllib.parse import urlencode

import numpy as np

from ...errors import BadInput
from ...model.card import Card, Column
from ...rows import Rows
from ...serving.detector import Detector
from ...serving.review import ORDERS, Neighbour, Queue, Review, is_known
from ...state.record_format import Recorded
from ...truths import Statement
from .view import Console, Data, Query, View

SHOWN, MOST_SHOWN = 12, 1_000
"""Rows of the queue that are shown, and the most that `most` may ask for."""

_FLAGS = {"bool": {0: "no", 1: "yes"}}
"""How flags that were no numbers are shown."""

_BEFORE = 3  # of them, those before the chosen row


def read(console: Console, query: Query) -> Data:
    """Return the queue, the chosen row and why it was flagged, and the row labelled before it.

    The query has `order`, `find` (a filter), `puid` and `row` of the chosen row, and `most`.
    """
    review = Review(console.predictor, console.matcher.store)
    order, find = query.get("order", ORDERS[0]), query.get("find", "")
    queue = review.queue(order, find)
    chosen = _find(review, query)
    rows, start, at = _window(review, queue, query, chosen)
    if chosen is None and at is not None and rows is not None:
        chosen = rows[at - start : at - start + 1]
    return {
        "order": order,
        "find": find,
        "recorded": queue.recorded,
        "flagged": queue.flagged,
        "labelled": queue.labelled,
        "replaced": queue.replaced,
        "waiting": len(queue.rows),
        "is_exact": queue.is_exact,
        "threshold": review.detector.threshold,
        "columns": list(review.detector.columns.names),
        "first": start,
        "position": at,
        "rows": _describe_rows(review, rows),
        "chosen": None if chosen is None else _describe(console, review, chosen),
        "is_gone": chosen is None and bool(query.get("puid")),
        "next": _place(rows, at - start + 1) if at is not None else _place(rows, 0),
        "previous": _place(rows, at - start - 1) if at else None,
        "done": _last_label(console, query),
    }


def label(console: Console, form: Query) -> str:
    """Store the label of a form as feedback, or take one back; return the row to show next."""
    puid, row = form.get("puid", ""), whole(form.get("row", ""), "row")
    truth = form.get("truth", "")
    shown = {name: form[name] for name in ("order", "find") if form.get(name)}
    if truth not in {"0", "1", ""}:
        raise BadInput(f"a label is 1 (outlier), 0 (false alarm) or empty, not {truth[:20]!r}")
    if not truth:
        console.matcher.take_back(puid, row)
        return urlencode(shown | {"puid": puid, "row": row})
    if not is_known(puid):
        raise BadInput(
            "this row's puid is longer than the record keeps, so a label cannot name it; send the "
            "label as feedback with the whole puid"
        )
    console.matcher.record(Statement(puid, row=row, truths=(int(truth),)))
    shown |= {"done_puid": puid, "done_row": str(row)}
    if form.get("next_puid"):
        shown |= {"puid": form["next_puid"], "row": form.get("next_row", "0")}
    return urlencode(shown)


def _find(review: Review, query: Query) -> Recorded | None:
    """Return the row that the query names, which need not be in the queue."""
    if not query.get("puid"):
        return None
    return review.find(query["puid"], whole(query.get("row", "0"), "row"))


def _window(
    review: Review, queue: Queue, query: Query, chosen: Recorded | None
) -> tuple[Recorded | None, int, int | None]:
    """Return some rows of the queue, the place of the first, and that of the chosen row.

    The chosen row's is None if it is not in the queue.
    """
    most = min(whole(query.get("most", str(SHOWN)), "most"), MOST_SHOWN)
    at: int | None = 0 if len(queue.rows) else None
    if query.get("puid"):
        stamp = -1 if chosen is None else chosen["stamp"][0]
        places = np.flatnonzero(queue.rows.stamp == stamp).tolist()
        at = places[0] if places else None
    start = max(0, min((at or 0) - _BEFORE, len(queue.rows) - most))
    return review.read(queue.rows.at(slice(start, start + most))), start, at


def _describe_rows(review: Review, rows: Recorded | None) -> list[Data]:
    """Return the rows of a list, each with the column that isolated it most."""
    if rows is None or not len(rows):
        return []
    described = [_describe_row(review.detector, rows[i]) for i in range(len(rows))]
    encoded = review.encode(rows)
    if encoded is not None:
        names = review.detector.columns.names
        cells = show_cells(review.detector, encoded)
        shares = review.detector.explain(encoded)
        for one, own, j in zip(described, cells, shares.argmin(axis=1).tolist(), strict=True):
            one |= {"column": names[j], "cell": own[j]}
    return described


def _describe_row(detector: Detector, row: Any) -> Data:
    score, pvalues = float(row["score"]), detector.pvalues
    version = row["version"].decode()
    is_same = version == detector.model.version
    return {
        "puid": row["puid"].decode(errors="replace"),
        "row": int(row["row"]),
        "time": float(row["time"]),
        "score": score,
        "p_value": float(pvalues.of(np.array([score]))[0]) if pvalues and is_same else None,
        "flagged": bool(row["label"]),
        "model_version": version,
        "is_this_model": is_same,
    }


def _describe(console: Console, review: Review, row: Recorded) -> Data:
    """Return all that is shown of the chosen row."""
    described = _describe_row(review.detector, row[0])
    puid, number = described["puid"], described["row"]
    described["truth"] = console.matcher.store.find_truth(puid, number)
    described["can_label"] = is_known(puid)
    encoded = review.encode(row)
    described["has_cells"] = encoded is not None
    if encoded is None:
        return described | {"columns": [], "neighbours": []}
    columns = describe_columns(review.detector, encoded)
    order = [one["name"] for one in columns]
    neighbours = review.neighbours(encoded, (puid, number))
    return described | {
        "columns": columns,
        "is_exact": _is_exact(review.detector, encoded, described),
        "neighbours": [_describe_neighbour(one, review.detector, order) for one in neighbours],
    }


def _is_exact(detector: Detector, encoded: Rows, described: Data) -> bool:
    """Return whether the cells on record give the score that was answered: no text was cut."""
    if not described["is_this_model"]:
        return False
    return bool(detector.score(encoded).scores[0] == described["score"])


def describe_columns(detector: Detector, encoded: Rows) -> list[Data]:
    """Return each column of a row with its share in the score, the most isolating first.

    `contribution` is in steps of the mean path; a negative one makes the row more abnormal.
    """
    names, shares = detector.columns.names, detector.explain(encoded)[0].tolist()
    card = detector.model.card
    columns = card.columns if card else [None] * len(names)
    [cells] = show_cells(detector, encoded)
    described = [
        {"name": name, "value": cell, "contribution": share, **_describe_usual(column, cell)}
        for name, cell, share, column in zip(names, cells, shares, columns, strict=True)
    ]
    return sorted(described, key=lambda one: one["contribution"])


def show_cells(detector: Detector, encoded: Rows) -> list[list[Any]]:
    """Return the cells of rows in the user's own values: yes and no for flags, if those were."""
    cells, card = detector.columns.cells(encoded), detector.model.card
    return [restore_flags(row, card) for row in cells] if card else cells


def restore_flags(cells: list[Any], card: Card) -> list[Any]:
    """Return the cells of a row, with yes and no for flags that were no numbers in training."""
    pairs = zip(cells, card.columns, strict=True)
    return [
        _FLAGS[column.type][int(cell)]
        if column.kind == "flag" and column.type in _FLAGS and cell in {0.0, 1.0}
        else cell
        for cell, column in pairs
    ]


def _describe_usual(column: Column | None, cell: Any) -> Data:
    """Return what training says of a cell: the usual range of its column, or its share there.

    `quantiles` are 21, from the minimum to the maximum. The share of a flag is exact to a percent.
    """
    usual: Data = {"kind": column.kind if column else "number", "quantiles": None, "share": None}
    if column is None:
        return usual
    if column.kind == "flag" and column.quantiles:
        same = [value for value in column.quantiles if _is_flag(column, value, cell)]
        usual["share"] = len(same) / len(column.quantiles)
    elif column.quantiles and None not in column.quantiles:
        usual["quantiles"] = column.quantiles[::5]
    elif column.values:
        number = column.missing if cell is None else column.values.get(cell, 0)
        usual["share"] = number / column.rows
    return usual


def _is_flag(column: Column, value: float | None, cell: Any) -> bool:
    """Return whether a quantile of a flag is the cell."""
    return value is not None and cell in {value, _FLAGS.get(column.type, {}).get(int(value))}


def _describe_neighbour(one: Neighbour, detector: Detector, order: list[str]) -> Data:
    """Return a labelled row that is alike, with its cells in the order of the chosen row's."""
    card = detector.model.card
    own = restore_flags(one.cells, card) if card else one.cells
    cells = dict(zip(detector.columns.names, own, strict=True))
    return {
        "puid": one.puid,
        "row": one.row,
        "truth": one.truth,
        "alikeness": one.alikeness,
        "cells": {name: cells[name] for name in order},
    }


def _place(rows: Recorded | None, i: int) -> Data | None:
    """Return the puid and index of a row in the list."""
    if rows is None or not 0 <= i < len(rows):
        return None
    return {"puid": rows["puid"][i].decode(errors="replace"), "row": int(rows["row"][i])}


def _last_label(console: Console, query: Query) -> Data | None:
    """Return the row that was labelled just now, if it still has its label."""
    if not query.get("done_puid"):
        return None
    puid, row = query["done_puid"], whole(query.get("done_row", ""), "done_row")
    truth = console.matcher.store.find_truth(puid, row)
    return None if truth is None else {"puid": puid, "row": row, "truth": truth}


def whole(text: str, name: str) -> int:
    """Return a whole number of a query or a form."""
    if not text.isdecimal() or not text.isascii() or len(text) > 10:
        raise BadInput(f"{name} is a whole number, not {text[:20]!r}")
    return int(text)


VIEW = View("review", "Review", read, table="rows", act=label)
