"""The URLs: decode, decide, encode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from . import __version__, seldon_v1
from .components import Desk, Detector
from .counts import Totals
from .drift import Drift, DriftGauge
from .errors import BadInput, TooLarge
from .metrics import CONTENT_TYPE, Facts, render_metrics, seldon_labels
from .rows import Limits, Rows, Verdict
from .settings import Settings
from .wire import NO_JSON, decode_json, render_json

_SWITCH = {"1": True, "true": True, "": False, "0": False, "false": False}

Encoder = Callable[[seldon_v1.Message, Verdict, Totals, dict[str, Any]], dict[str, Any]]


def create_routes(
    desk: Desk, settings: Settings, drift: DriftGauge | None, new_puid: Callable[[], str]
) -> Blueprint:
    """Return every route of the service; `new_puid` names a prediction that came without a name."""
    routes = Blueprint("isoserve", __name__)
    limits = Limits(settings.max_rows, settings.max_columns)
    detector, counts = desk.detector, desk.counts
    facts = _facts(detector, settings)

    def decode(value: Any) -> seldon_v1.Message:
        return seldon_v1.decode_message(value, limits)

    def answer(encode: Encoder) -> Response:
        """Answer one Seldon message in its own form."""
        with_scores = read_switch("scores")
        body = read_body(settings.max_body_bytes)
        message = decode_json(body, decode, settings.max_depth)
        message = message.named(new_puid)
        verdict, totals = desk.predict(message.rows, message.puid)
        tags = seldon_v1.score_tags(verdict) if with_scores else {}
        return json_response(encode(message, verdict, totals, tags))

    @routes.post("/predict")
    def predict() -> Response:
        return answer(seldon_v1.encode_labels)

    @routes.post("/transform-input")
    def transform_input() -> Response:
        return answer(seldon_v1.encode_rows)

    @routes.get("/health/ping")
    def ping() -> str:
        return "pong"

    @routes.get("/health/status")
    def status() -> Response:
        return json_response(seldon_v1.encode_health(counts.totals(), detector.threshold))

    @routes.get("/metadata")
    def metadata() -> Response:
        model = detector.model
        return json_response(
            seldon_v1.encode_metadata(settings.model_name, model.version, model.features)
        )

    @routes.get("/live")
    def live() -> Response:
        return json_response({"live": True})

    @routes.get("/ready")
    def ready() -> Response:
        score_a_row(detector)
        return json_response({"ready": True})

    @routes.get("/metrics")
    def show_metrics() -> Response:
        measured = drift.measure() if drift else Drift()
        page = render_metrics(counts.read(), facts, measured)
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
    if request.content_encoding not in (None, "identity"):
        raise BadInput(f"{NO_JSON}: a body with Content-Encoding is not read here; send it plain")
    try:
        body = request.get_data(cache=False)
    except HTTPException:
        raise
    except Exception as error:  # the server's own, for chunks that are none
        raise BadInput(f"the body cannot be read: {error}") from error
    if len(body) > max_bytes:
        raise body_too_large(max_bytes)
    if len(body) < (request.content_length or 0):
        raise BadInput(f"the body ends early: {len(body)} of {request.content_length} bytes came")
    return body


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


def body_too_large(max_bytes: int) -> TooLarge:
    """Say that a body is over the limit."""
    return TooLarge(f"the body is larger than {max_bytes:,} bytes; send fewer rows at a time")


def json_response(value: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(render_json(value), status, content_type="application/json")
