"""Build the service from its settings: the model, the state folder, the handlers, the routes."""

import shlex
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

import structlog
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from . import __version__
from .errors import BadSetting, MethodNotAllowed, NotFound, Refusal, count, nearest
from .model.content import read_model_file
from .model.scorer import compile_kernels
from .probe import base_url
from .rows import Limits
from .serving.detector import Detector
from .serving.feedback import FeedbackMatcher
from .serving.predictor import Predictor
from .serving.reload import ModelReloader, ModelSource, fingerprint, restore_choice
from .settings import Settings
from .state.audit import AuditLog
from .state.counts import Counts
from .state.feedback.store import begin_feedback
from .state.folder import StateFolder
from .state.generations import Generations
from .state.low_pvalues import LowPValues
from .state.odd_cells import OddCells
from .state.records import Records, begin_records, delete_records
from .telemetry.drift import DriftWatch
from .telemetry.history import History
from .telemetry.logs import tell_ready
from .telemetry.readings import Sources
from .telemetry.trace import trace_field
from .web.admin import create_admin
from .web.admission import Admission, RowLimit
from .web.asgi import AsgiApp
from .web.auth import ApiKey
from .web.console.access import Access
from .web.console.blueprint import create_console
from .web.console.view import Console
from .web.handlers import Answer, Handlers, encode_error
from .web.middleware import Entrance, Middleware, new_id
from .web.page import create_pages
from .web.request import REQUEST, Request, is_console
from .web.routes import create_routes, reply

_PREDICTIONS = (
    "predictions are POST /predict (Seldon v1), /v2/models/{model}/infer (Open Inference) and "
    "/invocations (MLflow)"
)

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
    admission = _make_admission(settings, predictor, token)
    feedback = begin_feedback(state.path, settings.window, settings.feedback_days)
    matcher = FeedbackMatcher(predictor, feedback)
    handlers = _make_handlers(settings, matcher, admission.row_limit, make_puid)
    app = _make_flask(settings.max_body_bytes)
    app.extensions["isoserve state folder"] = state  # locked as long as the application exists
    start_worker = partial(reloader.start_worker, settings.watch)
    begins = [start_worker, predictor.counts.begin, feedback.begin]
    begins += [drift.begin] if drift else []
    sources = Sources(
        settings,
        predictor.counts,
        feedback,
        reloader.changes,
        drift,
        predictor.odd_cells,
        predictor.low_pvalues,
    )
    app.extensions["isoserve in each worker"] = begins
    app.extensions["isoserve is ready"] = partial(_tell_ready, settings, predictor.detector)
    app.register_blueprint(create_routes(handlers, sources))
    app.register_blueprint(create_pages(handlers))
    if token:
        app.register_blueprint(create_admin(reloader, settings.model_name, token))
    if settings.console:
        console = _make_console(settings, token, matcher, reloader, sources)
        begins.append(console.history.begin)
        app.register_blueprint(create_console(console))
    entrance = Entrance(admission, predictor, settings.access_log)
    app.wsgi_app = Middleware(app.wsgi_app, entrance, _respond)  # type: ignore[method-assign]
    app.extensions["isoserve"] = AsgiApp(app.wsgi_app, handlers, entrance, _refuse, settings)
    _log_model(predictor.detector, settings)
    return app


def _make_console(
    settings: Settings,
    token: str,
    matcher: FeedbackMatcher,
    reloader: ModelReloader,
    sources: Sources,
) -> Console:
    history, access = History(sources.counts.read), Access(settings, token)
    return Console(settings, matcher.predictor, matcher, reloader, sources, history, access)


def _make_handlers(
    settings: Settings, matcher: FeedbackMatcher, row_limit: RowLimit, make_puid: Callable[[], str]
) -> Handlers:
    return Handlers(
        matcher.predictor,
        Limits(
            settings.max_rows, settings.max_columns, settings.max_depth, settings.max_body_bytes
        ),
        make_puid,
        matcher,
        row_limit,
        model_name=settings.model_name,
        unit={settings.model_name: settings.model_image} if settings.model_image else {},
        show_metrics=settings.answer_metrics,
    )


def _make_admission(settings: Settings, predictor: Predictor, token: str) -> Admission:
    key = settings.read_api_key()
    return Admission(
        RowLimit(settings.rows_in_flight),
        ApiKey(key, *([token] if token else [])) if key else None,
        settings.model_name,
        lambda: predictor.detector.model.version,
        has_console=settings.console,
    )


def _load_model(settings: Settings, reloads: bool) -> tuple[StateFolder, Predictor, ModelReloader]:
    """Load the model, lock the state folder and continue with what it contains."""
    source = model_source(settings)
    seen = fingerprint(source.path)  # before the file is read, so that the watch sees any change
    detector = load_first(source, settings)
    if reloads:
        compile_kernels()  # now, so that no request waits for it
    return open_state(settings, source, detector, seen)


def model_source(settings: Settings) -> ModelSource:
    """Return where the model is, and what is required of it."""
    return ModelSource(
        settings.model,
        settings.require_card,
        settings.model_sha256,
        settings.choice,
        by_name=settings.names == "match",
    )


def open_state(
    settings: Settings, source: ModelSource, detector: Detector, seen: int = 0
) -> tuple[StateFolder, Predictor, ModelReloader]:
    """Lock the state folder and continue with what it contains, or begin it.

    `seen` is the fingerprint of the model file. Damaged files are quarantined.
    """
    state = StateFolder(settings.state_dir)
    generations, audit = Generations(state.path), AuditLog(state.path)
    changes = generations.changes()
    audit.report_missing(changes.swaps + changes.thresholds)
    generations.see(seen)
    detector = restore_choice(detector, audit)
    counts = Counts(state.path, detector.model.features)
    records = _begin_records(state, detector, settings)
    odd_cells = OddCells(detector.model.features, state.path)
    low_pvalues = LowPValues(state.path)
    predictor = Predictor(detector, counts, records, odd_cells, low_pvalues)
    return state, predictor, ModelReloader(source, predictor, generations, audit)


def load_first(source: ModelSource, settings: Settings) -> Detector:
    """Load the model that the service starts with; refuse one that no request could fit."""
    detector = source.load(read_model_file(source.path))
    width = len(detector.model.features)
    if width > settings.max_columns:
        raise BadSetting(
            f"ISOSERVE_MAX_COLUMNS={settings.max_columns} would refuse every request: "
            f"the model has {count(width, 'feature')}"
        )
    return detector


def _begin_records(state: StateFolder, detector: Detector, settings: Settings) -> Records | None:
    if not settings.records:
        delete_records(state.path)
        return None
    cells = detector.columns.recorded
    texts = [name for name, is_text in cells.items() if is_text]
    records = begin_records(
        state.path, list(cells), settings.records, settings.record_values, texts
    )
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
        **({} if detector.share is None else {"outlier_share": detector.share}),
    )


def _tell_ready(settings: Settings, detector: Detector) -> None:
    """Say where the service answers, and how to try it with rows of the model's card."""
    url = base_url(settings.host, settings.port)
    model = detector.model
    headers = []
    if settings.api_key_file is not None:
        headers = [f'"X-API-Key: $(cat {shlex.quote(str(settings.api_key_file))})"']
    elif settings.read_api_key():
        headers = ['"X-API-Key: $ISOSERVE_API_KEY"']
    names = model.features if model.named else ()
    tell_ready(url, names, detector.examples, headers, settings.console)


def _make_flask(max_body_bytes: int) -> Flask:
    app = Flask("isoserve", static_folder=None)
    app.url_map.merge_slashes = False  # "/v2//models" is no route; Flask would redirect it
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes
    app.before_request(_name_the_route)
    app.after_request(_allow_every_origin)
    app.register_error_handler(Exception, _answer_error)
    return app


def _name_the_route() -> None:
    if request.url_rule:
        request.environ[REQUEST].route = request.url_rule.rule


def _allow_every_origin(response: Response) -> Response:
    """Add the headers for pages of other origins: none may read the console; answer preflights."""
    if is_console(request.path):
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    elif request.method == "OPTIONS":
        asked = request.headers.get("Access-Control-Request-Headers", "*")
        response.headers["Access-Control-Allow-Headers"] = asked
        response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS, POST"
    return response


def _answer_error(error: Exception) -> Response:
    """Answer a failure of Flask or of the service as an error of the caller's protocol."""
    response = _respond(_translate(error), request.environ[REQUEST])
    if allowed := getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _translate(error: Exception) -> Exception:
    """Replace Flask's errors 404 and 405 with refusals in the service's own words."""
    path = request.path
    if getattr(error, "code", None) == HTTPStatus.NOT_FOUND:
        return NotFound(f"there is no route {path[:100]}{_hint(path)}")
    if isinstance(error, WrongMethod):
        own = sorted(set(error.valid_methods or ()) - {"HEAD", "OPTIONS"})
        return MethodNotAllowed(f"{path} takes {', '.join(own)}, not {request.method}")
    return error


def _hint(path: str) -> str:
    """Return a hint for an unknown path: the setting that it needs, or the most similar route."""
    if path.startswith("/v2/repository/models/") and "admin" not in current_app.blueprints:
        return " without an admin token (ISOSERVE_ADMIN_TOKEN): see docs/operate/model.md"
    if path.startswith("/v1/"):  # of KServe and TensorFlow Serving
        return f", and its protocol is not served; {_PREDICTIONS}"
    hint = nearest(path, [rule.rule for rule in current_app.url_map.iter_rules()])
    return hint or (f"; {_PREDICTIONS}" if request.method == "POST" else "")


def _respond(error: Exception, request: Request) -> Response:
    """Return any failure as Flask's response."""
    return reply(_refuse(error, request))


def _refuse(error: Exception, request: Request) -> Answer:
    """Encode any failure as one sentence in the caller's protocol."""
    status, text, retry_after = 500, "internal error; the log has it", None
    if isinstance(error, Refusal):
        status, text, retry_after = error.status, str(error), error.retry_after
    elif isinstance(error, HTTPException):
        status, text = error.code or 500, error.description or error.name
    else:
        about = {"request_id": request.id, **trace_field(request.trace)}
        log.error("request failed", route=request.route, **about, exc_info=error)
    body = encode_error(request.path, text, status)
    return Answer(status, body, retry_after=retry_after)
