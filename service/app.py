"""Build the service from its settings: the model, the state folder, the handlers, the routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from .serving.reload import ModelReloader, ModelSource, fingerprint, restore_threshold
from .settings import Settings
from .state.audit import AuditLog
from .state.counts import Counts
from .state.feedback.store import begin_feedback
from .state.folder import StateFolder
from .state.generations import Generations
from .state.records import Records, begin_records, delete_records
from .telemetry.drift import DriftWatch
from .web.admin import create_admin
from .web.admission import Admission, RowLimit
from .web.auth import ApiKey
from .web.handlers import Answer, Handlers, encode_error
from .web.ids import new_id
from .web.middleware import ID, ROUTE, Middleware
from .web.routes import create_routes, reply

log = structlog.get_logger("isoserve")


def create_app(settings: Settings, make_puid: Callable[[], str] = new_id) -> Flask:
    """Return the WSGI application; its model is loaded and has scored a row.

    Raises:
        BadModel: the model file cannot be served.
        BadSetting: the state folder cannot be written, or another service uses it.
    """
    token = settings.read_admin_token()
    state, predictor, reloader = _load_model(settings, reloads=bool(token) or settings.watch)
    drift = _watch_drift(predictor)
    limits = Limits(
        settings.max_rows, settings.max_columns, settings.max_depth, settings.max_body_bytes
    )
    key = settings.read_api_key()
    row_limit = RowLimit(settings.rows_in_flight, settings.threads)
    admission = Admission(
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

    app = _make_flask(settings.max_body_bytes)
    app.extensions["isoserve state folder"] = state  # locked as long as the application exists
    app.extensions["isoserve admission"] = admission
    app.extensions["isoserve in each worker"] = [
        partial(reloader.start_worker, settings.watch),
        predictor.counts.begin,
        *([drift.begin] if drift else []),
    ]
    app.register_blueprint(create_routes(handlers, settings, drift, reloader.changes))
    if token:
        app.register_blueprint(create_admin(reloader, settings.model_name, token))
    app.wsgi_app = Middleware(app.wsgi_app, handlers, admission, _refuse, settings.access_log)  # type: ignore[method-assign]
    _log_model(predictor.detector, settings)
    return app


def _load_model(settings: Settings, reloads: bool) -> tuple[StateFolder, Predictor, ModelReloader]:
    """Load the model, lock the state folder and continue with what it contains."""
    source = ModelSource(
        settings.model,
        settings.require_card,
        settings.model_sha256,
        settings.threshold,
        by_name=settings.names == "match",
    )
    seen = fingerprint(source.path)  # before the file is read, so that the watch sees any change
    detector = _load_first(source, settings)
    if reloads:
        compile_walks()  # now, so that no request waits for it
    state = StateFolder(settings.state_dir)
    generations, audit = Generations(state.path), AuditLog(state.path)
    generations.see(seen)
    detector = restore_threshold(detector, audit)
    counts, records = Counts(state.path), _begin_records(state, detector.model, settings)
    predictor = Predictor(detector, counts, records)
    return state, predictor, ModelReloader(source, predictor, generations, audit)


def _load_first(source: ModelSource, settings: Settings) -> Detector:
    """Load the model that the service starts with; refuse one that no request could fit."""
    detector = source.load(read_model_file(source.path))
    width = len(detector.model.features)
    if width > settings.max_columns:
        raise BadSetting(
            f"ISOSERVE_MAX_COLUMNS={settings.max_columns} would refuse every request: "
            f"the model has {count(width, 'feature')}"
        )
    return detector


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


def _log_model(detector: Detector, settings: Settings) -> None:
    log.info(
        "model loaded",
        version=__version__,
        model=str(settings.model),
        model_version=detector.model.version,
        features=list(detector.model.features),
        threshold=detector.threshold,
    )


def _make_flask(max_body_bytes: int) -> Flask:
    app = Flask("isoserve", static_folder=None)
    app.url_map.merge_slashes = False  # "/v2//models" is no route; Flask would redirect it
    # Werkzeug silently cuts a body without a length at its limit. One byte more lets `read_body`
    # see that the body is too large.
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes + 1
    _answer_errors(app)
    return app


def _refuse(error: Exception, environ: Mapping[str, Any]) -> Answer:
    """Encode any failure as one sentence in the caller's protocol."""
    path = environ["PATH_INFO"]
    if isinstance(error, Refusal):
        body = encode_error(path, str(error), error.status)
        return Answer(error.status, body, retry_after=error.retry_after)
    request_id = environ[ID]
    log.error("request failed", route=environ[ROUTE], request_id=request_id, exc_info=error)
    return Answer(500, encode_error(path, "internal error; the log has it", 500))


def _answer_errors(app: Flask) -> None:
    """Answer Flask's failures and ours as errors of the caller's protocol."""

    @app.before_request
    def name_the_route() -> None:
        if request.url_rule:
            request.environ[ROUTE] = request.url_rule.rule

    @app.errorhandler(Exception)
    def refuse(error: Exception) -> Response:
        return reply(_refuse(error, request.environ))

    @app.after_request
    def allow_every_origin(response: Response) -> Response:
        """Answer the preflight request that a browser sends before a cross-origin request."""
        if request.method == "OPTIONS":
            asked = request.headers.get("Access-Control-Request-Headers", "*")
            response.headers["Access-Control-Allow-Headers"] = asked
            response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS, POST"
        return response

    @app.errorhandler(404)
    def not_found(error: HTTPException) -> Response:
        if request.path.startswith("/v2/repository/models/") and "admin" not in app.blueprints:
            hint = " without an admin token (ISOSERVE_ADMIN_TOKEN): see docs/operate/model.md"
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
