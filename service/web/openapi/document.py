"""The OpenAPI 3.1 document of every route, from the JSON files of this folder.

- `document.json`: the document without its paths and schemas.
- `operations.json`: what the routes take and answer, in a shorter form than OpenAPI's. `routes`
  lists the methods and paths of an operation, `answer` the content of status 200 by type, `errors`
  other statuses. `begin` lists the routes that a page shows first.
- `schemas.json`: the schemas. They allow everything that the code accepts. Faults that a schema
  cannot express, such as an unknown column, are answered with status 400.

`{"$fill": NAME}` stands for a value: one of the `parts` of a file, or one that depends on the
model, the settings or the code (see `describe`).
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ... import __version__
from ...protocols.mlflow import ERROR_CODES
from ...protocols.open_inference import DATATYPES, OUTPUTS
from ..health import LIVENESS, asks_readiness
from ..query import MOST

Schema = dict[str, Any]

Rows = Sequence[Sequence[float | str | None]]

INTRODUCTION = (
    "Begin with **POST /predict**: open it, press *Try it out*, then *Execute*. "
    "The rows of the examples are a normal and an abnormal row of the training table, where its "
    "card is known; the answer is 0 for an inlier and 1 for an outlier. What is no HTTP request is "
    "refused as plain text, with 400, 414, 431 or 501."
)
NEEDS_KEY = " Every route except health needs the API key: press *Authorize* first."

_SHORT_KEYS = {"routes", "answer", "errors", "responses"}
"""Keys of an operation in `operations.json` that OpenAPI does not have, or that are extended."""


_OF_THE_SERVER = 414, 431
"""What the server refuses in its own words, before it knows the route."""


def describe(  # noqa: PLR0913 - a document's only input
    name: str,
    version: str,
    columns: list[str],
    rows: Rows = (),
    *,
    with_admin: bool = False,
    with_key: bool = False,
    extra: int = 0,
) -> Schema:
    """Return the document of a service with this model: its name, version and columns.

    `rows` are examples, a normal row first, by default a row of zeros. `with_admin` says whether
    the admin routes exist, `with_key` whether an API key is needed. `extra` columns may come along.
    """
    operations, schemas = _read("operations"), _read("schemas")
    values = {
        **schemas["parts"],
        **operations["parts"],
        **_describe_model(name, version, columns),
        **_show_examples(columns, rows or [[0.0] * len(columns)]),
        **_describe_keys(with_admin, with_key),
        "widest": len(columns) + extra,
        "paths": _write_paths(operations, with_admin),
        "schemas": schemas["schemas"],
    }
    document: Schema = _fill(_read("document"), values)
    if not values["security schemes"]:  # an empty object would still show a button
        del document["components"]["securitySchemes"]
    return document


def _describe_model(name: str, version: str, columns: list[str]) -> Schema:
    """Return the values that depend on the model or the code, by their names in the data."""
    return {
        "isoserve": __version__,
        "model name": name,
        "model version": version,
        "features": columns,
        "width": len(columns),
        "datatypes": DATATYPES,
        "outputs": [*OUTPUTS],
        "error codes": sorted(set(ERROR_CODES.values())),
        "largest option": MOST,
    }


def _show_examples(columns: list[str], rows: Rows) -> Schema:
    """Return the examples of requests, by their names in the data."""
    message = {"data": {"names": columns, "ndarray": rows}}
    cells = ([_write_cell(cell) for cell in row] for row in rows)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *cells])
    return {
        "example rows": rows,
        "example inputs": _show_inputs(columns, rows),
        "example labels": list(range(len(rows))),  # the first is normal, the second an outlier
        "example message": json.dumps(message),
        "example CSV": text.getvalue(),
    }


def _show_inputs(columns: list[str], rows: Rows) -> list[Schema]:
    """Return rows as V2 tensors: one for all numbers, one for each column where some are text."""
    texts = [any(isinstance(cell, str) for cell in column) for column in zip(*rows, strict=True)]
    if not any(texts):
        shape = [len(rows), len(columns)]
        return [{"name": "rows", "shape": shape, "datatype": "FP64", "data": rows}]
    return [
        {
            "name": name,
            "shape": [len(rows)],
            "datatype": "BYTES" if is_text else "FP64",
            "data": [row[j] for row in rows],
        }
        for j, (name, is_text) in enumerate(zip(columns, texts, strict=True))
    ]


def _write_cell(cell: float | str | None) -> str:
    """Return a cell as a CSV body has it; a number with all its digits."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else repr(cell)


def _describe_keys(with_admin: bool, with_key: bool) -> Schema:
    """Return how requests are authorized. A page asks for each scheme, needed or not."""
    schemes: Schema = {}
    if with_key:
        schemes["key"] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
        schemes["bearer"] = {"type": "http", "scheme": "bearer", "description": "the same key"}
    if with_admin:
        schemes["admin"] = {"type": "http", "scheme": "bearer", "description": "the admin token"}
    return {
        "security": [{"key": []}, {"bearer": []}] if with_key else [],
        "security schemes": schemes,
        "introduction": INTRODUCTION + (NEEDS_KEY if with_key else ""),
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
    paths: Schema = {route.split()[1]: {} for route in operations["begin"]}
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
    if f"{method} {path}" in operations["begin"]:
        operation["tags"] = ["Begin here", *short["tags"]]
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
    errors = set(_OF_THE_SERVER)
    if not _is_health(path):
        errors.add(401)
    if method == "POST":
        errors.add(408)
    if method == "POST" or asks_readiness(path):  # overload; a service that is stopping
        errors.add(503)
    return errors


def _write_answer(short: Schema) -> Schema:
    content = {kind: {"schema": schema} for kind, schema in short["answer"].items()}
    headers = {"$fill": "answer headers"}
    return {"description": short["summary"], "headers": headers, "content": content}


def _write_error(status: int, tag: str, operations: Schema) -> Schema:
    if status in _OF_THE_SERVER:
        content: Schema = {"text/plain": {"schema": {"type": "string"}}}
        return {**operations["errors"][str(status)], "content": content}
    name = operations["error schemas"][tag]
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {**operations["errors"][str(status)], "content": content}
