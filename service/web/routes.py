"""Flask routes. A view parses the request and calls a handler."""

from functools import partial
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from .. import __version__
from ..errors import BadInput
from ..model.file import Model
from ..protocols import open_inference
from ..protocols.codec import NOT_JSON, load_json, render_json, unpack
from ..protocols.seldon import messages as seldon_v1
from ..serving.detector import Detector
from ..telemetry.metrics import CONTENT_TYPE, render_metrics
from ..telemetry.readings import Sources
from .handlers import TEXT, V2_INFER, Answer, Handler, Handlers, body_too_large
from .health import HEALTH
from .request import REQUEST

_NOT_DEFINED = {"/route": ("Route", "router"), "/aggregate": ("Aggregate", "combiner")}


def create_routes(handlers: Handlers, sources: Sources) -> Blueprint:
    """Return every route that is not of the admin, the console or the pages for a browser."""
    routes = Blueprint("isoserve", __name__)
    _add_handlers(routes, handlers)
    _add_seldon(routes, handlers)
    _add_open_inference(routes, handlers)
    _add_open_inference_server(routes, handlers)
    _add_service(routes, handlers, sources)
    return routes


def _add_handlers(routes: Blueprint, handlers: Handlers) -> None:
    """Add the routes that a handler answers alone."""
    limits, model_name = handlers.limits, handlers.model_name

    def add(route: str, answer: Handler, *methods: str) -> None:
        def view(model: str = model_name, version: str | None = None) -> Response:
            _check_model(handlers, model, version)
            body = read_body(limits.body_bytes)
            return reply(answer(request.environ[REQUEST], body))

        routes.add_url_rule(route, route.replace(".", "_"), view, methods=methods)

    for route, answer in handlers.predictions().items():
        add(route, answer, "POST", *(["GET"] if route == "/predict" else []))
    add(V2_INFER.replace("/infer", "/versions/<version>/infer"), handlers.open_inference, "POST")
    add("/transform-input", handlers.seldon_rows, "GET", "POST")
    add("/transform-output", handlers.seldon_echo, "GET", "POST")
    add("/send-feedback", handlers.seldon_feedback, "GET", "POST")
    add("/api/v1.0/feedback", handlers.seldon_feedback, "POST")
    add("/api/v0.1/feedback", handlers.seldon_feedback, "POST")
    for path in HEALTH:
        add(path, handlers.health, "GET")


def _add_seldon(routes: Blueprint, handlers: Handlers) -> None:
    predictor = handlers.predictor

    @routes.route("/route", methods=["GET", "POST"])
    @routes.route("/aggregate", methods=["GET", "POST"])
    def not_defined() -> Response:
        name, kind = _NOT_DEFINED[request.path]
        raise BadInput(f"{name} not defined: this is an outlier detector, not a {kind}")

    @routes.get("/metadata")
    @routes.get("/api/v1.0/metadata")
    def metadata() -> Response:
        detector = predictor.detector
        model, custom = detector.model, {"threshold": detector.threshold}
        if detector.share is not None:
            custom["outlier_share"] = detector.share
        name = handlers.model_name
        return json_response(seldon_v1.encode_metadata(name, model.version, model.features, custom))

    @routes.get("/health/status")
    @routes.get("/api/v1.0/health/status")
    def status() -> Response:
        totals, threshold = predictor.counts.totals(), predictor.detector.threshold
        return json_response(seldon_v1.encode_health(totals, threshold))


def _absent_outputs(detector: Detector) -> list[str]:
    """Return the outputs of the Open Inference Protocol that a model cannot give."""
    card = detector.model.card
    has = {
        open_inference.PVALUE: detector.pvalues is not None,
        open_inference.IDS: card is not None and card.id is not None,
    }
    return [name for name, is_given in has.items() if not is_given]


def _add_open_inference(routes: Blueprint, handlers: Handlers) -> None:
    name, check = handlers.model_name, partial(_check_model, handlers)

    @routes.get("/v2/models/<model>")
    @routes.get("/v2/models/<model>/versions/<version>")
    def model_metadata(model: str, version: str | None = None) -> Response:
        found = check(model, version)
        absent = _absent_outputs(handlers.predictor.detector)
        return json_response(
            open_inference.encode_model(
                name, found.version, found.column_types, found.named, absent
            )
        )

    @routes.get("/v2/models/<model>/ready")
    @routes.get("/v2/models/<model>/versions/<version>/ready")
    def model_ready(model: str, version: str | None = None) -> Response:
        check(model, version)
        handlers.score_a_row()
        return json_response({"name": name, "ready": True})


def _check_model(handlers: Handlers, sent: str, sent_version: str | None) -> Model:
    """Return the model; NotFound if the path names another model or version."""
    model = handlers.predictor.detector.model
    open_inference.check_model(sent, handlers.model_name, sent_version, model.version)
    return model


def _add_open_inference_server(routes: Blueprint, handlers: Handlers) -> None:
    limits = handlers.limits

    @routes.get("/v2", strict_slashes=False)
    def server_metadata() -> Response:
        return json_response(open_inference.encode_server("isoserve", __version__))

    @routes.post("/v2/repository/index")
    def index() -> Response:
        encoding = request.headers.get("Content-Encoding", "")
        body = unpack(read_body(limits.body_bytes), encoding, limits.body_bytes)
        open_inference.check_index(load_json(body or b"{}", limits.depth, NOT_JSON))
        version = handlers.predictor.detector.model.version
        return json_response(open_inference.encode_index(handlers.model_name, version))


def _add_service(routes: Blueprint, handlers: Handlers, sources: Sources) -> None:
    @routes.get("/version")
    def version() -> Response:
        return reply(Answer(200, __version__.encode(), TEXT))

    @routes.get("/metrics")
    def show_metrics() -> Response:
        detector = handlers.predictor.detector
        readings = sources.read(
            detector.model, detector.threshold, detector.share, detector.pvalues
        )
        return Response(render_metrics(readings), content_type=CONTENT_TYPE)


def reply(answer: Answer) -> Response:
    """Return a handler's answer as a Flask response."""
    headers = [(name.decode().title(), value.decode("latin-1")) for name, value in answer.headers]
    return Response(answer.body, answer.status, headers)


def json_response(value: Any, status: int = 200) -> Response:
    """Return a value as a JSON response."""
    return reply(Answer(status, render_json(value)))


def read_body(max_bytes: int) -> bytes:
    """Return the body of Flask's request, still compressed if it was sent so.

    Raises:
        BadInput: the body ends early.
        TooLarge: it is larger than `max_bytes`.
    """
    try:
        body = request.get_data(cache=False)
    except ClientDisconnected as error:
        raise BadInput(f"the body ends early: it has {request.content_length} bytes") from error
    except RequestEntityTooLarge as error:
        raise body_too_large(max_bytes) from error
    if len(body) > max_bytes:
        raise body_too_large(max_bytes)
    return body
