"""MLflow's scoring protocol (/invocations): pure functions from bytes to a table and back."""

import codecs
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..cells import is_missing, parse_number
from ..dialects import check_width, decode_text, find_dialect, read_rows
from ..errors import BadInput, TooLarge, Unsupported, count
from ..rows import Limits, RawTable, Verdict
from .codec import (
    NOT_JSON,
    bounded,
    decode_names,
    decode_records,
    expect,
    is_json,
    is_records,
    parse_json,
    refuse_stray_names,
    render_json,
    require_finite,
)

PATHS = ("/invocations", "/ping", "/health", "/version")

EXAMPLE = '{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}'

_NAMES_STAND = "names of columns stand in dataframe_split.columns, or in each record"

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)

# The charsets that a CSV body may have, by the names of Python's codecs.
_CHARSETS = frozenset(
    {"utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "ascii"}
    | {"iso8859-1", "iso8859-15", "cp1250", "cp1252"}
)

# A number begins with one of these, and a missing value with none.
_NUMBER = frozenset("0123456789-+.")

# MLflow's codes for a status; it has none for 405, 413 and 415.
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
        Unsupported: another type of content, or a charset that is not read.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "text/csv":
        charset = _CHARSET.search(content_type)
        return _decode_csv(body, _check_charset(charset[1] if charset else ""), limits)
    if not is_json(media_type):
        name = repr(media_type[:40])
        raise Unsupported(f"Content-Type {name} is not read here; send JSON or text/csv")
    value, refusal = parse_json(body, limits.depth, NOT_JSON, limits.lists)
    return require_finite(_decode_json(value, limits), refusal)


def encode_answer(verdict: Verdict, with_scores: bool = False, explanations: Any = None) -> bytes:
    """Answer with 1 for each outlier and 0 for each inlier; the rest is there on request."""
    answer: dict[str, Any] = {"predictions": verdict.labels}
    if explanations is not None:
        answer["explanations"] = explanations
    if with_scores:
        answer |= {"scores": verdict.scores, "threshold": verdict.threshold}
        if verdict.ids is not None:
            answer["ids"] = verdict.ids
    if verdict.pvalues is not None:
        answer["pvalues"] = verdict.pvalues
    return render_json(answer)


def encode_error(text: str, status: int) -> dict[str, Any]:
    """Return a failure in MLflow's form."""
    return {"error_code": ERROR_CODES.get(status, "BAD_REQUEST"), "message": text}


def _decode_json(body: Any, limits: Limits) -> RawTable:
    expect(body, dict, f"a request is a JSON object, as in {EXAMPLE}")
    forms = [form for form in _FORMS if form in body]
    if len(forms) != 1:
        found, known = " and ".join(forms) or "no rows", ", ".join(_FORMS)
        raise BadInput(f"{found} came; a request has one of {known}, as in {EXAMPLE}")
    refuse_stray_names(body, "the request", _NAMES_STAND)
    _refuse_options(body.get("params"))
    return _FORMS[forms[0]](forms[0], body[forms[0]], limits)


def _refuse_options(params: Any) -> None:
    """Refuse options among the `params`, which are not read; others are ignored."""
    for option in ("scores", "explain", "pvalues"):
        if isinstance(params, dict) and params.get(option):
            raise BadInput(f"params.{option} is not read here; send it in the query: ?{option}=1")


def _decode_split(form: str, table: Any, limits: Limits) -> RawTable:
    if not isinstance(table, dict) or "data" not in table:
        raise BadInput(f"{form} is not an object with data, as in {EXAMPLE}")
    refuse_stray_names(table, form, _NAMES_STAND, read="columns")
    index, data = table.get("index"), table["data"]
    if isinstance(index, list) and isinstance(data, list) and len(index) != len(data):
        raise BadInput(f"{form}.index has {len(index):,} entries for {count(len(data), 'row')}")
    names = decode_names(table.get("columns"), f"{form}.columns", limits.columns)
    return RawTable.nested(data, names, limits)


def _decode_instances(form: str, table: Any, limits: Limits) -> RawTable:
    if isinstance(table, dict):
        return _join_columns(form, table, limits)
    if is_records(table):
        return decode_records(table, form, limits)
    return RawTable.nested(table, (), limits)


def _join_columns(form: str, columns: dict[str, Any], limits: Limits) -> RawTable:
    if not columns or not all(isinstance(column, list) for column in columns.values()):
        raise BadInput(f'{form} is neither rows nor lists by name, as in {{"a": [1], "b": [2]}}')
    bounded(len(columns), limits.columns, "columns")
    first, length = next((name, len(column)) for name, column in columns.items())
    bounded(length, limits.rows, "rows")
    for name, column in columns.items():
        if len(column) != length:
            n_rows = count(len(column), "row")
            raise BadInput(f"column {name!r} has {n_rows}, column {first!r} has {length:,}")
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return RawTable.nested(rows, tuple(columns), limits)


_FORMS: dict[str, Callable[[str, Any, Limits], RawTable]] = {
    "dataframe_split": _decode_split,
    "dataframe_records": lambda form, rows, limits: decode_records(rows, form, limits),
    "instances": _decode_instances,
    "inputs": _decode_instances,
}


def _check_charset(charset: str) -> str:
    """Return a charset that is read here, or nothing; Unsupported for another one."""
    codec = ""
    with suppress(LookupError):
        codec = codecs.lookup(charset or "utf-8").name
    if codec not in _CHARSETS:
        raise Unsupported(f"the charset {charset[:40]!r} is not read here; send CSV in UTF-8")
    return charset


def _decode_csv(body: bytes, charset: str, limits: Limits) -> RawTable:
    """Read CSV text as training does; row 0 is the first line after the names."""
    try:
        text, _ = decode_text(body, charset)
        dialect = find_dialect(text)
        lines = list(read_rows(text, dialect, limits.rows + 1))
    except BadInput as error:
        raise BadInput(f"the body is not CSV: {error}") from error
    if not lines:
        raise BadInput("the body is empty; send a line of names and a line for each row")
    names, *rows = lines
    if not rows:
        raise BadInput("there are no rows after the first line, which is taken for the names")
    if len(rows) > limits.rows:  # counting the others would take seconds
        raise TooLarge(f"more than {limits.rows:,} rows in one request; send fewer at a time")
    bounded(len(names), limits.columns, "columns")
    bounded(max(map(len, rows)), limits.columns, "columns")
    check_width(0, rows[0], names)
    table = RawTable.nested(rows, [name.strip() for name in names], limits)
    table.is_csv, table.is_headless = True, all(map(_is_value, names))
    return table


def _is_value(text: str) -> bool:
    """Return whether a text is a number or a missing value."""
    if is_missing(text):
        return True
    try:
        parse_number(text)
    except ValueError:
        return False
    return True
