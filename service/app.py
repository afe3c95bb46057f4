"""Put the service together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from . import __version__
from .errors import BadSetting, MethodNotAllowed, NotFound, Refusal, count, nearest
from .model.file import Model, read_model_file
from .model.scorer import compile_walks
from .rows import Limits
from .serving.detector import Detector
from .serving.feedback import FeedbackMatcher
from .serving.predictor import Predictor
from .serving.reload import ModelReloader, Rules, mark_of
from .settings import Settings
from .state.audit import AuditLog
from .state.counts import Counts
from .state.feedback.store import begin_feedback
from .state.folder import StateFolder
from .state.generations import Generations
from .state.records import Records, begin_records, delete_records
from .telemetry.drift import DriftWatch
from .web.admin import create_admin
from .web.admission import RowLimit
from .web.auth import ApiKey
from .web.handlers import Answer, Handlers, encode_error
from .web.health import Doors
from .web.ids import new_id
from .web.middleware import ID, ROUTE, Middleware
from .web.routes import create_routes, reply, score_a_row

log = structlog.get_logger("isoserve")


def create_app(settings: Settings, make_puid: Callable[[], str] = new_id) -> Flask:
    """Return the WSGI application; its model is loaded and has scored a row.

    Raises:
        BadModel: the model file cannot be served.
        BadSetting: the state folder cannot be written, or another service uses it.
    """
    token = settings.read_admin_token()
    rules = Rules(settings.model, settings.require_card, settings.model_sha256, settings.threshold)
    mark = mark_of(settings.model)
    model = rules.open(read_model_file(settings.model))
    if len(model.features) > settings.max_columns:
        raise BadSetting(
            f"ISOSERVE_MAX_COLUMNS={settings.max_columns} would refuse every request: "
            f"the model has {count(len(model.features), 'feature')}"
        )
    if token or settings.watch:
        compile_walks()  # here, where nobody waits for an answer
    detector = Detector(model, settings.threshold, by_name=settings.names == "match")
    score_a_row(detector)
    state = StateFolder(settings.state_dir)
    generations, audit = Generations(state.path), AuditLog(state.path)
    generations.seen = mark
    detector = replace(detector, threshold=_chosen_threshold(audit, model, settings.threshold))
    predictor = Predictor(detector, Counts(state.path), _begin_records(state, model, settings))
    limits = Limits(
        settings.max_rows, settings.max_columns, settings.max_depth, settings.max_body_bytes
    )
    key = settings.read_api_key()
    row_limit = RowLimit(settings.rows_in_flight, settings.threads)
    doors = Doors(
        row_limit,
        ApiKey(key, *filter(None, [token])) if key else None,
        settings.model_name,
        lambda: predictor.detector.model.version,
    )
    feedback = begin_feedback(state.path, settings.window, settings.feedback_days)
    handlers = Handlers(
        predictor,
        limits,
        make_puid,
        FeedbackMatcher(predictor, feedback),
        row_limit,
        model_name=settings.model_name,
        unit={settings.model_name: settings.model_image} if settings.model_image else {},
        show_metrics=settings.answer_metrics,
    )
    app = Flask("isoserve", static_folder=None)
    app.url_map.merge_slashes = False  # "/v2//models" is no route; Flask would redirect it
    app.extensions["isoserve state folder"] = state  # held as long as the application lives
    app.extensions["isoserve doors"] = doors
    swap = app.extensions["isoserve swap"] = ModelReloader(predictor, generations, audit, rules)
    # One byte over the limit is let by for `read_body` to see: Werkzeug cuts a body that comes
    # without a length at its limit and does not tell.
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes + 1
    drift = _watch_drift(predictor)
    app.extensions["isoserve in each worker"] = [
        partial(swap.enlist, settings.watch),
        predictor.counts.begin,
        *([drift.begin] if drift else []),
    ]
    app.register_blueprint(create_routes(handlers, settings, drift, generations.changes))
    if token:
        app.register_blueprint(create_admin(swap, settings.model_name, token))
    _answer_errors(app)
    app.wsgi_app = Middleware(app.wsgi_app, handlers, doors, _refuse, settings.access_log)  # type: ignore[method-assign]
    log.info(
        "model loaded",
        version=__version__,
        model=str(settings.model),
        model_version=model.version,
        features=list(model.features),
        threshold=detector.threshold,
    )
    return app


def _chosen_threshold(audit: AuditLog, model: Model, setting: float) -> float:
    """Return the threshold that was chosen while an earlier service ran, else the setting."""
    chosen, void = audit.chosen(model.sha256, setting)
    if void:
        log.warning("the threshold that was chosen is forgotten", reason=void, threshold=setting)
        audit.choose(None, model.sha256, setting)
    elif chosen is not None:
        log.info("the threshold that was chosen holds on", threshold=chosen, setting=setting)
    return setting if chosen is None else chosen


def _begin_records(state: StateFolder, model: Model, settings: Settings) -> Records | None:
    if not settings.records:
        delete_records(state.path)
        return None
    records = begin_records(state.path, model.features, settings.records, settings.record_values)
    log.info(
        "scored rows are recorded",
        folder=str(state.path),
        rows=records.rows,
        values=bool(records.features),
    )
    return records


def _watch_drift(predictor: Predictor) -> DriftWatch | None:
    if predictor.records is None:
        return None
    features = len(predictor.detector.model.features)
    return DriftWatch(predictor.records.scored_by, lambda: predictor.detector.baseline, features)


def _refuse(error: Exception, environ: Mapping[str, Any]) -> Answer:
    """Turn any failure into one sentence in the caller's protocol."""
    path = environ["PATH_INFO"]
    if isinstance(error, Refusal):
        body = encode_error(path, str(error), error.status)
        return Answer(error.status, body, retry_after=error.retry_after)
    request_id = environ[ID]
    log.error("request failed", route=environ[ROUTE], request_id=request_id, exc_info=error)
    return Answer(500, encode_error(path, "internal error; the log has it", 500))


def _answer_errors(app: Flask) -> None:
    """Let Flask put its own failures, and ours, into words."""

    @app.before_request
    def name_the_route() -> None:
        if request.url_rule:
            request.environ[ROUTE] = request.url_rule.rule

    @app.errorhandler(Exception)
    def refuse(error: Exception) -> Response:
        return reply(_refuse(error, request.environ))

    @app.after_request
    def allow_every_origin(response: Response) -> Response:
        """Answer what a browser asks before it lets another site's page send a request."""
        if request.method == "OPTIONS":
            asked = request.headers.get("Access-Control-Request-Headers", "*")
            response.headers["Access-Control-Allow-Headers"] = asked
            response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS, POST"
        return response

    @app.errorhandler(404)
    def not_found(error: HTTPException) -> Response:
        if request.path.startswith("/v2/repository/models/") and "admin" not in app.blueprints:
            hint = " without an admin token (ISOSERVE_ADMIN_TOKEN); docs/model.md tells more"
            return refuse(NotFound(f"there is no route {request.path[:100]}{hint}"))
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

    @app.errorhandler(HTTPException)
    def other(error: HTTPException) -> Response:
        status = error.code or 500
        text = error.description or error.name
        return reply(Answer(status, encode_error(request.path, text, status)))
