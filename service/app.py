"""Put the service together."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from time import perf_counter

import structlog
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from . import __version__
from .artifact import Model, open_model, read_model_file
from .components import Desk, Detector
from .counts import OTHER, Counts
from .drift import DriftGauge
from .errors import BadSetting, MethodNotAllowed, NotFound, Refusal, count, nearest
from .records import Records, begin_records, new_puid
from .routes import body_too_large, create_routes, discard_body, json_response, score_a_row
from .rows import Floats
from .seldon_v1 import encode_error
from .settings import Settings
from .state import StateFolder

REQUEST_ID = "X-Request-ID"
MODEL_VERSION = "X-Model-Version"

# A request id ends up in logs and headers, so it holds nothing that could forge either.
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = structlog.get_logger("isoserve")


def create_app(settings: Settings, make_puid: Callable[[], str] = new_puid) -> Flask:
    """Return the WSGI application; its model is loaded and has scored a row.

    Raises:
        BadModel: the model file cannot be served.
        BadSetting: the state folder cannot be written, or another service uses it.
    """
    model = open_model(
        read_model_file(settings.model), settings.require_card, settings.model_sha256
    )
    if len(model.features) > settings.max_columns:
        raise BadSetting(
            f"ISOSERVE_MAX_COLUMNS={settings.max_columns} would refuse every request: "
            f"the model has {count(len(model.features), 'feature')}"
        )
    detector = Detector(model, settings.threshold, by_name=settings.names == "match")
    score_a_row(detector)
    state = StateFolder(settings.state_dir)
    counts = Counts(state.path)
    records = _begin_records(state, model, settings)
    desk, drift = Desk(detector, counts, records), watch_drift(model, records)
    app = Flask("isoserve", static_folder=None)
    app.extensions["isoserve state folder"] = state  # held as long as the application lives
    # One byte over the limit is let by for `read_body` to see: Werkzeug cuts a body that comes
    # without a length at its limit and does not tell.
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes + 1
    app.register_blueprint(create_routes(desk, settings, drift, make_puid))
    _observe_requests(app, counts, model.version, settings.access_log)
    _answer_errors(app, settings.max_body_bytes)
    log.info(
        "model loaded",
        version=__version__,
        model=str(settings.model),
        model_version=model.version,
        features=list(model.features),
        threshold=settings.threshold,
    )
    return app


def _begin_records(state: StateFolder, model: Model, settings: Settings) -> Records | None:
    if not settings.records:
        return None
    records = begin_records(state.path, model.features, settings.records, settings.record_values)
    log.info(
        "scored rows are recorded",
        folder=str(state.path),
        rows=records.rows,
        values=bool(records.features),
    )
    return records


def watch_drift(model: Model, records: Records | None) -> DriftGauge | None:
    """Return what compares the rows that this model has scored with its card's quantiles."""
    if records is None or model.card is None:
        return None
    kept, version = records, model.version.encode()

    def read(rows: int) -> tuple[Floats, Floats]:
        table = kept.read(rows)
        table = table[table["version"] == version]
        return table["values"], table["score"]

    features = {feature.name: feature.quantiles for feature in model.card.features}
    return DriftGauge(read, features, model.card.score_quantiles)


def _observe_requests(app: Flask, counts: Counts, model_version: str, access_log: bool) -> None:
    """Time and name every request, from outside the views."""

    @app.before_request
    def start() -> None:
        g.started = perf_counter()
        sent = request.headers.get(REQUEST_ID, "")
        g.request_id = sent if _GOOD_ID.fullmatch(sent) else secrets.token_hex(8)

    @app.after_request
    def finish(response: Response) -> Response:
        seconds = perf_counter() - g.started
        route = request.url_rule.rule if request.url_rule else OTHER
        counts.observe(route, f"{response.status_code // 100}xx", seconds)
        response.headers[REQUEST_ID] = g.request_id
        response.headers[MODEL_VERSION] = model_version
        if access_log:
            log.info(
                "request",
                method=request.method,
                route=route,
                status=response.status_code,
                ms=round(seconds * 1000, 3),
                request_id=g.request_id,
            )
        return response


def _answer_errors(app: Flask, max_body_bytes: int) -> None:
    """Turn every failure into one sentence in the caller's protocol."""

    @app.errorhandler(Refusal)
    def refuse(refusal: Refusal) -> Response:
        return json_response(encode_error(str(refusal)), refusal.status)

    @app.errorhandler(404)
    def not_found(error: HTTPException) -> Response:
        hint = nearest(request.path, [rule.rule for rule in app.url_map.iter_rules()])
        return refuse(NotFound(f"there is no route {request.path[:100]}{hint}"))

    @app.errorhandler(405)
    def wrong_method(error: HTTPException) -> Response:
        allowed = sorted(error.valid_methods or [])  # type: ignore[attr-defined]
        own = [method for method in allowed if method not in ("HEAD", "OPTIONS")]
        text = f"{request.path} takes {', '.join(own)}, not {request.method}"
        response = refuse(MethodNotAllowed(text))
        response.headers["Allow"] = ", ".join(allowed)
        return response

    @app.errorhandler(413)
    def too_large(error: HTTPException) -> Response:
        discard_body(4 * max_body_bytes)
        return refuse(body_too_large(max_body_bytes))

    @app.errorhandler(HTTPException)
    def other(error: HTTPException) -> Response:
        return json_response(encode_error(error.description or error.name), error.code or 500)

    @app.errorhandler(Exception)
    def broken(error: Exception) -> Response:
        log.error("request failed", route=request.path, request_id=g.request_id, exc_info=error)
        return json_response(encode_error("internal error; the log has it", server_fault=True), 500)
