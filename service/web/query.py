"""Read options of the query, and the body, of a Flask request."""

import re
from collections.abc import Mapping

from flask import request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from ..errors import BadInput, nearest
from ..protocols.codec import NO_JSON
from ..protocols.seldon.envelope import FIELD
from .handlers import body_too_large

MOST = 999_999
"""Largest number that an option of the query may have."""

_OPTIONS = ("scores", "explain", "pvalues", FIELD)
"""Known options; others are ignored, unless one looks like a misspelt option."""

_MISSPELT = 0.85
"""Least similarity of a misspelt option: `score` has 0.91, `explian` 0.86; `plain` has 0.83."""

_SWITCH = {"1": True, "true": True, "": False, "0": False, "false": False}


def read_plain_body(max_bytes: int) -> bytes:
    """Return the body of this request; BadInput if it is compressed."""
    if (request.content_encoding or "identity").lower() != "identity":
        raise BadInput(f"{NO_JSON}: a body with Content-Encoding is not read here; send it plain")
    return read_body(max_bytes)


def read_body(max_bytes: int) -> bytes:
    """Return the body of this request, still compressed if it was sent so.

    Raises:
        BadInput: the body ends early.
        TooLarge: it is larger than `max_bytes`.
    """
    try:
        body = request.get_data(cache=False)
    except ClientDisconnected as error:
        raise BadInput(f"the body ends early: it has {request.content_length} bytes") from error
    except RequestEntityTooLarge as error:
        raise body_too_large(max_bytes) from error
    if len(body) > max_bytes:
        raise body_too_large(max_bytes)
    return body


def read_encoding() -> str:
    """Return the header Content-Encoding, or nothing."""
    return request.headers.get("Content-Encoding", "")


def read_switch(name: str) -> bool:
    """Return whether the query has `name=1`; BadInput if the value is neither on nor off."""
    text = read_option(name)
    if text.lower() not in _SWITCH:
        raise BadInput(f"{name} is 1 or 0, not {text[:20]!r}")
    return _SWITCH[text.lower()]


def read_number(name: str) -> int:
    """Return the whole number `name` of the query, 0 by default."""
    text = read_option(name)
    if not re.fullmatch("[0-9]+", text):
        raise BadInput(f"{name} is a whole number, not {text[:20]!r}")
    if len(text) > len(str(MOST)):
        raise BadInput(f"{name} has at most {len(str(MOST))} digits, not {len(text):,}")
    return int(text)


def refuse_options(advice: Mapping[str, str]) -> None:
    """Refuse options that this route does not have; `advice` says what to do instead of each."""
    for name, instead in advice.items():
        if _SWITCH.get(read_option(name).lower(), True):
            raise BadInput(f"{name} is no option of {request.path}; {instead}")


def read_option(name: str) -> str:
    """Return an option of the query, "0" by default; BadInput if it is repeated or misspelt."""
    given = request.args.getlist(name)
    if len(given) > 1:
        raise BadInput(f"{name} is given {len(given)} times")
    if given:
        return given[0]
    for sent in request.args:
        if sent not in _OPTIONS and (hint := nearest(sent.lower(), [name], _MISSPELT)):
            raise BadInput(f"the query has {sent[:40]!r}, which is no option{hint}")
    return "0"
