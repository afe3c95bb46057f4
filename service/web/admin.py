"""The routes that change what is served. They exist only if the settings have an admin token.

Answers are those of the Open Inference Protocol: JSON, and `{"error": "..."}` with 4xx or 503.
"""

import math
import re
from functools import partial
from typing import Any

from flask import Blueprint, Response, request

from ..errors import BadInput, BadModel, Conflict, NotFound, Refusal, Unauthorized
from ..protocols.codec import NOT_JSON, load_json
from ..serving.detector import Detector
from ..serving.reload import Change, ModelReloader
from .auth import ApiKey
from .request import REQUEST
from .routes import json_response, read_body

_MOST_BYTES, _MOST_DEPTH = 2**16, 8

_ADDRESSES = re.compile(r"[0-9A-Fa-f:., ]{1,100}")

MODEL = "/v2/repository/models/<name>"


def create_admin(reloader: ModelReloader, model_name: str, token: str) -> Blueprint:
    """Return the admin routes; each request needs `Authorization: Bearer` and the token."""
    routes = Blueprint("admin", __name__)
    routes.before_request(partial(_authorize, ApiKey(f"Bearer {token}"), model_name))
    routes.register_error_handler(Refusal, _refuse)
    routes.register_error_handler(BadModel, partial(_refuse_model, reloader))

    @routes.post(f"{MODEL}/load")
    def load(name: str) -> Response:
        if _read_object().get("parameters"):
            raise BadInput("load takes no parameters: it reads the file that ISOSERVE_MODEL names")
        return json_response(_encode_change(name, reloader.load(who_asks())))

    @routes.post(f"{MODEL}/threshold")
    def set_threshold(name: str) -> Response:
        threshold, share, version = _read_choice(_read_object())
        change = reloader.set_threshold(threshold, who_asks(), share, version)
        return json_response(_encode_change(name, change))

    @routes.post(f"{MODEL}/unload")
    def unload(name: str) -> Response:
        raise Conflict(
            f"isoserve serves one model and does not unload {name!r}; load another, or stop it"
        )

    return routes


def _authorize(header: ApiKey, model_name: str) -> None:
    """Check the header Authorization and the model that the path names."""
    if not header.accepts(request.headers.get("Authorization", "").encode()):
        raise Unauthorized(
            "missing or wrong admin token: send the header Authorization: Bearer TOKEN"
        )
    name = (request.view_args or {})["name"]
    if name != model_name:
        raise NotFound(f"there is no model {name[:100]!r}; this one is {model_name!r}")


def _refuse(refusal: Refusal) -> Response:
    return json_response({"error": str(refusal)}, refusal.status)


def _refuse_model(reloader: ModelReloader, error: BadModel) -> Response:
    refusal = Conflict if error.reason == "features" else BadInput
    text = str(error).replace(f"{reloader.folder}/", "")  # a client may not learn where it is
    return _refuse(refusal(f"{text}; version {reloader.serving.model.version} is still served"))


def _read_object() -> dict[str, Any]:
    """Return the JSON object in a body of any content type; an empty body is {}."""
    body = read_body(_MOST_BYTES)
    value = load_json(body, _MOST_DEPTH, NOT_JSON) if body.strip() else {}
    if not isinstance(value, dict):
        raise BadInput("the body is not a JSON object")
    return value


def _read_choice(sent: dict[str, Any]) -> tuple[float | None, float | None, str]:
    """Return the threshold, the share and the model version of a request; None of both: null."""
    version = sent.get("model_version", "")
    names = [name for name in ("threshold", "share") if name in sent]
    value = sent[names[0]] if len(names) == 1 else ""
    if (value is not None and not _is_number(value)) or not isinstance(version, str):
        raise BadInput(
            'send {"threshold": -0.05} or {"share": 0.005}, or null for the setting; with '
            '"model_version" it is refused if another model is served'
        )
    if value is None:
        return None, None, version
    number = float(value)
    return (number, None, version) if names == ["threshold"] else (None, number, version)


def _encode_change(name: str, change: Change) -> dict[str, Any]:
    old, new = change
    return {
        "model_name": name,
        **_encode_detector(new),
        "changed": new is not old,
        "former": _encode_detector(old),
    }


def _encode_detector(detector: Detector) -> dict[str, Any]:
    share = {} if detector.share is None else {"share": detector.share}
    return {"model_version": detector.model.version, "threshold": detector.threshold, **share}


def who_asks() -> str:
    """Return the caller's address, the client that a proxy names, and the request's id."""
    forwarded = request.headers.get("X-Forwarded-For", "")
    caller = request.remote_addr or "unknown"
    if _ADDRESSES.fullmatch(forwarded):
        caller += f" for {forwarded} as it says"
    return f"{caller}, request {request.environ[REQUEST].id}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and not math.isnan(value)
