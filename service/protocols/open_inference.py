"""The Open Inference Protocol, V2, with binary tensors: from bytes to a table and back.

A binary message is its JSON, then the raw bytes of its binary tensors, one after another:
little-endian, row by row, without padding.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, NotFound, Refusal, TooLarge, count, nearest
from ..rows import Floats, Limits, RawTable, Verdict
from .codec import NOT_JSON, parse_json, render_json, require_finite

_COUNT = re.compile(r"[0-9]{1,18}")

JSON_LENGTH = "Inference-Header-Content-Length"
"""The header with the number of bytes that the JSON of a binary message has."""

EXTENSIONS = ["binary_tensor_data"]
PLATFORM = "sklearn_pickle"
TABLE = "rows"
"""What the one input of a model without column names is called."""

EXAMPLE = '{"inputs": [{"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}'

# name -> (datatype, meaning), in the order of an answer.
OUTPUTS = {
    "predict": ("INT64", "1 for an outlier, 0 for an inlier"),
    "decision_function": ("FP64", "score: lower is more abnormal"),
    "score_samples": ("FP64", "scikit-learn's score_samples: decision_function plus its offset"),
    "threshold": ("FP64", "a row is an outlier when its decision_function is below this"),
    "contributions": (
        "FP64",
        "each feature's share in the row's path length, in steps: negative is more abnormal",
    ),
}
CONTRIBUTIONS = "contributions"

# Datatypes of one size, as they lie in a binary tensor.
_TYPES = {
    "BOOL": np.dtype("u1"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    "BF16": np.dtype("<u2"),
}
DATATYPES = [*_TYPES, "BYTES"]
"""What an input may hold."""

_CARD_TYPES = {"bool": "BOOL", "int": "INT64"}
_CONTENT_TYPES = (None, "np", "pd")

_LEAST = -(2.0**63)
"""As a float, INT64's least number and some thousand that are less."""

# The numbers from which on these datatypes round to an infinity.
_UNCHECKED = frozenset({"FP64", "BYTES"})
"""Datatypes that hold any number; the model reads their cells."""

_INFINITE = {"FP16": 65_520.0, "BF16": 2.0**128 - 2.0**119, "FP32": 2.0**128 - 2.0**103}


@dataclass(frozen=True)
class Request:
    """An inference request."""

    table: RawTable
    id: str
    """The id of the prediction; empty when none was sent."""
    outputs: Mapping[str, bool]
    """The tensors to answer with, and whether each goes as bytes."""
    is_line: bool = False
    """Whether its one input has a single dimension, which makes it a column."""

    def wants(self, output: str) -> bool:
        """Return whether an output was asked for."""
        return output in self.outputs

    def explain(self, error: BadInput) -> BadInput:
        """Return a refusal of the table that says what the shape [n] means, where it has one."""
        if not self.is_line:
            return error
        n = len(self.table)
        return BadInput(f"{error}; the shape [{n}] is one column, one row is [1, {n}]")


def decode_request(body: bytes, json_length: str | None, limits: Limits) -> Request:
    """Read an inference request; `json_length` is the header of a binary one.

    One input is a table of any name, (n, columns) or a single column (n,); several inputs are its
    columns, each (n,) or (n, 1), in any order.

    Raises:
        BadInput: not such a request; the text names the input, row and column.
        TooLarge: more rows or columns than `limits`, or nested deeper.
    """
    raw = b""
    if json_length is not None:
        length = _json_length(json_length, body)
        body, raw = body[:length], body[length:]
    value, refusal = parse_json(body, limits.depth, NOT_JSON)
    request = _decode(value, raw, limits)
    require_finite(request.table, refusal)
    return request


def encode_answer(
    request: Request, id: str, model: str, verdict: Verdict, shares: Floats | None = None
) -> tuple[bytes, int | None]:
    """Return the answer, and how many of its bytes are JSON if some are not.

    `id` is that of the prediction. `verdict` has the samples, if `request` asks for them; `shares`,
    (n_rows, n_features), are the scorer's contributions.
    """
    values = {
        "predict": verdict.labels,
        "decision_function": verdict.scores,
        "score_samples": verdict.samples,
        "threshold": np.array([verdict.threshold]),
        CONTRIBUTIONS: shares,
    }
    outputs, blobs = [], []
    for name, binary in request.outputs.items():
        value = np.asarray(values[name])
        datatype = OUTPUTS[name][0]
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(value.shape)}
        parameters: dict[str, Any] = {"content_type": "np"}
        if binary:
            blobs.append(value.astype(_TYPES[datatype], copy=False).tobytes())
            parameters["binary_data_size"] = len(blobs[-1])
        else:
            tensor["data"] = value.ravel()
        outputs.append({**tensor, "parameters": parameters})
    answer = {
        "id": id,
        "model_name": model,
        "model_version": verdict.version,
        "outputs": outputs,
    }
    text = render_json(answer)
    return b"".join([text, *blobs]), len(text) if blobs else None


def encode_error(text: str, status: int) -> dict[str, Any]:
    """Tell a failure in this protocol's shape, the same for every status."""
    return {"error": text}


def encode_server(name: str, version: str) -> dict[str, Any]:
    """Describe the server."""
    return {"name": name, "version": version, "extensions": EXTENSIONS}


def encode_model(
    name: str, version: str, features: Mapping[str, str], named: bool
) -> dict[str, Any]:
    """Describe the model: `features` are the columns' names and their types in its card.

    A model whose columns have names takes one input a column; else a single table.
    """
    width = len(features)
    columns = [
        _tensor(column, _CARD_TYPES.get(kind, "FP64"), [-1]) for column, kind in features.items()
    ]
    shapes = {"threshold": [1], CONTRIBUTIONS: [-1, width]}
    return {
        "name": name,
        "versions": [version],
        "platform": PLATFORM,
        "inputs": columns if named else [_tensor(TABLE, "FP64", [-1, width])],
        "outputs": [
            {**_tensor(output, kind, shapes.get(output, [-1])), "parameters": {"meaning": meaning}}
            for output, (kind, meaning) in OUTPUTS.items()
        ],
    }


def check_index(value: Any) -> None:
    """Check what a client may say when it asks for the index; the one model is always ready."""
    if not isinstance(value, dict) or not isinstance(value.get("ready", False), bool):
        raise BadInput('the body is empty or an object, as in {"ready": true}')


def encode_index(name: str, version: str) -> list[dict[str, Any]]:
    """List the one model of the repository."""
    return [{"name": name, "version": version, "state": "READY", "reason": ""}]


def check_model(sent: str, name: str, sent_version: str | None, version: str) -> None:
    """Raise NotFound where a path names another model, or another version of it."""
    if sent != name:
        raise NotFound(f"there is no model {sent[:100]!r}; the one served here is {name!r}")
    if sent_version not in (None, version):
        raise NotFound(
            f"model {name!r} has no version {sent_version[:100]!r}; the one served is {version!r}"
        )


@dataclass(frozen=True)
class _Tensor:
    """An input: its cells, row by row, as JSON has them or as an array."""

    name: str
    datatype: str
    n_rows: int
    n_columns: int
    cells: Sequence[Any] | NDArray[Any]
    is_column: bool
    """Whether its content type says that it is a column of a data frame."""

    def table(self, limits: Limits) -> RawTable:
        """Return the table; its column has a name where it is a data frame's."""
        names = (self.name,) if self.is_column else ()
        try:
            table = RawTable.flat(self.cells, (self.n_rows, self.n_columns), names, limits)
            if self.datatype not in _UNCHECKED:
                values = table.numbers().values
                _check_type(values, self.cells, self.datatype)
                table = RawTable(values, names)
        except Refusal as refusal:
            raise type(refusal)(f"input {self.name!r}: {refusal}") from refusal
        return table


def _json_length(json_length: str, body: bytes) -> int:
    if not _COUNT.fullmatch(json_length) or int(json_length) > len(body):
        raise BadInput(
            f"{JSON_LENGTH} is a number of bytes up to the body's {len(body):,}, "
            f"not {json_length[:20]!r}"
        )
    return int(json_length)


def _decode(value: Any, raw: bytes, limits: Limits) -> Request:
    if not isinstance(value, dict):
        raise BadInput(f"an inference request is a JSON object, as in {EXAMPLE}")
    if not isinstance(value.get("id"), str | None):
        raise BadInput("id is not a string")
    parameters = _parameters(value, "the request")
    inputs = value.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise BadInput(f"there are no inputs; send {EXAMPLE}")
    if len(inputs) > limits.columns:
        raise TooLarge(f"{count(len(inputs), 'input')} in one request; at most {limits.columns:,}")
    tensors = list(_decode_inputs(inputs, parameters.get("content_type"), raw))
    return Request(
        table=_table(tensors, limits),
        id=value.get("id") or "",
        outputs=_decode_outputs(value.get("outputs"), parameters),
        is_line=len(inputs) == 1 and len(inputs[0]["shape"]) == 1,
    )


def _table(tensors: list[_Tensor], limits: Limits) -> RawTable:
    first, several = tensors[0], len(tensors) > 1
    for tensor in tensors:
        if tensor.n_columns != 1 and (several or tensor.is_column):
            which = "each of several inputs" if several else "an input of content_type pd"
            raise BadInput(
                f"input {tensor.name!r} has {count(tensor.n_columns, 'column')}; "
                f"{which} is one column, of the shape [n] or [n, 1]"
            )
        if tensor.n_rows != first.n_rows:
            raise BadInput(
                f"input {tensor.name!r} has {count(tensor.n_rows, 'row')}, "
                f"input {first.name!r} has {first.n_rows:,}"
            )
    if not several:
        return first.table(limits)
    names = tuple(tensor.name for tensor in tensors)
    columns = [tensor.table(limits).cells for tensor in tensors]
    if all(isinstance(column, np.ndarray) for column in columns):
        return RawTable(np.column_stack(columns), names)
    lists = (np.ravel(c).tolist() if isinstance(c, np.ndarray) else c for c in columns)
    cells = list(chain.from_iterable(zip(*lists, strict=True)))
    return RawTable(cells, names, (first.n_rows, len(tensors)))


def _decode_inputs(inputs: list[Any], content_type: str | None, raw: bytes) -> Iterator[_Tensor]:
    """Read the inputs in order; `raw` holds the bytes of the binary ones, one after another."""
    start = 0
    for i, value in enumerate(inputs):
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise BadInput(f"input {i} is not an object with a name, as in {EXAMPLE}")
        name, place = value["name"], f"input {value['name'][:100]!r}"
        parameters = _parameters(value, place)
        datatype = _decode_datatype(value.get("datatype"), place)
        kind = parameters.get("content_type", content_type)
        if kind == "str" and datatype == "BYTES":  # says no more, so the request's type stands
            kind = content_type if content_type != "str" else None
        if kind not in _CONTENT_TYPES:
            raise BadInput(
                f"{place}: content_type {repr(kind)[:40]} is not read here; "
                "np and pd are, and str for BYTES"
            )
        n_rows, n_columns = _decode_shape(value.get("shape"), place)
        cells: Sequence[Any] | NDArray[Any]
        if "binary_data_size" in parameters:
            if "data" in value:
                raise BadInput(f"{place} has both data and binary_data_size")
            size = parameters["binary_data_size"]
            if type(size) is not int or not 0 <= size <= len(raw) - start:
                raise BadInput(
                    f"{place}: binary_data_size is {size!r}; "
                    f"{count(len(raw) - start, 'byte')} are left of the body"
                )
            cells = _read_binary(raw[start : start + size], datatype, place)
            start += size
        else:
            if "shared_memory_region" in parameters:
                raise BadInput(
                    f"{place}: shared_memory_region is not served here; send data, "
                    "or bytes and their binary_data_size"
                )
            cells = _flatten(value.get("data"), n_rows, n_columns, place)
        if len(cells) != n_rows * n_columns:
            raise BadInput(
                f"{place} has {count(len(cells), 'value')} for the shape {value['shape']}"
            )
        yield _Tensor(name, datatype, n_rows, n_columns, cells, kind == "pd")
    if start < len(raw):
        left = count(len(raw) - start, "byte")
        raise BadInput(f"the body goes on after the last binary input, by {left}")


def _parameters(value: dict[str, Any], place: str) -> dict[str, Any]:
    parameters = value.get("parameters")
    if not isinstance(parameters, dict | None):
        raise BadInput(f"the parameters of {place} are not an object")
    return parameters or {}


def _decode_datatype(datatype: Any, place: str) -> str:
    if datatype is None:
        raise BadInput(f"{place} has no datatype; name one, such as FP64")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        hint = nearest(datatype.upper(), DATATYPES) if isinstance(datatype, str) else ""
        raise BadInput(f"{place}: {repr(datatype)[:40]} is no datatype{hint}")
    return datatype


def _decode_shape(shape: Any, place: str) -> tuple[int, int]:
    """Return rows and columns; one dimension is a single column."""
    if shape is None:
        raise BadInput(f"{place} has no shape; it is rows and columns, as in [1, 2]")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise BadInput(f"{place}: shape is not a list of whole numbers")
    if not 1 <= len(shape) <= 2:
        raise BadInput(
            f"{place}: shape has {count(len(shape), 'dimension')}; rows have 2, as in [1, 2]"
        )
    return shape[0], prod(shape[1:])


def _flatten(data: Any, n_rows: int, n_columns: int, place: str) -> list[Any]:
    """Return the cells row by row, of data that is flat or nested."""
    if data is None:
        raise BadInput(f"{place} has no data; it is a list of numbers, as in [1, 2]")
    if not isinstance(data, list):
        raise BadInput(f"{place}: data is not a list")
    if not data or not isinstance(data[0], list):
        return data
    if len(data) != n_rows:
        raise BadInput(f"{place} has {count(len(data), 'row')} of data for {n_rows:,} in its shape")
    for i, row in enumerate(data):
        if not isinstance(row, list) or len(row) != n_columns:
            raise BadInput(f"{place}: row {i} is not a list of {count(n_columns, 'number')}")
    return list(chain.from_iterable(data))


def _read_binary(raw: bytes, datatype: str, place: str) -> list[str] | NDArray[Any]:
    if datatype == "BYTES":
        return list(_read_strings(raw, place))
    kind = _TYPES[datatype]
    if len(raw) % kind.itemsize:
        raise BadInput(f"{place}: {count(len(raw), 'byte')} are no whole number of {datatype}")
    values = np.frombuffer(raw, kind)
    if datatype == "BF16":  # the upper half of a float32
        return (values.astype("<u4") << 16).view("<f4")
    return values


def _read_strings(raw: bytes, place: str) -> Iterator[str]:
    """Read texts, each with its length before it: 4 bytes, little-endian."""
    start = 0
    while start < len(raw):
        if start + 4 > len(raw):
            raise BadInput(f"{place}: its binary data ends early")
        (length,) = struct.unpack_from("<I", raw, start)
        start += 4
        if start + length > len(raw):
            raise BadInput(f"{place}: its binary data ends early")
        yield raw[start : start + length].decode(errors="replace")
        start += length


def _check_type(values: Floats, cells: Sequence[Any] | NDArray[Any], datatype: str) -> None:
    """Raise BadInput for the first value that is none of its datatype; `cells` are as sent."""
    if datatype == "BOOL":
        wrong = (values != 0) & (values != 1)
    elif "INT" in datatype:
        bounds = np.iinfo(_TYPES[datatype])
        beyond = bounds.max + 1.0  # as a float the largest number of 64 bits is this, too
        wrong = (values != np.rint(values)) | (values < bounds.min) | (values > beyond)
        for k in np.flatnonzero((values == beyond) | (values == _LEAST)).tolist():
            wrong.flat[k] = not bounds.min <= Decimal(str(cells[k])) <= bounds.max
    elif datatype in _INFINITE:
        wrong = np.abs(values) >= _INFINITE[datatype]
    else:
        return
    wrong &= ~np.isnan(values)  # a missing value
    if wrong.any():
        i, j = np.argwhere(wrong)[0].tolist()
        raise BadInput(f"row {i}, column {j}: {values[i, j]} is not of the datatype {datatype}")


def _decode_outputs(outputs: Any, parameters: dict[str, Any]) -> dict[str, bool]:
    default = parameters.get("binary_data_output") is True
    if outputs is None or outputs == []:
        return {name: default for name in OUTPUTS if name != CONTRIBUTIONS}
    if not isinstance(outputs, list):
        raise BadInput("outputs is not a list")
    wanted = {}
    for i, output in enumerate(outputs):
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise BadInput(f"output {i} is not an object with a name")
        name = output["name"]
        if name not in OUTPUTS:
            known = ", ".join(OUTPUTS)
            raise BadInput(
                f"there is no output {name[:100]!r}{nearest(name, list(OUTPUTS))}; "
                f"the outputs are {known}"
            )
        settings = _parameters(output, f"output {name!r}")
        for key in ("classification", "shared_memory_region"):
            if settings.get(key):
                raise BadInput(f"output {name!r}: {key} is not served here")
        wanted[name] = settings.get("binary_data", default) is True
    return wanted


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}
