"""The view Drift: each column's recent values over training's, the largest change first."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...errors import BadInput
from ...model.baseline import Drift, Moments, recent_rows
from ...model.card import PARTS, Column
from ...model.encoding import store
from ...rows import ODD, Floats
from .formats import flag_words
from .view import Console, Data, Query, View

_PAGE = 12
"""Columns on a page."""

_BINS, _MOST_VALUES = 32, 8
_NOTHING = 1e-9  # a share that is only the rounding of a sum


def read(console: Console, query: Query) -> Data:
    """Return the drift of all columns, and the distributions of those on one page.

    The query has `find`, a part of the columns' names, and `page`, from 1.
    """
    detector, find = console.predictor.detector, query.get("find", "").strip()
    watch, card = console.readings.drift, detector.model.card
    drift = watch.latest() if watch else Drift()
    rows = _rank(drift, console.readings.odd_cells.read(), detector.columns.names)
    found = [row for row in rows if find.casefold() in row["column"].casefold()]
    pages = max(1, -(-len(found) // _PAGE))
    page = _read_page(query.get("page", "1"), pages)
    shown = found[(page - 1) * _PAGE : page * _PAGE]
    cells: Mapping[str, NDArray[Any]] = {}
    recorded = 0
    if console.predictor.records and card:
        most = recent_rows(len(card.columns))
        cells, scores = console.predictor.records.scored_by(detector.model.version, most)
        recorded = len(scores)
    columns = {column.name: column for column in card.columns} if card else {}
    card_rows = card.rows if card else 0
    return {
        "has_card": card is not None,
        "has_values": bool(console.predictor.records and console.predictor.records.features),
        "measured_rows": drift.rows,
        "recent_rows": recorded,
        "score_psi": drift.score,
        "find": find,
        "page": page,
        "pages": pages,
        "found": len(found),
        "columns": [
            row | _describe(columns.get(row["column"]), cells.get(row["column"]), card_rows)
            for row in shown
        ],
        "rows": found,
    }


def _rank(drift: Drift, odd: Mapping[tuple[str, str], int], names: Sequence[str]) -> list[Data]:
    """Return the drift and the odd cells of each column, the largest drift first."""
    rows = [
        {"column": name, "psi": drift.features.get(name)}
        | {kind: odd.get((name, kind), 0) for kind in ODD}
        for name in names
    ]
    return sorted(rows, key=lambda row: -1.0 if row["psi"] is None else row["psi"], reverse=True)


def _read_page(text: str, pages: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text)):
        raise BadInput(f"page is a whole number from 1 to {pages}, not {text[:20]!r}")
    return min(int(text), pages)


def _describe(column: Column | None, cells: NDArray[Any] | None, rows: int) -> Data:
    """Return what is known of a column's training values, and of its recent ones.

    `rows` are those of the training table.
    """
    if column is None:
        return {"kind": "number", "recent": None}
    missing = column.missing / rows if rows else None
    described: Data = {"kind": column.kind, "parts": column.parts, "training_missing": missing}
    described |= {"recent": None, "recent_missing": None}
    if cells is None or not len(cells):
        return described
    is_missing = cells == b"" if cells.dtype.kind == "S" else np.isnan(cells)
    described |= {"recent": len(cells), "recent_missing": float(np.mean(is_missing))}
    return described | _distribution(column, cells, is_missing)


def _distribution(column: Column, cells: NDArray[Any], is_missing: NDArray[np.bool_]) -> Data:
    """Return what there is to draw of a column: histograms, or the shares of its values."""
    if column.values:
        return {"shares": _value_shares(column, cells)}
    if column.moments:
        return {"moments": _moments(column, cells)}
    if column.quantiles is None or None in column.quantiles or is_missing.all():
        return {}
    quantiles = np.array(cast(list[float], column.quantiles))
    if column.kind == "flag":
        return {"shares": _flag_shares(column, quantiles, cells[~is_missing])}
    return {"histogram": compare(quantiles, cells[~is_missing])}


def compare(quantiles: Floats, values: Floats, bins: int = _BINS) -> Data:
    """Return the shares of recent values and of training's in bins of one width.

    `quantiles` are training's, equally spaced, minimum to maximum. The bins cover the middle 98 %
    of both; the first and the last have what is beyond, too. There are at most `bins`: each bin of
    whole numbers has equally many of them.
    """
    low, *recent, high = np.quantile(values, [0.01, 0.05, 0.5, 0.95, 0.99]).tolist()
    low, high = min(low, quantiles[1]), max(high, quantiles[-2])
    if _are_whole(values) and _are_whole(quantiles):
        edges = _whole_edges(math.floor(low), math.ceil(high), bins)
    elif high > low:
        edges = np.linspace(low, high, bins + 1)
    else:
        edges = np.linspace(low - 0.5, high + 0.5, bins + 1)
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    below = _cumulative(quantiles, np.nextafter(edges, -np.inf))  # a bin begins with its edge
    below[0], below[-1] = 0, 1
    training = np.diff(below)
    return {
        "edges": edges.tolist(),
        "recent": (counts / len(values)).tolist(),
        "training": training.tolist(),
        "recent_quantiles": recent,
        "training_quantiles": quantiles[[5, 50, 95]].tolist() if len(quantiles) == 101 else None,
    }


def _are_whole(values: Floats) -> bool:
    return bool((values == np.floor(values)).all())


def _whole_edges(low: int, high: int, bins: int) -> Floats:
    """Return edges between whole numbers, so that no bin has more of them than another.

    >>> _whole_edges(1, 5, 3).tolist()
    [0.5, 2.5, 4.5, 6.5]
    """
    width = -(-(high - low + 1) // bins)
    count = -(-(high - low + 1) // width)
    edges: Floats = low - 0.5 + width * np.arange(count + 1.0)
    return edges


def _cumulative(quantiles: Floats, points: Floats) -> Floats:
    """Return the share of the training rows up to each point.

    Between two quantiles it is interpolated; a value that fills several is a jump.
    """
    steps = len(quantiles) - 1
    values, first = np.unique(quantiles, return_index=True)
    last = np.append(first[1:] - 1, steps)
    places = np.column_stack([np.nextafter(values, -np.inf), values]).ravel()
    return np.interp(points, places, np.column_stack([first, last]).ravel() / steps)


def _moments(column: Column, cells: NDArray[np.bytes_]) -> list[Data]:
    """Return the shares of recent dates, and of training's, at each hour, weekday and day."""
    moments = Moments.from_column(column)
    return [
        {
            "part": part,
            "edges": [value - 0.5 for value in (*PARTS[part], PARTS[part].stop)],
            "recent": shares.tolist(),
            "training": moments.shares[part].tolist(),
        }
        for part, shares in moments.recent(cells).items()
    ]


def _flag_shares(column: Column, quantiles: Floats, values: Floats) -> list[Data]:
    """Return the shares of both values of a flag; training's are known to 1 %."""
    return [
        _line(word, float(np.mean(values == value)), float(np.mean(quantiles == value)))
        for value, word in enumerate(flag_words(column.type))
    ]


def _value_shares(column: Column, cells: NDArray[np.bytes_]) -> list[Data]:
    """Return the shares of the most common values, of missing cells and of all others."""
    found, numbers = np.unique(cells, return_counts=True)
    recent = Counter(dict(zip(found.tolist(), numbers.tolist(), strict=True)))
    training: Counter[bytes] = Counter()
    for value, number in (column.values or {}).items():
        training[store(value)] += number
    training[b""] += column.missing
    shares = {
        value: (recent[value] / len(cells), training[value] / column.rows)
        for value in recent.keys() | training.keys()
        if recent[value] or training[value]
    }
    chosen = sorted(shares, key=lambda value: (-max(shares[value]), value))[:_MOST_VALUES]
    lines = [
        _line(value.decode(errors="replace") or "(missing)", *shares[value]) for value in chosen
    ]
    rest = [max(0.0, 1 - sum(shares[value][i] for value in chosen)) for i in (0, 1)]
    return lines if max(rest) < _NOTHING else [*lines, _line("(all others)", *rest)]


def _line(value: str, recent: float, training: float) -> Data:
    return {"value": value, "recent": recent, "training": training}


VIEW = View("drift", "Drift", read, table="rows")
