"""The files of the documentation page, `/docs`."""

import gzip
from functools import cache
from http import HTTPStatus
from pathlib import Path

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as WSGIResponse

from ..errors import NotFound

FOLDER = Path(__file__).parent / "docs_page"

CONTENT_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "start.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.LICENSE": "text/plain; charset=utf-8",
    "swagger-ui.NOTICE": "text/plain; charset=utf-8",
    "swagger-ui-bundle.js.LICENSE.txt": "text/plain; charset=utf-8",
}

POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"


def add_page(routes: Blueprint) -> None:
    """Add the routes of the page and its files."""

    @routes.get("/docs", strict_slashes=False)
    def page() -> Response | WSGIResponse:
        if request.path.endswith("/"):  # the page's relative links need the path without a slash
            return redirect("../docs", HTTPStatus.PERMANENT_REDIRECT)
        response = send_file("index.html")
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @routes.get("/docs/<name>")
    def page_file(name: str) -> Response:
        return send_file(name)


def send_file(name: str) -> Response:
    """Return a file of the page; 304 if the browser has it."""
    if name not in CONTENT_TYPES:
        raise NotFound(f"the page has no file {name[:100]!r}")
    packed = request.accept_encodings.quality("gzip") > 0
    response = Response(read_file(name, packed), content_type=CONTENT_TYPES[name])
    response.headers["Cache-Control"] = "no-cache"  # keep it, but ask each time if it has changed
    response.headers["Vary"] = "Accept-Encoding"
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.add_etag()
    response.make_conditional(request)
    return response


@cache
def read_file(name: str, packed: bool) -> bytes:
    """Return the content of a file of the page, compressed with gzip if `packed`."""
    content = (FOLDER / name).read_bytes()
    return gzip.compress(content, mtime=0) if packed else content
