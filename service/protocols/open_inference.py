"""The Open Inference Protocol, V2, with binary tensors: from bytes to a table and back.

A binary message is its JSON, then the raw bytes of its binary tensors, one after another:
little-endian, row by row, without padding.
"""

import re
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
from .codec import (
    MOST_ITEMS,
    NOT_JSON,
    bounded,
    decode_shape,
    expect,
    parse_json,
    refuse_stray_names,
    render_json,
    require_finite,
)

JSON_LENGTH = "Inference-Header-Content-Length"
"""The header with the number of bytes that the JSON of a binary message has."""

TABLE = "rows"
"""The name of the one input of a model without column names."""

EXAMPLE = '{"inputs": [{"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}'

# name -> (datatype, meaning), in the order of an answer.
OUTPUTS = {
    "predict": ("INT64", "1 for an outlier, 0 for an inlier"),
    "decision_function": ("FP64", "score: lower is more abnormal"),
    "score_samples": ("FP64", "scikit-learn's score_samples: decision_function plus its offset"),
    "pvalue": (
        "FP64",
        "share of rows like the training rows that score at most as high; on request only",
    ),
    "threshold": (
        "FP64",
        "a row is an outlier when its decision_function is below this; on request only, because "
        "it has one value for all rows: every answer has it among its parameters",
    ),
    "contributions": (
        "FP64",
        "each column's share in the row's path length, in steps: negative is more abnormal",
    ),
    "ids": ("BYTES", "the cells of the id column, if they were sent"),
}
CONTRIBUTIONS, THRESHOLD, PVALUE, IDS = "contributions", "threshold", "pvalue", "ids"

_NAMES_STAND = "send one input for each column, named after it"

_DEFAULT_OUTPUTS = ("predict", "decision_function", "score_samples", "ids")
"""The outputs of a request that names none; each has one value a row, as pandas needs it."""

OTHER_OPTIONS = {
    "scores": "ask for the output decision_function, which is there by default",
    "explain": "ask for the output contributions",
    "pvalues": "ask for the output pvalue",
}
"""Options of the other protocols, and what stands in their place."""

# datatype -> the type of its values in a binary tensor.
_TYPES = {
    "BOOL": np.dtype("u1"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    "BF16": np.dtype("<u2"),
}
DATATYPES = [*_TYPES, "BYTES"]
"""The datatypes that an input may have."""

_UNCHECKED = ("FP64", "BYTES")
"""Datatypes that hold any number; the model reads their cells."""

# The smallest numbers that these datatypes round to infinity.
_INFINITE = {"FP16": 65_520.0, "BF16": 2.0**128 - 2.0**119, "FP32": 2.0**128 - 2.0**103}

_INT64_MIN = -(2.0**63)
"""The minimum of INT64 as a float; about a thousand smaller integers are rounded to it."""

_CARD_TYPES = {"bool": "BOOL", "int": "INT64", "text": "BYTES"}


@dataclass(frozen=True)
class Request:
    """An inference request."""

    table: RawTable
    id: str
    """The id of the prediction; empty when none was sent."""
    outputs: Mapping[str, bool]
    """The tensors to answer with, and whether each goes as bytes; ids only if they came."""
    is_line: bool = False
    """Whether its one input has a single dimension, and so is a column."""

    def explain(self, error: BadInput) -> BadInput:
        """Return a refusal of the table; for a shape [n], add what that shape means."""
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
        length = _decode_length(json_length, len(body))
        body, raw = body[:length], body[length:]
    value, refusal = parse_json(body, limits.depth, NOT_JSON, limits.lists)
    request = _decode(value, raw, limits)
    require_finite(request.table, refusal)
    return request


def encode_answer(
    request: Request, id: str, model: str, verdict: Verdict, shares: Floats | None = None
) -> tuple[bytes, int | None]:
    """Return the answer, and how many of its bytes are JSON if some are not.

    The threshold is among its parameters. `id` is the prediction's. `verdict` has its `samples` if
    `request` asks for them. `shares` are the columns' contributions, (n_rows, n_columns).
    """
    values: dict[str, Any] = {
        "predict": verdict.labels,
        "decision_function": verdict.scores,
        "score_samples": verdict.samples,
        PVALUE: verdict.pvalues,
        CONTRIBUTIONS: shares,
    }
    if THRESHOLD in request.outputs:
        values[THRESHOLD] = np.array([verdict.threshold])
    outputs, blobs = [], []
    for name, binary in request.outputs.items():
        if name == IDS:
            continue
        value, datatype = values[name], OUTPUTS[name][0]
        output = _tensor(name, datatype, list(value.shape))
        output["parameters"] = {"content_type": "np"}
        if binary:
            blobs.append(value.astype(_TYPES[datatype], copy=False).tobytes())
            output["parameters"]["binary_data_size"] = len(blobs[-1])
        else:
            output["data"] = value if value.ndim == 1 else value.ravel()
        outputs.append(output)
    if IDS in request.outputs and verdict.ids is not None:
        outputs.append(_encode_ids(verdict.ids, blobs if request.outputs[IDS] else None))
    answer = {
        "id": id,
        "model_name": model,
        "model_version": verdict.version,
        "parameters": {THRESHOLD: verdict.threshold},
        "outputs": outputs,
    }
    text = render_json(answer)
    return b"".join([text, *blobs]), len(text) if blobs else None


def _encode_ids(ids: Sequence[str], blobs: list[bytes] | None) -> dict[str, Any]:
    """Return the output of the ids; `blobs`, if given, gets their bytes, each after its length."""
    output: dict[str, Any] = _tensor(IDS, "BYTES", [len(ids)])
    output["parameters"] = {"content_type": "str"}
    if blobs is None:
        output["data"] = ids
    else:
        texts = [id.encode() for id in ids]
        blobs.append(b"".join(len(text).to_bytes(4, "little") + text for text in texts))
        output["parameters"]["binary_data_size"] = len(blobs[-1])
    return output


def encode_error(text: str, status: int) -> dict[str, Any]:
    """Return a failure in this protocol's form, the same for every status."""
    return {"error": text}


def encode_server(name: str, version: str) -> dict[str, Any]:
    """Describe the server."""
    return {"name": name, "version": version, "extensions": ["binary_tensor_data"]}


def encode_model(
    name: str, version: str, features: Mapping[str, str], named: bool, absent: Sequence[str] = ()
) -> dict[str, Any]:
    """Describe the model; `features` are its columns' names and their types in its card.

    `absent` are outputs that it cannot give.

    A model whose columns have names takes one input for each column, else a single table.
    """
    width = len(features)
    columns = [
        _tensor(column, _CARD_TYPES.get(kind, "FP64"), [-1]) for column, kind in features.items()
    ]
    shapes = {THRESHOLD: [1], CONTRIBUTIONS: [-1, width]}
    outputs = [
        {**_tensor(output, datatype, shapes.get(output, [-1])), "parameters": {"meaning": meaning}}
        for output, (datatype, meaning) in OUTPUTS.items()
        if output not in absent
    ]
    return {
        "name": name,
        "versions": [version],
        "platform": "sklearn_pickle",
        "inputs": columns if named else [_tensor(TABLE, "FP64", [-1, width])],
        "outputs": outputs,
    }


def check_index(value: Any) -> None:
    """Check the body of a request for the index: the one model is always ready."""
    if not isinstance(value, dict) or not isinstance(value.get("ready", False), bool):
        raise BadInput('the body is empty or an object, as in {"ready": true}')


def encode_index(name: str, version: str) -> list[dict[str, Any]]:
    """Return the index: the one model of the repository."""
    return [{"name": name, "version": version, "state": "READY", "reason": ""}]


def check_model(name: str, served: str, version: str | None, served_version: str) -> None:
    """Raise NotFound where a path names another model, or another version of it."""
    if name != served:
        raise NotFound(f"there is no model {name[:100]!r}; the one served here is {served!r}")
    if version not in (None, served_version):
        fault = f"has no version {version[:100]!r}; the one served is {served_version!r}"
        raise NotFound(f"model {served!r} {fault}")


@dataclass(frozen=True)
class _Tensor:
    """An input."""

    name: str
    datatype: str
    shape: tuple[int, int]
    """Rows and columns."""
    cells: Sequence[Any] | NDArray[Any]
    """The values, row by row."""
    is_column: bool
    """Whether its content type says that it is a column of a data frame."""

    def table(self, limits: Limits) -> RawTable:
        """Return the table; its column has a name where it is a data frame's."""
        names = (self.name,) if self.is_column else ()
        try:
            table = RawTable.flat(self.cells, self.shape, names, limits)
            if self.datatype not in _UNCHECKED:
                values = table.numbers().values
                _check_type(values, self.cells, self.datatype)
                table = RawTable(values, names)
        except Refusal as refusal:
            raise type(refusal)(f"input {self.name!r}: {refusal}") from refusal
        return table


def _decode_length(text: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) > most:
        raise BadInput(
            f"{JSON_LENGTH} is a number of bytes up to the body's {most:,}, not {text[:20]!r}"
        )
    return int(text)


def _decode(value: Any, raw: bytes, limits: Limits) -> Request:
    expect(value, dict, f"an inference request is a JSON object, as in {EXAMPLE}")
    id = expect(value.get("id"), str | None, "id is not a string") or ""
    parameters = _parameters(value, "the request")
    _refuse_options(parameters)
    inputs = value.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise BadInput(f"there are no inputs; send {EXAMPLE}")
    if len(inputs) > limits.columns:
        raise TooLarge(f"{count(len(inputs), 'input')} in one request; at most {limits.columns:,}")
    table = _join(_decode_inputs(inputs, parameters.get("content_type"), raw), limits)
    outputs = _decode_outputs(value.get("outputs"), parameters)
    return Request(table, id, outputs, len(inputs) == 1 and len(inputs[0]["shape"]) == 1)


def _join(tensors: list[_Tensor], limits: Limits) -> RawTable:
    """Return one table of all inputs."""
    first, *others = tensors
    n_rows = first.shape[0]
    for tensor in tensors:
        label, (length, width) = f"input {tensor.name!r}", tensor.shape
        if width != 1 and (others or tensor.is_column):
            which = "each of several inputs" if others else "an input of content_type pd"
            rule = f"{which} is one column, of the shape [n] or [n, 1]"
            raise BadInput(f"{label} has {count(width, 'column')}; {rule}")
        if length != n_rows:
            found = count(length, "row")
            raise BadInput(f"{label} has {found}, input {first.name!r} has {n_rows:,}")
    if not others:
        return first.table(limits)
    names = tuple(tensor.name for tensor in tensors)
    columns = [tensor.table(limits).cells for tensor in tensors]
    if all(isinstance(column, np.ndarray) for column in columns):
        return RawTable(np.column_stack(columns), names)
    lists = (np.ravel(c).tolist() if isinstance(c, np.ndarray) else c for c in columns)
    cells = list(chain.from_iterable(zip(*lists, strict=True)))
    return RawTable(cells, names, (n_rows, len(tensors)))


def _decode_inputs(inputs: list[Any], content_type: str | None, raw: bytes) -> list[_Tensor]:
    """Read the inputs in order; `raw` holds the bytes of the binary ones, one after another."""
    tensors, left = [], memoryview(raw)
    for i, value in enumerate(inputs):
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise BadInput(f"input {i} is not an object with a name, as in {EXAMPLE}")
        tensor, left = _decode_input(value, content_type, left)
        tensors.append(tensor)
    if left:
        after = count(len(left), "byte")
        raise BadInput(f"the body goes on after the last binary input, by {after}")
    return tensors


def _decode_input(
    value: dict[str, Any], content_type: str | None, raw: memoryview
) -> tuple[_Tensor, memoryview]:
    """Read an input; return it and the rest of `raw`, the bytes of the next inputs."""
    label = f"input {value['name'][:100]!r}"
    parameters = _parameters(value, label)
    datatype = _decode_datatype(value.get("datatype"), label)
    is_column = _is_column(parameters, content_type, datatype, label)
    shape = _decode_shape(value.get("shape"), label)
    cells: Sequence[Any] | NDArray[Any]
    if "binary_data_size" in parameters:
        if "data" in value:
            raise BadInput(f"{label} has both data and binary_data_size")
        size, left = parameters["binary_data_size"], count(len(raw), "byte")
        if type(size) is not int or not 0 <= size <= len(raw):
            raise BadInput(f"{label}: binary_data_size is {size!r}; {left} are left of the body")
        cells, raw = _read_binary(raw[:size], datatype, label), raw[size:]
    elif "shared_memory_region" in parameters:
        advice = "send data, or bytes and their binary_data_size"
        raise BadInput(f"{label}: shared_memory_region is not served here; {advice}")
    else:
        cells = _flatten(value.get("data"), *shape, label)
    if len(cells) != prod(shape):
        raise BadInput(f"{label} has {count(len(cells), 'value')} for the shape {value['shape']}")
    return _Tensor(value["name"], datatype, shape, cells, is_column), raw


def _parameters(value: dict[str, Any], label: str) -> dict[str, Any]:
    """Return the parameters of a request, an input or an output."""
    refuse_stray_names(value, label, _NAMES_STAND)
    if "parameters" not in value:
        return {}
    label = f"the parameters of {label}"
    parameters: dict[str, Any] = (
        expect(value["parameters"], dict | None, f"{label} are not an object") or {}
    )
    refuse_stray_names(parameters, label, _NAMES_STAND)
    return parameters


def _refuse_options(parameters: dict[str, Any]) -> None:
    """Refuse the options of other protocols, which have their outputs here."""
    for option, advice in OTHER_OPTIONS.items():
        if parameters.get(option):
            raise BadInput(f"{option} is no parameter here; {advice}")


def _is_column(parameters: dict[str, Any], default: Any, datatype: str, label: str) -> bool:
    """Return whether the content type of an input makes it a column of a data frame."""
    content_type = parameters.get("content_type", default)
    if content_type == "str" and datatype == "BYTES":  # says nothing new: the default counts
        content_type = default if default != "str" else None
    if content_type not in (None, "np", "pd"):
        fault = f"{repr(content_type)[:40]} is not read here; np and pd are, and str for BYTES"
        raise BadInput(f"{label}: content_type {fault}")
    return bool(content_type == "pd")


def _decode_datatype(datatype: Any, label: str) -> str:
    if datatype is None:
        raise BadInput(f"{label} has no datatype; name one, such as FP64")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        hint = nearest(datatype.upper(), DATATYPES) if isinstance(datatype, str) else ""
        raise BadInput(f"{label}: {repr(datatype)[:40]} is no datatype{hint}")
    return datatype


def _decode_shape(shape: Any, label: str) -> tuple[int, int]:
    """Return rows and columns; one dimension is a single column."""
    if shape is None:
        raise BadInput(f"{label} has no shape; it is rows and columns, as in [1, 2]")
    sides = decode_shape(shape, f"{label}: shape", 0, (1, 2))
    return sides[0], prod(sides[1:])


def _flatten(data: Any, n_rows: int, n_columns: int, label: str) -> list[Any]:
    """Return the values of data, which is flat or nested, row by row."""
    if data is None:
        raise BadInput(f"{label} has no data; it is a list of numbers, as in [1, 2]")
    cells: list[Any] = expect(data, list, f"{label}: data is not a list")
    if not cells or not isinstance(cells[0], list):
        return cells
    if len(cells) != n_rows:
        found = count(len(cells), "row")
        raise BadInput(f"{label} has {found} of data for {n_rows:,} in its shape")
    for i, row in enumerate(cells):
        if not isinstance(row, list) or len(row) != n_columns:
            raise BadInput(f"{label}: row {i} is not a list of {count(n_columns, 'number')}")
    return list(chain.from_iterable(cells))


def _read_binary(raw: memoryview, datatype: str, label: str) -> list[str] | NDArray[Any]:
    if datatype == "BYTES":
        return list(_read_strings(raw, label))
    stored = _TYPES[datatype]
    if len(raw) % stored.itemsize:
        raise BadInput(f"{label}: {count(len(raw), 'byte')} are no whole number of {datatype}")
    values = np.frombuffer(raw, stored)
    if datatype == "BF16":  # the upper half of a float32
        return (values.astype("<u4") << 16).view("<f4")
    return values


def _read_strings(raw: memoryview, label: str) -> Iterator[str]:
    """Read texts, each with its length before it: 4 bytes, little-endian."""
    data, at, end = bytes(raw), 0, len(raw)
    while at < end:
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        if at > end or start > end:
            raise BadInput(f"{label}: its binary data ends early")
        yield data[start:at].decode(errors="replace")


def _check_type(values: Floats, cells: Sequence[Any] | NDArray[Any], datatype: str) -> None:
    """Raise BadInput for the first value that its datatype cannot hold; `cells` are as sent."""
    if datatype == "BOOL":
        wrong = (values != 0) & (values != 1)
    elif "INT" in datatype:
        bounds = np.iinfo(_TYPES[datatype])
        beyond = bounds.max + 1.0  # the largest number of 64 bits is rounded to this
        wrong = (values != np.rint(values)) | (values < bounds.min) | (values > beyond)
        exact = (
            isinstance(cells, np.ndarray) and cells.dtype == _TYPES[datatype]
        )  # so none is wrong
        edge = (values == beyond) | (values == _INT64_MIN)
        for k in [] if exact else np.flatnonzero(edge).tolist():
            wrong.flat[k] = not bounds.min <= Decimal(str(cells[k])) <= bounds.max
    else:
        wrong = np.abs(values) >= _INFINITE[datatype]
    wrong &= ~np.isnan(values)  # a missing value
    if wrong.any():
        i, j = np.argwhere(wrong)[0].tolist()
        raise BadInput(f"row {i}, column {j}: {values[i, j]} is not of the datatype {datatype}")


def _decode_outputs(outputs: Any, parameters: dict[str, Any]) -> dict[str, bool]:
    """Return the names of the outputs to send, and whether each is sent as bytes."""
    default = parameters.get("binary_data_output") is True
    if outputs is None or outputs == []:
        return dict.fromkeys(_DEFAULT_OUTPUTS, default)
    wanted: dict[str, bool] = {}
    bounded(len(expect(outputs, list, "outputs is not a list")), MOST_ITEMS, "outputs")
    for i, output in enumerate(outputs):
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise BadInput(f"output {i} is not an object with a name")
        name = output["name"]
        if name not in OUTPUTS:
            hint = nearest(name, list(OUTPUTS))
            names = ", ".join(OUTPUTS)
            raise BadInput(f"there is no output {name[:100]!r}{hint}; the outputs are {names}")
        if name in wanted:
            raise BadInput(f"output {name!r} is asked for twice")
        settings = _parameters(output, f"output {name!r}")
        for key in ("classification", "shared_memory_region"):
            if settings.get(key):
                raise BadInput(f"output {name!r}: {key} is not served here")
        wanted[name] = settings.get("binary_data", default) is True
    return wanted


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}
