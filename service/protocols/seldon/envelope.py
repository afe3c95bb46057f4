"""Find the JSON of a Seldon message: in the body, a form field, the query, or parts."""

import base64
import re
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from ...errors import BadInput
from ...rows import Limits
from ..codec import JSON, NO_JSON, is_json, load_json, parse_json

FIELD = "json"
"""The field of a form or query that holds a whole message."""

_MOST_PARTS = 16  # of a form of either type; a message has at most eight keys

_MOST_HEAD = 2**13  # bytes of the headers of a part; a few hundred are usual
_HEAD_ENDS = re.compile(rb"\r\n\r\n|\n\n|\r\r")

_PIECE = 2**16  # bytes of a form that are decoded at a time: it takes 25 times as many meanwhile

_LIMITS = Limits()

_FORM, _PARTS = "application/x-www-form-urlencoded", "multipart/form-data"


def read_json(
    content_type: str, query: str, body: bytes, limits: Limits = _LIMITS
) -> tuple[Any, BadInput | None]:
    """Find the JSON value of a request and read it; the second value is `parse_json`'s refusal.

    The places are tried in Seldon's order: the parts of a multipart body, each a key of the
    message; the field `json` of a form; `json` in the query; the body, if its type is JSON.

    Raises:
        BadInput: there is no JSON.
        TooLarge: nested too deeply, or too many lists and objects.
    """
    if content_type == JSON and not query:
        return parse_json(body, limits.depth, NO_JSON, limits.lists)
    media_type, options = parse_options_header(content_type)
    media_type = media_type.lower()
    if media_type == _PARTS:
        return _read_parts(body, options, limits), None
    text = _read_field(body) if media_type == _FORM else b""
    if not text and query:
        text = dict(reversed(parse_qsl(query))).get(FIELD, "").encode()
    if text:
        return parse_json(text, limits.depth, NO_JSON, limits.lists)
    if is_json(media_type):
        return parse_json(body, limits.depth, NO_JSON, limits.lists)
    is_form = media_type == _FORM
    hint = f"the form has no field {FIELD}" if is_form else f"send it with Content-Type: {JSON}"
    raise BadInput(f"{NO_JSON}: {hint}")


def _read_field(body: bytes) -> bytes:
    """Return the first field `json` of a form, decoded a piece at a time, else nothing."""
    if body.count(b"&") >= _MOST_PARTS:  # millions would take seconds
        raise BadInput(f"{NO_JSON}: a form has at most {_MOST_PARTS} fields")
    start = FIELD.encode() + b"="
    for field in body.split(b"&"):
        if field.startswith(start):
            return b"".join(map(unquote_to_bytes, _pieces(field[len(start) :].replace(b"+", b" "))))
    return b""


def _pieces(text: bytes) -> Iterator[bytes]:
    """Cut a text into pieces, each with whole escapes such as %7b."""
    start = 0
    while start < len(text):
        end = start + _PIECE
        escape = text.find(b"%", end - 2, end)
        end = escape if escape > start else end
        yield text[start:end]
        start = end


def _read_parts(body: bytes, options: dict[str, str], limits: Limits) -> dict[str, Any]:
    """Return the message whose keys are parts; all are JSON but `strData` and `binData`."""
    fields, files = _read_form(body, options)
    parts = {key: text.encode() for key, text in fields.items()}
    parts |= {key: file.read() for key, file in files.items()}
    if None in parts:  # werkzeug's key for a part without a readable name
        raise BadInput('a part has no name; each is named after a key of the message, as in "data"')
    lists = sum(content.count(b"[") + content.count(b"{") for content in parts.values())
    most = limits.lists if lists <= limits.lists else limits.lists // len(parts)
    return {key: _read_part(key, content, limits.depth, most) for key, content in parts.items()}


def _read_part(key: str, content: bytes, max_depth: int, most: int) -> Any:
    if key == "binData":
        return base64.b64encode(content).decode()
    try:
        if key == "strData":
            return content.decode()
        return load_json(content, max_depth, most=most)
    except (BadInput, UnicodeDecodeError) as error:
        raise BadInput(f"the part {key[:40]!r} cannot be read: {error}") from error


def _read_form(
    body: bytes, options: dict[str, str]
) -> tuple[MultiDict[str, str], MultiDict[str, FileStorage]]:
    _check_heads(body, options.get("boundary", ""))
    parser = FormDataParser(
        stream_factory=lambda *_, **__: BytesIO(),  # the body is in memory already
        max_form_memory_size=None,
        max_form_parts=_MOST_PARTS,
        silent=False,
    )
    try:
        _, fields, files = parser.parse(BytesIO(body), _PARTS, len(body), options)
    except (ValueError, HTTPException) as error:
        raise BadInput(f"{NO_JSON}: the {_PARTS} body cannot be read ({error})") from error
    return fields, files


def _check_heads(body: bytes, boundary: str) -> None:
    """Refuse parts whose headers would take long to read."""
    starts = re.finditer(re.escape(b"--" + boundary.encode()), body)
    for start in islice(starts, _MOST_PARTS + 1):
        head = body[start.end() : start.end() + _MOST_HEAD]
        if len(head) == _MOST_HEAD and not _HEAD_ENDS.search(head):
            raise BadInput(f"{NO_JSON}: the headers of a part have more than {_MOST_HEAD:,} bytes")
