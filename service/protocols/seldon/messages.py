"""Seldon Core v1's messages: pure functions from JSON values to rows and back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ...errors import BadInput, count
from ...rows import Limits, RawTable, Totals, Verdict
from ..codec import (
    MOST_ITEMS,
    bounded,
    decode_names,
    decode_records,
    decode_shape,
    expect,
    is_records,
    refuse_stray_names,
    require_finite,
)
from .envelope import read_json
from .gauges import encode_gauges

EXAMPLE = '{"data": {"ndarray": [[1, 2]]}}'

_NO_MESSAGE = f"a Seldon message is a JSON object, as in {EXAMPLE}"

_NAMES_STAND = 'names of columns stand in data.names: {"names": ["a", "b"], "ndarray": [[1, 2]]}'

_NO_TAGS: Mapping[str, Any] = MappingProxyType({})

# field of meta -> its type, and that type in a sentence.
_META = {
    "puid": (str, "a string"),
    "tags": (dict, "an object"),
    "metrics": (list, "a list"),
    "requestPath": (dict, "an object"),
}


@dataclass(slots=True)
class Message:
    """A Seldon message: its table, and what its answer repeats."""

    table: RawTable
    ndarray: Any
    """`data.ndarray` as it was sent; None where the rows came in another form."""
    meta: dict[str, Any]

    @property
    def puid(self) -> str:
        """The id of the prediction; empty when none was sent."""
        return self.meta.get("puid") or ""


def name_meta(
    meta: dict[str, Any], new_puid: Callable[[], str], unit: Mapping[str, str]
) -> dict[str, Any]:
    """Return a meta with a prediction's id: its own or, if it has none, a new one.

    `unit`, this service's name and image, is added to the units that the message came through.
    """
    if not meta.get("puid"):
        meta = {**meta, "puid": new_puid()}
    if unit:
        meta = {**meta, "requestPath": {**unit, **(meta.get("requestPath") or {})}}
    return meta


def decode_request(body: bytes, content_type: str, query: str, limits: Limits) -> Message:
    """Read the message of a request (see `read_json`); raises as `decode_message` does."""
    value, refusal = read_json(content_type, query, body, limits)
    message = decode_message(value, limits)
    require_finite(message.table, refusal)
    return message


def decode_message(body: Any, limits: Limits) -> Message:
    """Read a message; of `data.tensor`, `data.ndarray` and `jsonData` the first present counts.

    Raises:
        BadInput: not such a message; the text says what to send instead.
        TooLarge: more rows or columns than `limits`.
    """
    meta = _decode_meta(expect(body, dict, _NO_MESSAGE).get("meta"))
    refuse_stray_names(body, "the message", _NAMES_STAND)
    data = body.get("data")
    if isinstance(data, dict):
        return _decode_data(data, meta, limits)
    if data is None and body.get("jsonData") is not None:
        return Message(_decode_json_data(body["jsonData"], limits), None, meta)
    if data is not None:
        raise BadInput(f"data is not an object; send {EXAMPLE}")
    field = next((f"{key} is not served here" for key in _payload(body)), "no data")
    raise BadInput(f"{field}; send {EXAMPLE}")


def decode_echo(
    body: bytes, content_type: str, query: str, limits: Limits
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a message that is only passed on: any payload, and its meta."""
    value, refusal = read_json(content_type, query, body, limits)
    payload = _payload(expect(value, dict, _NO_MESSAGE))
    if not payload:
        raise BadInput(f"no data; send {EXAMPLE}")
    meta = _decode_meta(value.get("meta"))
    if refusal:
        raise refusal
    return payload, meta


def encode_labels(
    message: Message, verdict: Verdict, totals: Totals, tags: Mapping[str, Any] = _NO_TAGS
) -> dict[str, Any]:
    """Answer with 1 for each outlier and 0 for each inlier, as an ndarray if one was sent."""
    labels = verdict.labels if len(verdict) > 1 else [verdict.outliers]
    data: dict[str, Any] = {"names": []}
    if message.ndarray is not None:
        data["ndarray"] = labels
    else:
        data["tensor"] = {"shape": [len(labels)], "values": labels}
    gauges = encode_gauges(totals, verdict.threshold, verdict)
    return {"data": data, "meta": _encode_meta(message.meta, gauges, tags)}


def encode_rows(
    message: Message, verdict: Verdict, totals: Totals, tags: Mapping[str, Any] = _NO_TAGS
) -> dict[str, Any]:
    """Answer with the rows and names, and the labels among the tags.

    An ndarray is returned as it was sent; other rows become a tensor if they are numbers.
    """
    data: dict[str, Any] = {"names": list(message.table.names)}
    if message.ndarray is not None:
        data["ndarray"] = message.ndarray
    elif (values := message.table.floats()) is not None:
        data["tensor"] = {"shape": list(values.shape), "values": values.ravel()}
    else:
        data["ndarray"] = list(zip(*message.table.columns(), strict=True))
    tags = {"outlier-predictions": verdict.labels, **tags}
    gauges = encode_gauges(totals, verdict.threshold, verdict)
    return {"data": data, "meta": _encode_meta(message.meta, gauges, tags)}


def encode_echo(
    payload: dict[str, Any], meta: dict[str, Any], totals: Totals, threshold: float
) -> dict[str, Any]:
    """Return a message as it came, with the counts so far; its rows are not scored."""
    return {**payload, "meta": _encode_meta(meta, encode_gauges(totals, threshold), _NO_TAGS)}


def id_tags(verdict: Verdict) -> dict[str, Any]:
    """Return the tag with the ids that came with the rows, if any."""
    return {} if verdict.ids is None else {"ids": verdict.ids}


def score_tags(verdict: Verdict) -> dict[str, Any]:
    """Return the tags of `?scores=1`: the exact score of each row, and the threshold."""
    return {"anomaly-scores": verdict.scores, "threshold": verdict.threshold}


def pvalue_tags(verdict: Verdict) -> dict[str, Any]:
    """Return the tag of `?pvalues=1`: the p-value of each row, if it was asked for."""
    return {} if verdict.pvalues is None else {"p-values": verdict.pvalues}


def encode_health(totals: Totals, threshold: float) -> dict[str, Any]:
    """Answer a health check with the counts so far."""
    return {"strData": "healthy", "meta": {"metrics": encode_gauges(totals, threshold)}}


def encode_metadata(
    name: str, version: str, features: tuple[str, ...], custom: Mapping[str, float]
) -> dict[str, Any]:
    """Describe the model as Seldon's /metadata does; there `custom` has texts only."""
    row = {"messagetype": "ndarray", "schema": {"names": list(features), "shape": [len(features)]}}
    label = {"messagetype": "ndarray", "schema": {"shape": [1]}}
    return {
        "custom": {key: repr(value) for key, value in custom.items()},
        "inputs": [row],
        "name": name,
        "outputs": [label],
        "platform": "isoserve",
        "versions": [version],
    }


def encode_error(text: str, status: int) -> dict[str, Any]:
    """Return a failure in Seldon's form."""
    reason = "MICROSERVICE_INTERNAL_ERROR" if status >= 500 else "MICROSERVICE_BAD_DATA"
    return {"status": {"code": -1, "info": text, "reason": reason, "status": 1}}


def _payload(body: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a message that hold data; most have one."""
    fields = ("data", "jsonData", "strData", "binData")
    return {key: body[key] for key in fields if body.get(key) is not None}


def _decode_json_data(rows: Any, limits: Limits) -> RawTable:
    """Read rows from `jsonData`: lists of cells, or objects with the same keys."""
    if is_records(rows):
        return decode_records(rows, "jsonData", limits)
    return RawTable.nested(rows, (), limits)


def _decode_data(data: dict[str, Any], meta: dict[str, Any], limits: Limits) -> Message:
    refuse_stray_names(data, "data", _NAMES_STAND, read="names")
    names = decode_names(data.get("names"), "data.names", limits.columns)
    if "tensor" in data:
        return Message(_decode_tensor(data["tensor"], names, limits), None, meta)
    if "ndarray" in data:
        table = RawTable.nested(data["ndarray"], names, limits)
        return Message(table, data["ndarray"], meta)
    if "tftensor" in data:
        raise BadInput(f"data.tftensor is not served here; send {EXAMPLE}")
    raise BadInput(f"data holds neither ndarray nor tensor; send {EXAMPLE}")


def _decode_meta(meta: Any) -> dict[str, Any]:
    if meta is None:
        return {}
    fields: dict[str, Any] = expect(meta, dict, "meta is not an object")
    for key, (kind, words) in _META.items():
        value = expect(fields.get(key), kind | None, f"meta.{key} is not {words}")
        if key != "puid":
            bounded(len(value or ()), MOST_ITEMS, f"entries in meta.{key}")
        if value and not _is_finite(value):
            raise BadInput(f"meta.{key} holds NaN, which is no number")
    return fields


def _is_finite(value: Any) -> bool:
    """Return whether a JSON value holds no NaN: the answer repeats it, and JSON has no NaN."""
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _decode_tensor(tensor: Any, names: tuple[str, ...], limits: Limits) -> RawTable:
    if not isinstance(tensor, dict) or not {"shape", "values"} <= tensor.keys():
        raise BadInput(
            'data.tensor is an object with shape and values: {"shape": [1, 2], "values": [1, 2]}'
        )
    values, shape = tensor["values"], decode_shape(tensor["shape"], "data.tensor.shape", -1, (2,))
    expect(values, list, "data.tensor.values is not a list")
    n_rows, n_columns = _open_sides(len(values), *shape)
    if n_rows * n_columns != len(values) or min(n_rows, n_columns) < 0:
        sizes = f"[{n_rows}, {n_columns}]"
        raise BadInput(f"data.tensor has {count(len(values), 'value')} for the shape {sizes}")
    return RawTable.flat(values, (n_rows, n_columns), names, limits)


def _open_sides(n_values: int, n_rows: int, n_columns: int) -> tuple[int, int]:
    """Return a shape with a side of -1 replaced by the length that the values imply."""
    if n_columns == -1 and n_rows > 0:
        n_columns = n_values // n_rows
    if n_rows == -1 and n_columns > 0:
        n_rows = n_values // n_columns
    return n_rows, n_columns


def _encode_meta(
    sent: dict[str, Any], gauges: list[dict[str, Any]], tags: Mapping[str, Any]
) -> dict[str, Any]:
    meta: dict[str, Any] = {"metrics": [*(sent.get("metrics") or []), *gauges]}
    if puid := sent.get("puid"):
        meta["puid"] = puid
    if units := sent.get("requestPath"):
        meta["requestPath"] = units
    if tags or sent.get("tags"):
        meta["tags"] = {**(sent.get("tags") or {}), **tags}
    return meta
