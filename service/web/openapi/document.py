"""The OpenAPI 3.1 document of every route, from the JSON files of this folder.

- `document.json` is the document without its paths and schemas.
- `operations.json` lists what each route takes and answers, shorter than OpenAPI does: `routes`
  are all the methods and paths of an operation, `answer` is the content of its 200, and `errors`
  are other statuses.
- `schemas.json` has the schemas. They allow whatever the code takes. A fault that needs the whole
  table or the model to be seen, such as an unknown column, gets status 400.

In each file `{"$fill": NAME}` stands for a value: one of the file's `parts`, or one that depends
on the model or the code (see `describe`).
"""

from __future__ import annotations

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
        "security": keys if with_key else [{}, *keys],
        "paths": _paths(operations, with_admin),
        "schemas": schemas["schemas"],
    }
    document: Schema = _fill(_read("document"), values)
    return document


@cache
def _read(name: str) -> Schema:
    content: Schema = json.loads(Path(__file__).with_name(f"{name}.json").read_text("utf-8"))
    return content


def _fill(value: Any, values: Schema) -> Any:
    """Replace each `{"$fill": NAME}` in a value, also in what it is replaced by."""
    if isinstance(value, list):
        return [_fill(item, values) for item in value]
    if not isinstance(value, dict):
        return value
    if "$fill" in value:
        return _fill(values[value["$fill"]], values)
    return {key: _fill(item, values) for key, item in value.items()}


def _paths(operations: Schema, with_admin: bool) -> Schema:
    paths: Schema = {}
    for short in operations["operations"]:
        if with_admin or "security" not in short:  # only admin routes have a rule of their own
            for method, path in map(str.split, short["routes"]):
                operation = _operation(short, method, path, operations)
                paths.setdefault(path, {})[method.lower()] = operation
    return paths


def _operation(short: Schema, method: str, path: str, operations: Schema) -> Schema:
    """Write out the operation of one route."""
    operation = {key: value for key, value in short.items() if key not in _SHORT}
    words = re.findall("[A-Za-z0-9]+", re.sub(r"(v[01])\.[01]", r"\1", path))
    operation["operationId"] = "_".join([method.lower(), *words])
    if method == "GET":
        operation.pop("requestBody", None)
    statuses = {414, 431, *short.get("errors", ())}  # a request line or header may be too long
    ready = asks_readiness(path)
    if ready or method == "POST":  # the service stops, or a body comes too slowly
        statuses.add(503)
    if ready or path in LIVENESS:
        operation["security"] = []
    else:
        statuses.add(401)
    responses = {str(status): _error(status, short["tags"][0], operations) for status in statuses}
    if "answer" in short:
        responses["200"] = _success(short)
    operation["responses"] = dict(sorted((responses | short.get("responses", {})).items()))
    return operation


_SHORT = ("routes", "answer", "errors", "responses")


def _success(short: Schema) -> Schema:
    content = {kind: {"schema": schema} for kind, schema in short["answer"].items()}
    headers = {"$fill": "answer headers"}
    return {"description": short["summary"], "headers": headers, "content": content}


def _error(status: int, tag: str, operations: Schema) -> Schema:
    """Describe a refusal in the protocol of a tag; of a too long line the path is not read."""
    name = operations["error schemas"]["Service" if status == 414 else tag]
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {**operations["errors"][str(status)], "content": content}
