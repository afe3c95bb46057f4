"""Answers of the console: pages made from templates, compressed data, and the files of the page."""

import gzip
import math
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from socket import gethostname
from typing import Any

from flask import Response, g, render_template, request, url_for
from markupsafe import Markup

from ... import __version__
from ...errors import NotFound
from . import charts

_LEAST_PACKED = 1000  # bytes; a shorter answer is one packet anyway
_YEAR = 365 * 86400  # seconds

HTML, CSV = "text/html; charset=utf-8", "text/csv; charset=utf-8"

_FOLDER = Path(__file__).parent / "static"

_FILES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "uplot.js": "text/javascript; charset=utf-8",
    "uplot.LICENSE": "text/plain; charset=utf-8",
}


def render_page(template: str, status: int = HTTPStatus.OK, **values: Any) -> Response:
    """Return a page made from a template; what it shows is in `values`."""
    values = {"layout": "base.html", "view": None, "query": {}, "data": {}} | values
    text = render_template(
        f"console/{template}",
        version=__version__,
        host=gethostname(),
        charts=charts,
        nan=math.nan,
        static=_static_url,
        form_token=_form_token,
        logged_in=g.session is not None,
        allowed=g.allowed,
        **values,
    )
    return pack(Response(text, status), HTML)


def _form_token() -> Markup:
    """Return the hidden field that each form that is posted has."""
    token = g.access.form_token(g.session)
    return Markup('<input type="hidden" name="form_token" value="{}">').format(token)


def pack(response: Response, content_type: str) -> Response:
    """Set the type of an answer, and compress it for a browser that takes that."""
    response.headers["Content-Type"] = content_type
    body = response.get_data()
    if len(body) >= _LEAST_PACKED and request.accept_encodings.quality("gzip") > 0:
        response.set_data(gzip.compress(body, 5, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding, Cookie"
    return response


def _static_url(name: str) -> str:
    """Return the URL of a file, with its digest: a browser keeps it for as long as it is this."""
    return url_for("console.static_file", name=name, v=_digest(name))


def send_file(name: str) -> Response:
    """Return a file of the page; NotFound if it has none of this name."""
    if name not in _FILES:
        raise NotFound(f"the console has no file {name[:100]!r}")
    packed = request.accept_encodings.quality("gzip") > 0
    response = Response(_read_file(name, packed))
    response.headers["Content-Type"] = _FILES[name]
    response.headers["Vary"] = "Accept-Encoding"
    is_this = request.args.get("v") == _digest(name)
    response.headers["Cache-Control"] = f"max-age={_YEAR}, immutable" if is_this else "no-cache"
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    return response


@cache
def _read_file(name: str, packed: bool) -> bytes:
    content = (_FOLDER / name).read_bytes()
    return gzip.compress(content, mtime=0) if packed else content


@cache
def _digest(name: str) -> str:
    return sha256(_read_file(name, False)).hexdigest()[:12]
