"""The URLs, for Flask: what a view does is a road's affair or a look at the predictor."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from flask import Blueprint, Response, current_app, redirect, request
from werkzeug.wrappers import Response as WSGIResponse

from .. import __version__
from ..errors import BadInput, NotFound
from ..model.baseline import Drift
from ..model.file import Model
from ..protocols import open_inference
from ..protocols.codec import NOT_JSON, load_json, render_json, unpack
from ..protocols.seldon import messages as seldon_v1
from ..rows import Rows
from ..serving.detector import Detector
from ..serving.predictor import Predictor
from ..settings import Settings
from ..state.folder import measure_space
from ..state.generations import Changes
from ..telemetry.drift import DriftWatch
from ..telemetry.metrics import CONTENT_TYPE, Facts, Readings, render_metrics, seldon_labels
from .handlers import Answer, Encoder, Handlers, Wanted
from .openapi.document import describe
from .query import read_body, read_number, read_plain_body, read_query, read_switch

PAGE = Path(__file__).parent / "docs_page"
PAGE_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "start.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.LICENSE": "text/plain; charset=utf-8",
    "swagger-ui.NOTICE": "text/plain; charset=utf-8",
    "swagger-ui-bundle.js.LICENSE.txt": "text/plain; charset=utf-8",
}
PAGE_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"


def create_routes(
    handlers: Handlers,
    settings: Settings,
    drift: DriftWatch | None,
    changes: Callable[[], Changes],
) -> Blueprint:
    """Return every route of the service but the admin's."""
    routes = Blueprint("isoserve", __name__)
    _add_seldon(routes, handlers)
    _add_open_inference(routes, handlers)
    _add_mlflow(routes, handlers)
    _add_health(routes, handlers.predictor)
    _add_documents(routes, handlers)

    @routes.get("/metrics")
    def show_metrics() -> Response:
        predictor, measured = handlers.predictor, drift.latest() if drift else Drift()
        summary, storage_up = handlers.matcher.store.survey()
        readings = Readings(
            predictor.counts.read(),
            _facts(predictor.detector, settings),
            measured,
            changes(),
            summary,
            storage_up,
            predictor.counts.processes(),
            measure_space(settings.state_dir),
        )
        return Response(render_metrics(readings), content_type=CONTENT_TYPE)

    return routes


def _add_health(routes: Blueprint, predictor: Predictor) -> None:
    @routes.get("/live")
    @routes.get("/v2/health/live")
    def live() -> Response:
        return json_response({"live": True})

    @routes.get("/ready")
    def ready() -> Response:
        score_a_row(predictor.detector)
        return json_response({"ready": True})

    @routes.get("/v2/health/ready")
    def server_ready() -> Response:
        score_a_row(predictor.detector)
        return json_response({"live": True, "ready": True})

    @routes.get("/ping")
    @routes.get("/health")
    def ping() -> Response:
        score_a_row(predictor.detector)
        return text_response("pong")

    @routes.get("/health/ping")
    def seldon_ping() -> str:
        return "pong"

    @routes.get("/health/status")
    @routes.get("/api/v1.0/health/status")
    def status() -> Response:
        return json_response(
            seldon_v1.encode_health(predictor.counts.totals(), predictor.detector.threshold)
        )


def _add_seldon(routes: Blueprint, handlers: Handlers) -> None:
    max_bytes = handlers.limits.body_bytes

    def arrived() -> tuple[bytes, str, str]:
        """Return the body, its type, and the query: a message may be in any of them."""
        return read_plain_body(max_bytes), request.content_type or "", read_query()

    def answer(encode: Encoder) -> Response:
        wanted = Wanted(encode, read_switch("scores"), read_number("explain"))
        return reply(handlers.seldon(*arrived(), wanted))

    @routes.route("/predict", methods=["GET", "POST"])
    @routes.post("/api/v1.0/predictions")
    @routes.post("/api/v0.1/predictions")
    def predict() -> Response:
        return answer(seldon_v1.encode_labels)

    @routes.route("/transform-input", methods=["GET", "POST"])
    def transform_input() -> Response:
        return answer(seldon_v1.encode_rows)

    @routes.route("/transform-output", methods=["GET", "POST"])
    def transform_output() -> Response:
        return reply(handlers.seldon_echo(*arrived()))

    @routes.route("/send-feedback", methods=["GET", "POST"])
    @routes.post("/api/v1.0/feedback")
    @routes.post("/api/v0.1/feedback")
    def send_feedback() -> Response:
        return reply(handlers.seldon_feedback(*arrived()))

    @routes.route("/route", methods=["GET", "POST"])
    def route() -> Response:
        raise BadInput("Route not defined: this is an outlier detector, not a router")

    @routes.route("/aggregate", methods=["GET", "POST"])
    def aggregate() -> Response:
        raise BadInput("Aggregate not defined: this is an outlier detector, not a combiner")

    @routes.get("/metadata")
    @routes.get("/api/v1.0/metadata")
    def metadata() -> Response:
        model = handlers.predictor.detector.model
        return json_response(
            seldon_v1.encode_metadata(handlers.model_name, model.version, model.features)
        )


def _add_open_inference(routes: Blueprint, handlers: Handlers) -> None:
    max_bytes, name = handlers.limits.body_bytes, handlers.model_name

    def check(sent: str, sent_version: str | None) -> Model:
        """Return the model, if it is the one that the path names."""
        model = handlers.predictor.detector.model
        open_inference.check_model(sent, name, sent_version, model.version)
        return model

    @routes.get("/v2", strict_slashes=False)
    def server_metadata() -> Response:
        return json_response(open_inference.encode_server("isoserve", __version__))

    @routes.get("/v2/models/<model>")
    @routes.get("/v2/models/<model>/versions/<version>")
    def model_metadata(model: str, version: str | None = None) -> Response:
        found = check(model, version)
        return json_response(
            open_inference.encode_model(name, found.version, found.column_types, found.named)
        )

    @routes.get("/v2/models/<model>/ready")
    @routes.get("/v2/models/<model>/versions/<version>/ready")
    def model_ready(model: str, version: str | None = None) -> Response:
        check(model, version)
        score_a_row(handlers.predictor.detector)
        return json_response({"name": name, "ready": True})

    @routes.post("/v2/models/<model>/infer")
    @routes.post("/v2/models/<model>/versions/<version>/infer")
    def infer(model: str, version: str | None = None) -> Response:
        check(model, version)
        encoding = request.headers.get("Content-Encoding", "")
        json_length = request.headers.get(open_inference.JSON_LENGTH)
        return reply(handlers.open_inference(read_body(max_bytes), encoding, json_length))

    @routes.post("/v2/repository/index")
    def index() -> Response:
        encoding = request.headers.get("Content-Encoding", "")
        body = unpack(read_body(max_bytes), encoding, max_bytes)
        version = handlers.predictor.detector.model.version
        open_inference.check_index(load_json(body or b"{}", handlers.limits.depth, NOT_JSON))
        return json_response(open_inference.encode_index(name, version))


def _add_mlflow(routes: Blueprint, handlers: Handlers) -> None:
    @routes.post("/invocations")
    def invocations() -> Response:
        body, scores = read_body(handlers.limits.body_bytes), read_switch("scores")
        encoding = request.headers.get("Content-Encoding", "")
        return reply(handlers.invocations(body, request.content_type or "", encoding, scores))

    @routes.get("/version")
    def version() -> Response:
        return text_response(__version__)


def _add_documents(routes: Blueprint, handlers: Handlers) -> None:
    @routes.get("/openapi.json")
    @routes.get("/seldon.json")
    def document() -> Response:
        model = handlers.predictor.detector.model
        described = describe(
            handlers.model_name,
            model.version,
            list(model.features),
            with_admin="admin" in current_app.blueprints,
            with_key=current_app.extensions["isoserve admission"].key is not None,
        )
        return reply(Answer(200, render_json(described, in_order=True)))

    @routes.get("/docs", strict_slashes=False)
    def page() -> Response | WSGIResponse:
        if request.path.endswith("/"):  # from there the page would look for its files elsewhere
            return redirect("../docs", HTTPStatus.PERMANENT_REDIRECT)
        answer = file_response("index.html")
        answer.headers["Content-Security-Policy"] = PAGE_POLICY
        return answer

    @routes.get("/docs/<name>")
    def page_file(name: str) -> Response:
        return file_response(name)


def _facts(detector: Detector, settings: Settings) -> Facts:
    model = detector.model
    info = {
        "name": settings.model_name,
        "version": model.version,
        "features": str(len(model.features)),
        "isoserve": __version__,
    }
    return Facts(detector.threshold, info, _training_share(detector), seldon_labels(settings))


def _training_share(detector: Detector) -> float | None:
    """Return which share of the training rows this threshold would flag, as far as the card knows.

    It knows the share below 0 exactly and that below any other score by its percentiles.
    """
    card = detector.model.card
    if card is None:
        return None
    if detector.threshold == 0:
        return card.training_outlier_share
    shares = np.linspace(0, 1, len(card.score_quantiles))
    return float(np.interp(detector.threshold, card.score_quantiles, shares))


def score_a_row(detector: Detector) -> None:
    """Prove that the model answers; the row is not counted."""
    detector.score(Rows(np.zeros((1, len(detector.model.features)))))


def reply(answer: Answer) -> Response:
    """Hand Flask an answer."""
    return Response(answer.body, answer.status, answer.headers)


def json_response(value: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
    return reply(Answer(status, render_json(value)))


def file_response(name: str) -> Response:
    """Return a file of the page of all routes; a browser that has it hears that it may keep it."""
    if name not in PAGE_TYPES:
        raise NotFound(f"the page has no file {name[:100]!r}")
    packed = request.accept_encodings.quality("gzip") > 0
    response = reply(Answer(200, read_file(name, packed), PAGE_TYPES[name]))
    response.headers["Cache-Control"] = "no-cache"  # keep it, but ask whether it is still the same
    response.headers["Vary"] = "Accept-Encoding"
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.add_etag()
    response.make_conditional(request)
    return response


@cache
def read_file(name: str, packed: bool) -> bytes:
    """Return the content of a file of the page, packed with gzip where that is taken."""
    content = (PAGE / name).read_bytes()
    return gzip.compress(content, mtime=0) if packed else content


def text_response(text: str) -> Response:
    """Return a short plain answer."""
    return reply(Answer(200, text.encode(), "text/plain; charset=utf-8"))
