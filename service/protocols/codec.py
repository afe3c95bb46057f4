"""JSON and compression: one strict reader, one writer, bounded decompression."""

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ..errors import BadInput, TooLarge, Unsupported, count
from ..rows import Limits, RawTable

JSON = "application/json"

# Headers of every answer. Seldon's clients rely on reading answers from any page in a browser.
ALWAYS = (("Access-Control-Allow-Origin", "*"), ("X-Content-Type-Options", "nosniff"))
# Headers of answers that do not set their own: browsers must not run, frame or cache them.
UNLESS_SAID = (
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cache-Control", "no-store"),
)

# The start of the error for a body that is not JSON. Seldon's clients look for Seldon's words.
NO_JSON, NOT_JSON = "Can't find JSON in data", "the body is not JSON"

# Fields that clients of other services use for the names of columns.
_NAME_FIELDS = frozenset({"names", "columns", "column_names", "feature_names", "features"})

MOST_LISTS = Limits().lists

MOST_ITEMS = 1000
"""The most metrics or tags in a message, and the most parts of anything else that is short."""

_UNSORTED = orjson.OPT_SERIALIZE_NUMPY
_SORTED = _UNSORTED | orjson.OPT_SORT_KEYS

read_strict, write_plain = orjson.loads, orjson.dumps
"""For messages that are read or written whole at once: ValueError for what is no JSON."""

# Content-Encoding -> zlib's window size, which selects the format.
_ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

_ODD_NUMBER = re.compile(rb"NaN|Infinity|(?<![0-9])[0-9]{300}|[eE]\+?[0-9]{3}")
_LONG_INTEGER = re.compile(rb"[0-9]{19}")  # perhaps beyond 64 bits
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_NESTING = bytes(set(range(256)) - set(b'[]{}"'))


def parse_json(
    body: bytes, max_depth: int = 8, fault: str = NO_JSON, most: int = MOST_LISTS
) -> tuple[Any, BadInput | None]:
    """Read one JSON value; `fault` is the start of the error for a body that is not JSON.

    Every protocol reads JSON here. What reading costs is bounded before it begins: numbers and
    texts take about ten times their bytes of memory, and there are at most `most` lists and
    objects, which take more.

    As for Flask, the body may have a byte order mark, or be UTF-16 or UTF-32. NaN is accepted,
    though it is not JSON, because numpy and pandas users send it. Infinity is read but refused: the
    second value is the refusal, for the caller to raise once it has looked for the infinite cell
    (`require_finite`). Of a repeated key the last one counts.

    Raises:
        BadInput: not JSON.
        TooLarge: nested deeper than `max_depth`, or too many lists and objects.
    """
    if b"\0" in (start := body[:2]) or not start.isascii():
        body = _to_utf8(body, fault)
    check_nesting(body, max_depth, most)
    try:
        return orjson.loads(body), None
    except orjson.JSONDecodeError as error:
        reason = error.msg.replace("Input is", "it is")
        refusal = BadInput(f"{fault}: {reason} at line {error.lineno} column {error.colno}")
    sound = _is_json_but_for_nan(body)
    return _read_loosely(body, refusal), None if sound else refusal


def check_nesting(body: bytes, max_depth: int, most: int = MOST_LISTS) -> None:
    """Raise TooLarge if lists and objects are nested too deeply, or if there are too many."""
    opened = body.count(b"[") + body.count(b"{")
    if opened <= min(max_depth, most):
        return
    # numpy, because a pattern would hold the interpreter for seconds on millions of strings.
    marks = _without_escapes(body).translate(_BRACES_TO_BRACKETS, _NOT_NESTING)
    steps = 92 - np.frombuffer(marks, dtype=np.int8)  # "[" is 91 and "]" is 93: up or down
    steps[_in_string(marks)] = 0
    if steps.cumsum(dtype=np.int32).max(initial=0) > max_depth:
        raise TooLarge(f"the JSON is nested more than {max_depth} levels deep")
    bounded(int(np.count_nonzero(steps == 1)), most, "lists and objects")


def bounded(number: int, most: int, what: str) -> None:
    """Raise TooLarge if a message has more than `most` of something; before it is gone through."""
    if number > most:
        raise TooLarge(f"{number:,} {what} in one message; at most {most:,}")


def load_json(body: bytes, max_depth: int = 8, fault: str = NO_JSON, most: int = MOST_LISTS) -> Any:
    """Read one JSON value as `parse_json` does, and raise the refusal of Infinity."""
    value, refusal = parse_json(body, max_depth, fault, most)
    if refusal:
        raise refusal
    return value


def require_finite(table: RawTable, refusal: BadInput | None) -> RawTable:
    """Return a table; raise a refusal by `parse_json`, with the infinite cell if it is in here."""
    if refusal:
        where = table.infinite()
        raise BadInput(where) if where else refusal
    return table


def is_records(rows: Any) -> bool:
    """Return whether rows are a list of objects, at least by the first."""
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict)


def decode_records(records: Any, field: str, limits: Limits) -> RawTable:
    """Read rows that are objects with the same keys; `field` is where they stand in the message."""
    if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
        raise BadInput(f'{field} is not a list of objects, as in [{{"a": 1, "b": 2}}]')
    names = tuple(records[0]) if records else ()
    bounded(len(records), limits.rows, "rows")
    bounded(len(names), limits.columns, "columns")
    if records and not names:
        raise BadInput("row 0 is empty")
    for i, row in enumerate(records):
        if missing := [name for name in names if name not in row]:
            raise BadInput(f"row {i} has no column {missing[0]!r}, row 0 has")
        if len(row) > len(names):
            extra = next(name for name in row if name not in names)
            raise BadInput(f"row {i} has a column {extra!r}, row 0 has none")
    return RawTable.nested([[row[name] for name in names] for row in records], names, limits)


def expect(value: Any, kind: Any, fault: str) -> Any:
    """Return a value of the type `kind`; raise BadInput(fault) for any other."""
    if not isinstance(value, kind):
        raise BadInput(fault)
    return value


def decode_names(names: Any, field: str, most: int) -> tuple[str, ...]:
    """Return at most `most` names of columns, none for null; `field` is where they stand.

    Whole numbers, which pandas gives to columns without names, become strings.
    """
    if names is None:
        return ()
    if isinstance(names, list):
        bounded(len(names), most, f"names in {field}")
    if not isinstance(names, list) or not all(type(name) in (str, int) for name in names):
        raise BadInput(f"{field} is not a list of strings")
    return tuple(map(str, names))


def refuse_stray_names(fields: Mapping[str, Any], where: str, place: str, read: str = "") -> None:
    """Refuse names of columns in a field that is not read: their order may be another.

    `place` is where names stand in this protocol, and `read` is the field that is read here.
    """
    if _NAME_FIELDS.isdisjoint(fields):
        return
    for field in fields:
        if field in _NAME_FIELDS and field != read:
            raise BadInput(f"{where} has a field {field!r}, which is not read; {place}")


def decode_shape(shape: Any, field: str, least: int, dimensions: tuple[int, ...]) -> list[int]:
    """Return the shape of a tensor, each side at least `least`; `dimensions` are allowed."""
    if isinstance(shape, list) and len(shape) not in dimensions:
        raise BadInput(f"{field} has {count(len(shape), 'dimension')}; rows have 2, as in [1, 2]")
    if not isinstance(shape, list) or not all(type(n) is int and n >= least for n in shape):
        raise BadInput(f"{field} is not a list of whole numbers")
    return shape


def is_json(media_type: str) -> bool:
    """Return whether a media type is JSON.

    >>> is_json("application/json"), is_json("application/vnd.x+json"), is_json("text/plain")
    (True, True, False)
    """
    return re.fullmatch(r"application/(json|.*\+json)", media_type, re.DOTALL) is not None


def render_json(value: Any, in_order: bool = False) -> bytes:
    """Write a value, numpy arrays included, without spaces; keys are sorted unless `in_order`."""
    return orjson.dumps(value, option=_UNSORTED if in_order else _SORTED)


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decompress a body (gzip, deflate or none) to at most `max_bytes`.

    Raises:
        BadInput: the body is not in this encoding, is truncated, or has bytes after its end.
        TooLarge: the unpacked body is larger.
        Unsupported: another encoding.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _ENCODINGS:
        name = repr(encoding[:40])
        raise Unsupported(f"Content-Encoding {name} is not read here; gzip and deflate are")
    unpacker = zlib.decompressobj(_ENCODINGS[encoding])
    try:
        unpacked = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        reason = str(error).rpartition(": ")[2]
        hint = "; HTTP's deflate has zlib's header" if encoding == "deflate" else ""
        raise BadInput(f"the body is not packed with {encoding}: {reason}{hint}") from error
    if len(unpacked) > max_bytes:
        size = f"{max_bytes:,} bytes"
        raise TooLarge(f"the body unpacks to more than {size}; send fewer rows at a time")
    if not unpacker.eof:
        raise BadInput(f"the body packed with {encoding} ends early")
    if extra := len(unpacker.unused_data):
        raise BadInput(f"{extra:,} bytes follow the body packed with {encoding}")
    return unpacked


def _to_utf8(body: bytes, fault: str) -> bytes:
    """Return JSON in another encoding as UTF-8, without a byte order mark."""
    encoding = json.detect_encoding(body)
    if encoding == "utf-8":
        return body
    try:
        return body.decode(encoding).encode()
    except UnicodeError as error:
        raise BadInput(f"{fault}: it begins like {encoding} and is not; send UTF-8") from error


def _read_loosely(body: bytes, refusal: BadInput) -> Any:
    """Read JSON that may hold NaN or an infinite number, with Python's own, slower reader."""
    try:
        if _ODD_NUMBER.search(body):
            parse_int = _parse_int if _LONG_INTEGER.search(body) else None
            return json.loads(body.decode(), parse_int=parse_int)
    except (ValueError, RecursionError):
        pass
    raise refusal


def _is_json_but_for_nan(body: bytes) -> bool:
    """Return whether a body is JSON where `[] ` stands in place of each NaN outside texts."""
    if b"NaN" not in body:
        return False
    plain = _without_escapes(body)
    found = np.frombuffer(plain, dtype=np.uint8)
    starts = found[:-2] == ord("N")
    starts &= (found[1:-1] == ord("a")) & (found[2:] == ord("N"))
    places = np.flatnonzero(starts & ~_in_string(plain)[:-2])
    changed = np.frombuffer(bytearray(body), dtype=np.uint8)
    for i, character in enumerate(b"[] "):
        changed[places + i] = character
    try:
        orjson.loads(changed.data)
    except orjson.JSONDecodeError:
        return False
    return True


def _parse_int(text: str) -> int | float:
    """Read a whole number as orjson does: one beyond 64 bits as a float, perhaps infinite."""
    number = int(text) if len(text) < 21 else 2**64
    return number if -(2**63) <= number < 2**64 else float(text)


def _without_escapes(body: bytes) -> bytes:
    """Return a body of the same length without escaped quotes: those left begin and end texts."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"..").replace(b'\\"', b"..")
    return body


def _in_string(text: bytes) -> NDArray[np.bool_]:
    """Return which bytes are in a text, its quotes included; no quote is escaped."""
    quotes = np.frombuffer(text, dtype=np.uint8) == ord('"')
    inside = np.logical_xor.accumulate(quotes)
    inside |= quotes
    return inside
