"""The OpenAPI 3.1 document of every route, from the JSON files of this folder.

- `document.json`: the document without its paths and schemas.
- `operations.json`: what the routes take and answer, in a shorter form than OpenAPI's. `routes`
  lists the methods and paths of an operation, `answer` the content of status 200 by type, `errors`
  other statuses.
- `schemas.json`: the schemas. They allow everything that the code accepts. Faults that a schema
  cannot express, such as an unknown column, are answered with status 400.

`{"$fill": NAME}` stands for a value: one of the `parts` of a file, or one that depends on the
model, the settings or the code (see `describe`).
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from ... import __version__
from ...protocols.mlflow import ERROR_CODES
from ...protocols.open_inference import DATATYPES, OUTPUTS
from ..health import LIVENESS, asks_readiness
from ..query import MOST

Schema = dict[str, Any]

_SHORT_KEYS = {"routes", "answer", "errors", "responses"}
"""Keys of an operation in `operations.json` that OpenAPI does not have, or that are extended."""


def describe(
    name: str,
    version: str,
    columns: list[str],
    with_admin: bool = False,
    with_key: bool = False,
) -> Schema:
    """Return the document of a service with this model: its name, version and columns.

    `with_admin` says whether the admin routes exist, `with_key` whether an API key is needed.
    """
    operations, schemas = _read("operations"), _read("schemas")
    keys: list[Schema] = [{"key": []}, {"bearer": []}]
    values = {
        **schemas["parts"],
        **operations["parts"],
        **_describe_model(name, version, columns),
        "security": keys if with_key else [{}, *keys],
        "paths": _write_paths(operations, with_admin),
        "schemas": schemas["schemas"],
    }
    document: Schema = _fill(_read("document"), values)
    return document


def _describe_model(name: str, version: str, columns: list[str]) -> Schema:
    """Return the values that depend on the model or the code, by their names in the data."""
    return {
        "isoserve": __version__,
        "model name": name,
        "model version": version,
        "features": columns,
        "width": len(columns),
        "zeros": [0] * len(columns),
        "datatypes": DATATYPES,
        "outputs": list(OUTPUTS),
        "error codes": sorted(set(ERROR_CODES.values())),
        "largest option": MOST,
    }


@cache
def _read(name: str) -> Schema:
    content: Schema = json.loads(Path(__file__).with_name(f"{name}.json").read_bytes())
    return content


def _fill(value: Any, values: Schema) -> Any:
    """Replace each `{"$fill": NAME}` in a value; the replacement may contain more of them."""
    if isinstance(value, list):
        return [_fill(item, values) for item in value]
    if not isinstance(value, dict):
        return value
    if "$fill" in value:
        return _fill(values[value["$fill"]], values)
    return {key: _fill(item, values) for key, item in value.items()}


def _write_paths(operations: Schema, with_admin: bool) -> Schema:
    paths: Schema = {}
    for short in operations["operations"]:
        if "security" in short and not with_admin:  # only admin routes name their own token
            continue
        for method, path in map(str.split, short["routes"]):
            operation = _write_operation(short, method, path, operations)
            paths.setdefault(path, {})[method.lower()] = operation
    return paths


def _write_operation(short: Schema, method: str, path: str, operations: Schema) -> Schema:
    """Return the operation of one route as OpenAPI has it."""
    words = re.findall("[A-Za-z0-9]+", re.sub(r"(v[01])\.[01]", r"\1", path))
    operation = {key: value for key, value in short.items() if key not in _SHORT_KEYS}
    operation["operationId"] = "_".join([method.lower(), *words])
    if method == "GET":
        operation.pop("requestBody", None)
    if _is_health(path):
        operation["security"] = []
    responses = {
        str(status): _write_error(status, short["tags"][0], operations)
        for status in _errors(method, path) | set(short.get("errors", ()))
    }
    if "answer" in short:
        responses["200"] = _write_answer(short)
    responses |= short.get("responses", {})
    operation["responses"] = dict(sorted(responses.items()))
    return operation


def _is_health(path: str) -> bool:
    return path in LIVENESS or asks_readiness(path)


def _errors(method: str, path: str) -> set[int]:
    """Return the errors that can occur before the route is called."""
    errors = {414, 431}
    if not _is_health(path):
        errors.add(401)
    if method == "POST" or asks_readiness(path):  # a slow body; a service that is stopping
        errors.add(503)
    return errors


def _write_answer(short: Schema) -> Schema:
    content = {kind: {"schema": schema} for kind, schema in short["answer"].items()}
    headers = {"$fill": "answer headers"}
    return {"description": short["summary"], "headers": headers, "content": content}


def _write_error(status: int, tag: str, operations: Schema) -> Schema:
    protocol = "Service" if status == 414 else tag  # a request line that is too long is not parsed
    name = operations["error schemas"][protocol]
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {**operations["errors"][str(status)], "content": content}
