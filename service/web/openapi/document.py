"""The OpenAPI 3.1 document of every route.

Schemas allow all that the code takes; what only a look at the whole table can tell (a name that the
model does not know, a shape that does not fit its values) is answered with 400 in words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ... import __version__
from ...protocols.codec import JSON
from ...protocols.mlflow import CSV, ERROR_CODES
from ...protocols.open_inference import DATATYPES, JSON_LENGTH, OUTPUTS
from ..health import LIVENESS, asks_readiness

Schema = dict[str, Any]

BYTES, FORM, PARTS = (
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
)

_TAGS = {
    "Seldon v1": "The contract of Seldon Core's Python wrapper.",
    "Open Inference Protocol": "V2 over REST, as KServe, Triton and MLServer speak it.",
    "MLflow": "The contract of MLflow's scoring server.",
    "Service": "Health, metrics and this document.",
}

_ERRORS = {
    400: "The request is not what the route takes; the text names what and where.",
    401: "The key, or for a change the admin token, is missing or wrong.",
    404: "There is no such thing.",
    409: "The service as it is does not allow it.",
    413: "The request is over a limit of bytes, rows, columns or depth.",
    414: "The request line is too long; send the table as a body.",
    415: "The body is packed in a way, or of a type, that is not read here.",
    431: "A header is too long, or there are too many.",
    503: "It does not work at the moment.",
}


def describe(
    name: str,
    version: str,
    columns: list[str],
    with_admin: bool = False,
    with_key: bool = False,
) -> Schema:
    """Return the document of a service with this model: its name, version and columns.

    `with_key` says whether it asks for a key.
    """
    admin = _admin_paths(name) if with_admin else {}
    keys: list[Schema] = [{"key": []}, {"bearer": []}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "isoserve",
            "version": __version__,
            "summary": "Outlier detection with an Isolation Forest.",
            "description": "Where the service has an API key, every route but health asks for it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag, "description": text} for tag, text in _TAGS.items()],
        "security": keys if with_key else [{}, *keys],
        "paths": _with_refusals(
            _with_ids(
                _seldon_paths()
                | _open_inference_paths(name, version)
                | admin
                | _mlflow_paths()
                | _our_paths()
            )
        ),
        "components": {
            "schemas": _schemas(columns),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "the same key"},
                "admin": {"type": "http", "scheme": "bearer", "description": "the admin token"},
            },
            "headers": {
                "X-Request-ID": _header("names the request; yours, where you sent a good one"),
                "X-Model-Version": _header("the first 12 digits of the model file's SHA-256"),
                JSON_LENGTH: _header("bytes of JSON, where the rest is tensors'", required=False),
                "Retry-After": _header("seconds after which the same request may succeed"),
                "WWW-Authenticate": _header("the scheme of the key or token"),
            },
        },
    }


def _with_ids(paths: Schema) -> Schema:
    """Name each operation after its method and path."""
    for path, operations in paths.items():
        for method, operation in operations.items():
            words = re.findall(r"[A-Za-z0-9]+", path.replace("v1.0", "v1").replace("v0.1", "v0"))
            operation["operationId"] = "_".join([method, *words])
    return paths


def _with_refusals(paths: Schema) -> Schema:
    """Add to each operation what the admission may answer in its stead."""
    for path, operations in paths.items():
        ready = asks_readiness(path)
        for method, operation in operations.items():
            schema = _ERROR_SCHEMAS[operation["tags"][0]]
            operation["responses"]["414"] = _error(414, "SeldonError")  # the path is not read
            operation["responses"]["431"] = _error(431, schema)
            if path in LIVENESS or ready:
                operation["security"] = []
            else:
                operation["responses"]["401"] = _error(401, schema)
            if ready or method == "post":  # a long body may come too late
                operation["responses"]["503"] = _error(503, schema)
    return paths


def _seldon_paths() -> Schema:
    options = [
        _query("scores", _SWITCH, "1 adds the exact scores and the threshold to meta.tags"),
        _query(
            "explain",
            {"type": "integer", "minimum": 0, "maximum": 999_999},
            "how many features to name for each outlier, those first that isolated it most",
        ),
    ]
    in_query = _query("json", {"type": "string"}, "the message, in place of a body")

    def both(summary: str, message: str, answer: str, *errors: int) -> Schema:
        """Describe a route that takes its message by GET and by POST."""
        asks: Schema = {"parameters": [in_query, *(options if message == "Message" else ())]}
        with_body = {**asks, "requestBody": _message_body(message)}
        return {
            "get": _operation(summary, "Seldon v1", answer, asks, [400, *errors, 413, 503]),
            "post": _operation(summary, "Seldon v1", answer, with_body, [400, *errors, 413, 503]),
        }

    predict = both("Tell which rows are outliers.", "Message", "LabelsAnswer")
    rows = both("Return the rows, their labels in the tags.", "Message", "RowsAnswer")
    echo = both("Pass a message on as it came.", "Echo", "EchoAnswer")
    feedback = both("Say what was true of a prediction.", "Feedback", "FeedbackAnswer", 404)
    refused = {
        "description": "Always: this is an outlier detector.",
        "headers": _HEADERS,
        "content": _json("SeldonError"),
    }

    def none(text: str) -> Schema:
        operation = {"summary": text, "tags": ["Seldon v1"], "responses": {"400": refused}}
        return {"get": operation, "post": dict(operation)}

    status = _operation("Tell health and the counts so far.", "Seldon v1", "StatusAnswer")
    metadata = _operation("Describe the model.", "Seldon v1", "MetadataAnswer")
    return {
        "/predict": predict,
        "/api/v1.0/predictions": {"post": dict(predict["post"])},
        "/api/v0.1/predictions": {"post": dict(predict["post"])},
        "/transform-input": rows,
        "/transform-output": echo,
        "/send-feedback": feedback,
        "/api/v1.0/feedback": {"post": dict(feedback["post"])},
        "/api/v0.1/feedback": {"post": dict(feedback["post"])},
        "/route": none("Refuse: this is no router."),
        "/aggregate": none("Refuse: this is no combiner."),
        "/health/ping": {
            "get": _text("Tell that the process answers.", "Seldon v1", "text/html; charset=utf-8")
        },
        "/health/status": {"get": status},
        "/api/v1.0/health/status": {"get": dict(status)},
        "/metadata": {"get": metadata},
        "/api/v1.0/metadata": {"get": dict(metadata)},
    }


def _open_inference_paths(name: str, version: str) -> Schema:
    tag = "Open Inference Protocol"
    encoding = _in_header("Content-Encoding", {"type": "string"}, "gzip or deflate")
    length = _in_header(
        JSON_LENGTH, {"type": "string", "pattern": "^[0-9]+$"}, "bytes of JSON before the tensors'"
    )
    model, its_version = _in_path("model", name), _in_path("version", version)
    infer_body = {"content": _json("InferenceRequest") | _bytes(), "required": True}
    index_body = {"content": _json("IndexRequest")}

    def about(*where: Schema) -> tuple[Schema, Schema, Schema]:
        """Describe metadata, readiness and inference of a model."""
        asks = {"parameters": [*where, encoding, length], "requestBody": infer_body}
        infer = _operation(
            "Tell which rows are outliers.", tag, "InferenceAnswer", asks, [400, 404, 413, 415, 503]
        )
        named = {"parameters": list(where)}
        success = infer["responses"]["200"]
        success["content"] |= _bytes()
        success["headers"] = _HEADERS | _header_ref(JSON_LENGTH)
        return (
            {"get": _operation("Describe the model.", tag, "Model", named, [404])},
            {
                "get": _operation(
                    "Score a row, and so tell that the model is ready.", tag, "Ready", named, [404]
                )
            },
            {"post": infer},
        )

    plain, versioned = about(model), about(model, its_version)
    asks = {"parameters": [encoding], "requestBody": index_body}
    index = _operation("List the one model.", tag, "Index", asks, [400, 413, 415])
    return {
        "/v2": {"get": _operation("Describe the server.", tag, "Server")},
        "/v2/health/live": {"get": _operation("Tell that the process answers.", tag, "Live")},
        "/v2/health/ready": {
            "get": _operation(
                "Score a row, and so tell that the model is ready.", tag, "LiveAndReady"
            )
        },
        "/v2/models/{model}": plain[0],
        "/v2/models/{model}/ready": plain[1],
        "/v2/models/{model}/infer": plain[2],
        "/v2/models/{model}/versions/{version}": versioned[0],
        "/v2/models/{model}/versions/{version}/ready": versioned[1],
        "/v2/models/{model}/versions/{version}/infer": versioned[2],
        "/v2/repository/index": {"post": index},
    }


def _admin_paths(name: str) -> Schema:
    """Describe the routes that there are only with an admin token."""
    tag, path = "Open Inference Protocol", "/v2/repository/models/{name}"
    named = {"parameters": [_in_path("name", name)], "security": [{"admin": []}]}
    threshold = _object(["threshold"], threshold={"type": ["number", "null"]})
    changes = {
        "load": ("Serve the model file as it is now, in all workers.", _ANY_OBJECT),
        "threshold": ("Judge by another threshold, in all workers.", threshold),
    }
    operations = {
        f"{path}/{change}": {
            "post": _operation(
                summary,
                tag,
                "Change",
                {**named, "requestBody": {"content": {JSON: {"schema": body}}}},
                [400, 401, 404, 409, 413, 503],
            )
        }
        for change, (summary, body) in changes.items()
    }
    refusals = {str(status): _error(status, "InferenceError") for status in (401, 404, 409)}
    unload = {"summary": "Refuse: there is one model.", "tags": [tag], **named}
    return operations | {f"{path}/unload": {"post": {**unload, "responses": refusals}}}


def _mlflow_paths() -> Schema:
    scores = _query("scores", _SWITCH, "1 adds the exact scores and the threshold")
    body = {
        "content": _json("InvocationsRequest") | {CSV: {"schema": {"type": "string"}}},
        "required": True,
    }
    encoding = _in_header("Content-Encoding", _STRING, "gzip or deflate")
    asks = {"parameters": [scores, encoding], "requestBody": body}
    invoke = _operation(
        "Tell which rows are outliers.", "MLflow", "Predictions", asks, [400, 413, 415, 503]
    )
    ready = _text("Score a row, and so tell that the model is ready.", "MLflow", _PLAIN)
    return {
        "/invocations": {"post": invoke},
        "/ping": {"get": ready},
        "/health": {"get": dict(ready)},
        "/version": {"get": _text("Tell isoserve's version.", "MLflow", _PLAIN)},
    }


def _our_paths() -> Schema:
    document = _operation("Show the OpenAPI document.", "Service", "Anything")
    name = _in_path("name", "swagger-ui.css")
    files = {
        "summary": "A file of the page.",
        "tags": ["Service"],
        "parameters": [name],
        "responses": {
            "200": {"description": "It."},
            "304": _SAME,
            "404": _error(404, "SeldonError"),
        },
    }
    page = _text("Show the OpenAPI document as a page.", "Service", _HTML)
    page["responses"]["304"] = _SAME
    return {
        "/live": {"get": _operation("Tell that the process answers.", "Service", "Live")},
        "/ready": {
            "get": _operation(
                "Score a row, and so tell that the model is ready.", "Service", "OnlyReady"
            )
        },
        "/metrics": {"get": _text("Show the numbers, for Prometheus.", "Service", _METRICS)},
        "/openapi.json": {"get": document},
        "/seldon.json": {"get": dict(document)},
        "/docs": {"get": page},
        "/docs/{name}": {"get": files},
    }


_SAME: Schema = {"description": "It is as you have it."}
_PLAIN, _HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_SWITCH: Schema = {
    "type": "string",
    "pattern": "^(|[01]|[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$",
    "examples": ["1", "0", "true", "false"],
}


def _header_ref(*names: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


_HEADERS = _header_ref("X-Request-ID", "X-Model-Version")
_HEADERS_OF = {401: _header_ref("WWW-Authenticate"), 503: _header_ref("Retry-After")}
_ERROR_SCHEMAS = {
    "Seldon v1": "SeldonError",
    "Open Inference Protocol": "InferenceError",
    "MLflow": "MLflowError",
    "Service": "SeldonError",
}


def _operation(
    summary: str,
    tag: str,
    answer: str,
    asks: Schema | None = None,
    errors: Sequence[int] = (),
) -> Schema:
    """Describe one method of a path.

    `answer` names the schema of its success, `asks` has its parameters and body.
    """
    success = {"description": summary, "headers": _HEADERS, "content": _json(answer)}
    failures = {str(status): _error(status, _ERROR_SCHEMAS[tag]) for status in errors}
    responses = {"200": success, **failures}
    return {"summary": summary, "tags": [tag], **(asks or {}), "responses": responses}


def _text(summary: str, tag: str, content_type: str) -> Schema:
    """Describe a GET that is answered with text."""
    content = {content_type: {"schema": {"type": "string"}}}
    success = {"description": summary, "headers": _HEADERS, "content": content}
    return {"summary": summary, "tags": [tag], "responses": {"200": success}}


def _error(status: int, schema: str) -> Schema:
    headers = _HEADERS | _HEADERS_OF.get(status, {})
    return {"description": _ERRORS[status], "headers": headers, "content": _json(schema)}


def _header(text: str, required: bool = True) -> Schema:
    return {"description": text, "required": required, "schema": {"type": "string"}}


def _query(name: str, schema: Schema, text: str) -> Schema:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _in_header(name: str, schema: Schema, text: str) -> Schema:
    return {"name": name, "in": "header", "description": text, "schema": schema}


def _in_path(name: str, value: str) -> Schema:
    schema = {"type": "string", "enum": [value]}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _json(schema: str) -> Schema:
    return {JSON: {"schema": _ref(schema)}}


def _bytes() -> Schema:
    """Describe a message of JSON and the bytes of its tensors."""
    return {BYTES: {"schema": {"type": "string", "format": "binary"}}}


def _message_body(schema: str) -> Schema:
    """Describe the ways in which a Seldon message may be sent; the query is one of them."""
    form = _object(json=_JSON_TEXT)
    parts = _object(**_PARTS_OF[schema])
    content = _json(schema) | {FORM: {"schema": form}, PARTS: {"schema": parts}}
    return {"content": content}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Sequence[str] = (), **properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _exactly(**properties: Any) -> Schema:
    return _object(list(properties), **properties) | {"additionalProperties": False}


def _list(items: Schema | None = None, **more: Any) -> Schema:
    return {"type": "array", "items": items or {}, **more}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_STRING: Schema = {"type": "string"}
_JSON_TEXT: Schema = {"type": "string", "contentMediaType": JSON}
_NUMBER: Schema = {"type": "number"}
_NUMBERS = _list(_NUMBER)
_LABEL: Schema = {"type": "integer", "enum": [0, 1]}
_LABELS = _list(_LABEL)
_STRINGS = _list(_STRING)
_ANY_OBJECT: Schema = {"type": "object"}
_SIZES = _list({"type": "integer", "minimum": 0})

# What the parts of a multipart body hold, by the message that they make.
_MESSAGE_PARTS = dict.fromkeys(("data", "jsonData", "meta"), _JSON_TEXT)
_PARTS_OF: dict[str, Schema] = {
    "Message": _MESSAGE_PARTS,
    "Echo": {**_MESSAGE_PARTS, "strData": _STRING, "binData": {}},
    "Feedback": dict.fromkeys(("request", "response", "reward", "truth"), _JSON_TEXT),
}


def _schemas(columns: list[str]) -> Schema:
    cell: Schema = {
        "type": ["number", "boolean", "string", "null"],
        "description": "a finite number; numeric strings and booleans count as such, "
        "and null is a missing value, for a model that was trained with such",
    }
    row = _list(cell, minItems=len(columns), maxItems=len(columns), examples=[[0] * len(columns)])
    table = _list(row, minItems=1)
    return {
        "Anything": _ANY_OBJECT,
        **_seldon_schemas(table, columns),
        **_open_inference_schemas(columns),
        **_mlflow_schemas(table, columns),
        "Live": _exactly(live={"const": True}),
        "OnlyReady": _exactly(ready={"const": True}),
        "LiveAndReady": _exactly(live={"const": True}, ready={"const": True}),
    }


def _seldon_schemas(table: Schema, columns: list[str]) -> Schema:
    tensor = _object(
        ["shape", "values"],
        shape=_list({"type": "integer", "minimum": -1}, minItems=2, maxItems=2),
        values=_list(),
    )
    meta = _object(
        puid=_or_null(_STRING),
        tags=_or_null(_ANY_OBJECT),
        metrics=_or_null(_list()),
        requestPath=_or_null(_ANY_OBJECT),
    )
    part = {"type": ["object", "array", "null"]}
    names = _or_null(_STRINGS)
    data = {
        "anyOf": [
            _object(["ndarray"], ndarray=table, names=names),
            _object(["tensor"], tensor=tensor, names=names),
        ]
    }
    gauge = _object(["key", "type", "value"], key=_STRING, type=_STRING, value=_NUMBER)
    answer_meta = _object(
        puid=_STRING,
        metrics=_list(),
        requestPath=_ANY_OBJECT,
        tags=_ANY_OBJECT,
    )
    labels = {
        "anyOf": [
            _exactly(names=_STRINGS, ndarray=_LABELS),
            _exactly(names=_STRINGS, tensor=_exactly(shape=_SIZES, values=_LABELS)),
        ]
    }
    rows = {
        "anyOf": [
            _exactly(names=_STRINGS, ndarray=_list()),
            _exactly(
                names=_STRINGS, tensor=_exactly(shape=_SIZES, values=_list(_or_null(_NUMBER)))
            ),
        ]
    }
    status = _exactly(
        code={"const": -1},
        info=_STRING,
        reason={"enum": ["MICROSERVICE_BAD_DATA", "MICROSERVICE_INTERNAL_ERROR"]},
        status={"const": 1},
    )
    tensor_metadata = _object(["messagetype", "schema"], messagetype=_STRING, schema=_ANY_OBJECT)
    return {
        "Message": {
            "anyOf": [
                _object(["data"], data=data, meta=_or_null(meta)),
                _object(["jsonData"], jsonData=table, meta=_or_null(meta)),
            ],
            "examples": [{"data": {"names": columns, "ndarray": [[0] * len(columns)]}}],
        },
        "Echo": {
            **_object(meta=_or_null(meta)),
            "anyOf": [{"required": [key]} for key in ("data", "jsonData", "strData", "binData")],
        },
        "Feedback": {
            "anyOf": [
                _object(
                    request=part,
                    response=part,
                    reward={"type": ["number", "string", "null"]},
                    truth=part,
                ),
                {"type": "array", "maxItems": 0},
            ],
            "examples": [
                {
                    "request": {"data": {"names": columns, "ndarray": [[0] * len(columns)]}},
                    "truth": {"data": {"ndarray": [0]}},
                }
            ],
        },
        "FeedbackAnswer": _exactly(data=_ANY_OBJECT, meta=answer_meta),
        "LabelsAnswer": _exactly(data=labels, meta=answer_meta),
        "RowsAnswer": _exactly(data=rows, meta=answer_meta),
        "EchoAnswer": _object(["meta"], meta=answer_meta),
        "StatusAnswer": _exactly(strData={"const": "healthy"}, meta=_exactly(metrics=_list(gauge))),
        "MetadataAnswer": _exactly(
            custom=_ANY_OBJECT,
            inputs=_list(tensor_metadata),
            name=_STRING,
            outputs=_list(tensor_metadata),
            platform=_STRING,
            versions=_STRINGS,
        ),
        "SeldonError": _exactly(status=status),
    }


def _open_inference_schemas(columns: list[str]) -> Schema:
    parameters = _or_null(_ANY_OBJECT)
    datatype = {"enum": DATATYPES}
    names = {"enum": list(OUTPUTS)}
    example = {"name": "rows", "shape": [1, len(columns)], "datatype": "FP64"}
    tensor = _object(
        ["name", "shape", "datatype"],
        name=_STRING,
        shape=_list({"type": "integer", "minimum": 0}, minItems=1, maxItems=2),
        datatype=datatype,
        data=_list(),
        parameters=parameters,
    )
    answer = _object(
        ["name", "shape", "datatype", "parameters"],
        name=names,
        shape=_SIZES,
        datatype=datatype,
        data=_NUMBERS,
        parameters=_ANY_OBJECT,
    )
    about = _object(["name", "shape", "datatype"], name=_STRING, shape=_list(), datatype=datatype)
    state = {"enum": ["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"]}
    return {
        "InferenceRequest": {
            **_object(
                ["inputs"],
                id=_or_null(_STRING),
                parameters=parameters,
                inputs=_list(tensor, minItems=1),
                outputs=_or_null(_list(_object(["name"], name=names, parameters=parameters))),
            ),
            "examples": [{"inputs": [{**example, "data": [0] * len(columns)}]}],
        },
        "InferenceAnswer": _exactly(
            id=_STRING, model_name=_STRING, model_version=_STRING, outputs=_list(answer)
        ),
        "InferenceError": _exactly(error=_STRING),
        "Server": _exactly(name=_STRING, version=_STRING, extensions=_STRINGS),
        "Model": _exactly(
            name=_STRING,
            versions=_STRINGS,
            platform=_STRING,
            inputs=_list(about),
            outputs=_list(about),
        ),
        "Ready": _exactly(name=_STRING, ready={"const": True}),
        "Change": _object(
            ["model_name", "model_version", "threshold", "changed", "former"],
            model_name=_STRING,
            model_version=_STRING,
            threshold=_NUMBER,
            changed={"type": "boolean"},
            former=_object(model_version=_STRING, threshold=_NUMBER),
        ),
        "IndexRequest": _object(ready={"type": "boolean"}),
        "Index": _list(_exactly(name=_STRING, version=_STRING, state=state, reason=_STRING)),
    }


def _mlflow_schemas(table: Schema, columns: list[str]) -> Schema:
    either = {"anyOf": [table, _list(_ANY_OBJECT), {"type": "object", "minProperties": 1}]}
    forms: Schema = {
        "dataframe_split": _object(["data"], data=table, columns=_or_null(_list())),
        "dataframe_records": _list(_ANY_OBJECT, minItems=1),
        "instances": either,
        "inputs": either,
    }
    return {
        "InvocationsRequest": {
            **_object(**forms),
            "oneOf": [{"required": [form]} for form in forms],
            "examples": [
                {"dataframe_split": {"columns": columns, "data": [[0] * len(columns)]}},
            ],
        },
        "Predictions": _object(
            ["predictions"], predictions=_LABELS, scores=_NUMBERS, threshold=_NUMBER
        ),
        "MLflowError": _exactly(
            error_code={"enum": sorted(set(ERROR_CODES.values()))}, message=_STRING
        ),
    }
