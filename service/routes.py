"""The URLs, for Flask: what a view does is a road's affair or a look at the desk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from flask import Blueprint, Response, request

from . import __version__, seldon_v1
from .components import Detector
from .drift import Drift, DriftWatch
from .editions import Changes
from .errors import BadInput
from .metrics import CONTENT_TYPE, Facts, Readings, render_metrics, seldon_labels
from .roads import Answer, Roads, body_too_large, receive
from .rows import Rows
from .settings import Settings
from .state import measure_space
from .wire import NO_JSON, render_json

_SWITCH = {"1": True, "true": True, "": False, "0": False, "false": False}


def create_routes(
    roads: Roads,
    settings: Settings,
    drift: DriftWatch | None,
    changes: Callable[[], Changes],
) -> Blueprint:
    """Return every route of the service but the admin's."""
    routes = Blueprint("isoserve", __name__)
    desk, max_bytes = roads.desk, roads.limits.body_bytes

    @routes.post("/predict")
    def predict() -> Response:
        body, scores = read_body(max_bytes), read_switch("scores")
        return reply(roads.seldon(body, with_scores=scores))

    @routes.post("/transform-input")
    def transform_input() -> Response:
        body, scores = read_body(max_bytes), read_switch("scores")
        return reply(roads.seldon(body, seldon_v1.encode_rows, scores))

    @routes.post("/send-feedback")
    @routes.post("/api/v1.0/feedback")
    @routes.post("/api/v0.1/feedback")
    def send_feedback() -> Response:
        return reply(roads.seldon_feedback(read_message(max_bytes)))

    @routes.get("/health/ping")
    def ping() -> str:
        return "pong"

    @routes.get("/health/status")
    def status() -> Response:
        return json_response(seldon_v1.encode_health(desk.counts.totals(), desk.detector.threshold))

    @routes.get("/metadata")
    def metadata() -> Response:
        model = desk.detector.model
        return json_response(
            seldon_v1.encode_metadata(settings.model_name, model.version, model.features)
        )

    @routes.get("/live")
    def live() -> Response:
        return json_response({"live": True})

    @routes.get("/ready")
    def ready() -> Response:
        score_a_row(desk.detector)
        return json_response({"ready": True})

    @routes.get("/metrics")
    def show_metrics() -> Response:
        measured = drift.latest() if drift else Drift()
        learned, storage_up = roads.judge.store.survey()
        readings = Readings(
            desk.counts.read(),
            _facts(desk.detector, settings),
            measured,
            changes(),
            learned,
            storage_up,
            desk.counts.processes(),
            measure_space(settings.state_dir),
        )
        page = render_metrics(readings)
        return Response(page, content_type=CONTENT_TYPE)

    return routes


def _facts(detector: Detector, settings: Settings) -> Facts:
    model = detector.model
    info = {
        "name": settings.model_name,
        "version": model.version,
        "features": str(len(model.features)),
        "isoserve": __version__,
    }
    share = model.card.training_outlier_share if model.card else None
    return Facts(detector.threshold, info, share, seldon_labels(settings))


def score_a_row(detector: Detector) -> None:
    """Prove that the model answers; the row is not counted."""
    detector.detect(Rows(np.zeros((1, len(detector.model.features)))))


def read_body(max_bytes: int) -> bytes:
    """Return the JSON body of this request."""
    if not request.is_json:
        raise BadInput(f"{NO_JSON}: send it with Content-Type: application/json")
    return receive_body(max_bytes)


def read_message(max_bytes: int) -> bytes:
    """Return the JSON of this request: the body, or the form field `json` as Seldon sends it."""
    if request.mimetype != "application/x-www-form-urlencoded":
        return read_body(max_bytes)
    fields = parse_qs(receive_body(max_bytes))
    if b"json" not in fields:
        raise BadInput(f"{NO_JSON}: the form has no field json")
    return fields[b"json"][0]


def receive_body(max_bytes: int) -> bytes:
    """Return the body of this request, whatever its type."""
    if request.content_encoding not in (None, "identity"):
        raise BadInput(f"{NO_JSON}: a body with Content-Encoding is not read here; send it plain")
    announced = request.content_length
    if announced is None:  # chunks: Werkzeug stops at its own limit
        return receive(partial(request.get_data, cache=False), 0, max_bytes)
    if announced > max_bytes:
        discard_body(4 * max_bytes)
        raise body_too_large(max_bytes)
    return receive(partial(request.environ["wsgi.input"].read, announced), announced, max_bytes)


def discard_body(most: int) -> None:
    """Read what a refused request still sends, as far as `most` bytes.

    Many clients look for an answer only when they have sent everything.
    """
    left = most
    while left > 0 and (chunk := request.environ["wsgi.input"].read(min(left, 2**16))):
        left -= len(chunk)


def read_switch(name: str) -> bool:
    """Return whether the query has `name=1`; BadInput for what is neither on nor off."""
    text = request.args.get(name, "0").lower()
    if text not in _SWITCH:
        raise BadInput(f"{name} is 1 or 0, not {text[:20]!r}")
    return _SWITCH[text]


def reply(answer: Answer) -> Response:
    """Hand Flask an answer."""
    return Response(answer.body, answer.status, answer.headers)


def json_response(value: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
    return reply(Answer(status, render_json(value)))
