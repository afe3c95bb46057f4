"""The pages for a browser: the start page, `/`, and `/docs` with the OpenAPI document."""

import gzip
from collections.abc import Sequence
from functools import cache
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, redirect, request
from werkzeug.wrappers import Response as WSGIResponse

from .. import __version__
from ..errors import NotFound
from ..protocols.codec import render_json
from .handlers import HTML, Answer, Handlers
from .openapi.document import describe
from .routes import json_response, reply

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


START = """\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>isoserve</title>
  <link rel="icon" href="data:,">
  <style>
    :root {{ color-scheme: light dark }}
    body {{ font: 1rem/1.6 system-ui, sans-serif; margin: 3rem auto; padding: 0 1rem }}
    body {{ max-width: 40rem }}
    code {{ overflow-wrap: anywhere }}
  </style>
</head>
<body>
  <h1>isoserve</h1>
  <p>This service tells outliers from inliers. It serves the model <code>{name}</code>, version
  <code>{version}</code>, whose columns are <code>{columns}</code>.</p>
  <ul>
    <li><a href="docs">Try it</a>: every route, with rows to send</li>
{console}    <li><a href="openapi.json">OpenAPI document</a></li>
    <li><a href="metrics">Metrics</a> for Prometheus</li>
    <li><a href="ready">Is it ready?</a></li>
  </ul>
</body>
</html>
"""


CONSOLE = '<li><a href="console">Console</a>: see what comes, label it, choose the threshold</li>'


def create_pages(handlers: Handlers) -> Blueprint:
    """Return the routes of the start page, the documentation page and the OpenAPI document."""
    routes = Blueprint("pages", __name__)

    @routes.get("/")
    def start() -> Response:
        name, model = handlers.model_name, handlers.predictor.detector.model
        if wants_html():
            text = render_start(name, model.version, model.features)
            response = Response(text, content_type=HTML)
            response.headers["Content-Security-Policy"] = POLICY
        else:
            response = json_response(describe_start(name, model.version, model.features))
        response.headers["Vary"] = "Accept"
        return response

    @routes.get("/openapi.json")
    @routes.get("/seldon.json")
    def document() -> Response:
        detector = handlers.predictor.detector
        model = detector.model
        described = describe(
            handlers.model_name,
            model.version,
            list(model.features),
            detector.examples,
            with_admin="admin" in current_app.blueprints,
            with_key=current_app.extensions["isoserve"].admission.key is not None,
            extra=len(model.card.left_out) if model.card else 0,
        )
        return reply(Answer(200, render_json(described, in_order=True)))

    _add_documentation(routes)
    return routes


def _add_documentation(routes: Blueprint) -> None:
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


def render_start(name: str, version: str, columns: Sequence[str]) -> str:
    """Return the start page of a service with this model."""
    listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    return START.format(
        name=escape(name),
        version=escape(version),
        columns=escape(listed),
        console=f"    {CONSOLE}\n" if "console" in current_app.blueprints else "",
    )


def describe_start(name: str, version: str, columns: Sequence[str]) -> dict[str, Any]:
    """Return what the start page says, for a program."""
    return {
        "service": "isoserve",
        "version": __version__,
        "model": {"name": name, "version": version, "columns": list(columns)},
        "predict": ["/predict", f"/v2/models/{name}/infer", "/invocations"],
        "docs": "/docs",
        "openapi": "/openapi.json",
        "metrics": "/metrics",
        "ready": "/ready",
    }


def wants_html() -> bool:
    """Return whether the client prefers HTML to JSON, as browsers do."""
    kinds = ["application/json", "text/html"]  # the first if any will do
    return request.accept_mimetypes.best_match(kinds) == "text/html"


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
