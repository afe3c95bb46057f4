"""MLflow's scoring protocol (/invocations): pure functions from bytes to a table and back."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from itertools import islice
from typing import Any

from ..cells import REQUESTS
from ..errors import BadInput, TooLarge, Unsupported, count
from ..rows import Limits, RawTable, Verdict
from .codec import NOT_JSON, is_json, parse_json, render_json, require_finite

PATHS = ("/invocations", "/ping", "/health", "/version")

EXAMPLE = '{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}'

CSV = "text/csv"

# MLflow's own words for a status; it has none for 405, 413 and 415.
ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


def decode_request(body: bytes, content_type: str, limits: Limits) -> RawTable:
    """Read a table: JSON in one of MLflow's four forms, or CSV with a line of names.

    Raises:
        BadInput: not such a table; the text names row and column.
        TooLarge: more rows or columns than `limits`, or nested deeper.
        Unsupported: another type of content.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == CSV:
        return _decode_csv(body, limits)
    if not is_json(kind):
        raise Unsupported(f"Content-Type {kind[:40]!r} is not read here; send JSON or {CSV}")
    value, refusal = parse_json(body, limits.depth, NOT_JSON)
    return require_finite(_decode_json(value, limits), refusal)


def encode_answer(verdict: Verdict, with_scores: bool = False) -> bytes:
    """Answer with 1 for each outlier and 0 for each inlier; on request with exact scores, too."""
    answer: dict[str, Any] = {"predictions": verdict.labels}
    if with_scores:
        answer |= {"scores": verdict.scores, "threshold": verdict.threshold}
    return render_json(answer)


def encode_error(text: str, status: int) -> dict[str, Any]:
    """Tell a failure in MLflow's shape."""
    return {"error_code": ERROR_CODES.get(status, "BAD_REQUEST"), "message": text}


def _decode_json(body: Any, limits: Limits) -> RawTable:
    if not isinstance(body, dict):
        raise BadInput(f"a request is a JSON object, as in {EXAMPLE}")
    sent = [form for form in _FORMS if form in body]
    if len(sent) != 1:
        raise BadInput(
            f"{' and '.join(sent) or 'no rows'} came; a request has one of {', '.join(_FORMS)}, "
            f"as in {EXAMPLE}"
        )
    return _FORMS[sent[0]](sent[0], body[sent[0]], limits)


def _decode_split(form: str, table: Any, limits: Limits) -> RawTable:
    if not isinstance(table, dict) or "data" not in table:
        raise BadInput(f"{form} is not an object with data, as in {EXAMPLE}")
    return RawTable.nested(table["data"], _decode_names(form, table.get("columns")), limits)


def _decode_names(form: str, names: Any) -> tuple[str, ...]:
    """Return the columns' names; pandas numbers those that have none."""
    if names is None or (isinstance(names, list) and names == list(range(len(names)))):
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput(f"{form}.columns is not a list of strings")
    return tuple(names)


def _decode_instances(form: str, table: Any, limits: Limits) -> RawTable:
    if isinstance(table, dict):
        return _join_columns(form, table, limits)
    if isinstance(table, list) and table and isinstance(table[0], dict):
        return _decode_records(form, table, limits)
    return RawTable.nested(table, (), limits)


def _decode_records(form: str, records: Any, limits: Limits) -> RawTable:
    if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
        raise BadInput(f'{form} is not a list of objects, as in [{{"a": 1, "b": 2}}]')
    names = tuple(records[0]) if records else ()
    for i, row in enumerate(records):
        if missing := [name for name in names if name not in row]:
            raise BadInput(f"row {i} has no column {missing[0]!r}, row 0 has")
        if len(row) > len(names):
            extra = next(name for name in row if name not in names)
            raise BadInput(f"row {i} has a column {extra!r}, row 0 has none")
    return RawTable.nested([[row[name] for name in names] for row in records], names, limits)


def _join_columns(form: str, columns: dict[str, Any], limits: Limits) -> RawTable:
    if not columns or not all(isinstance(column, list) for column in columns.values()):
        raise BadInput(f'{form} is neither rows nor lists by name, as in {{"a": [1], "b": [2]}}')
    first = next(iter(columns))
    for name, column in columns.items():
        if len(column) != len(columns[first]):
            raise BadInput(
                f"column {name!r} has {count(len(column), 'row')}, "
                f"column {first!r} has {len(columns[first]):,}"
            )
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return RawTable.nested(rows, tuple(columns), limits)


_FORMS: dict[str, Callable[[str, Any, Limits], RawTable]] = {
    "dataframe_split": _decode_split,
    "dataframe_records": _decode_records,
    "instances": _decode_instances,
    "inputs": _decode_instances,
}


def _decode_csv(body: bytes, limits: Limits) -> RawTable:
    """Read comma-separated values; row 0 is the first line after the names.

    An empty cell is a missing value, and so is what pandas takes for one.
    """
    try:
        reader = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""))
        lines = list(islice((line for line in reader if line), limits.rows + 2))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"the body is not CSV: {error}") from error
    if not lines:
        raise BadInput("the body is empty; send a line of names and a line for each row")
    names, *rows = lines
    if len(rows) > limits.rows:  # how many more there are would take seconds to find out
        raise TooLarge(f"more than {limits.rows:,} rows in one request; send fewer at a time")
    cells = [[None if REQUESTS.is_missing(cell) else cell for cell in row] for row in rows]
    if rows and len(rows[0]) != len(names):
        raise BadInput(f"row 0 has {count(len(rows[0]), 'column')}, the line of names {len(names)}")
    return RawTable.nested(cells, names, limits)
