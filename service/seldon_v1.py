"""Seldon Core v1's messages: pure functions from JSON values to rows and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .counts import Totals
from .errors import BadInput, count
from .rows import Limits, Rows, Verdict

EXAMPLE = '{"data": {"ndarray": [[1, 2]]}}'

_OTHER_PAYLOADS = ("jsonData", "strData", "binData")


@dataclass(frozen=True)
class Message:
    """A Seldon message: its rows, and what its answer repeats."""

    rows: Rows
    payload: dict[str, Any]
    """`{"ndarray": ...}` or `{"tensor": {"shape": ..., "values": ...}}` as it was sent."""
    meta: dict[str, Any]

    @property
    def puid(self) -> str:
        """The id of the prediction; empty when none was sent."""
        return self.meta.get("puid") or ""

    def named(self, new_puid: Callable[[], str]) -> Message:
        """Return the message with the id that it came with, else a new one."""
        if self.puid:
            return self
        return Message(self.rows, self.payload, {**self.meta, "puid": new_puid()})


def decode_message(body: Any, limits: Limits | None = None) -> Message:
    """Read a message with `data.tensor` or `data.ndarray` (the tensor wins, as in Seldon).

    Raises:
        BadInput: not such a message; the text says what to send instead.
        TooLarge: more rows or columns than `limits`.
    """
    if not isinstance(body, dict):
        raise BadInput(f"a Seldon message is a JSON object, as in {EXAMPLE}")
    meta = _decode_meta(body.get("meta"))
    data = body.get("data")
    if not isinstance(data, dict):
        raise BadInput(_no_data(body))
    names = _decode_names(data.get("names"))
    if "tensor" in data:
        return Message(
            _decode_tensor(data["tensor"], names, limits), {"tensor": data["tensor"]}, meta
        )
    if "ndarray" in data:
        rows = Rows.parse(data["ndarray"], names, limits)
        return Message(rows, {"ndarray": data["ndarray"]}, meta)
    raise BadInput(f"data holds neither ndarray nor tensor; send {EXAMPLE}")


def encode_labels(
    message: Message, verdict: Verdict, totals: Totals, with_scores: bool = False
) -> dict[str, Any]:
    """Answer with 1 for each outlier and 0 for each inlier, in the form that was sent."""
    labels = verdict.labels
    tensor = {"tensor": {"shape": [len(labels)], "values": labels}}
    payload = tensor if "tensor" in message.payload else {"ndarray": labels}
    tags = _score_tags(verdict) if with_scores else {}
    return {"data": {"names": [], **payload}, "meta": _encode_meta(message, verdict, totals, tags)}


def encode_rows(
    message: Message, verdict: Verdict, totals: Totals, with_scores: bool = False
) -> dict[str, Any]:
    """Answer with the rows and names as they were sent, and the labels among the tags."""
    tags = {"outlier-predictions": verdict.labels}
    if with_scores:
        tags |= _score_tags(verdict)
    return {
        "data": {"names": list(message.rows.names), **message.payload},
        "meta": _encode_meta(message, verdict, totals, tags),
    }


def encode_health(totals: Totals, threshold: float) -> dict[str, Any]:
    """Answer a health check with the counts so far."""
    return {"strData": "healthy", "meta": {"metrics": encode_gauges(totals, threshold)}}


def encode_metadata(name: str, version: str, features: tuple[str, ...]) -> dict[str, Any]:
    """Describe the model as Seldon's /metadata does."""
    row = {"messagetype": "ndarray", "schema": {"names": list(features), "shape": [len(features)]}}
    label = {"messagetype": "ndarray", "schema": {"shape": [1]}}
    return {
        "custom": {},
        "inputs": [row],
        "name": name,
        "outputs": [label],
        "platform": "isoserve",
        "versions": [version],
    }


def encode_error(text: str, server_fault: bool = False) -> dict[str, Any]:
    """Tell a failure in Seldon's shape."""
    reason = "MICROSERVICE_INTERNAL_ERROR" if server_fault else "MICROSERVICE_BAD_DATA"
    return {"status": {"code": -1, "info": text, "reason": reason, "status": 1}}


def encode_gauges(
    totals: Totals, threshold: float, verdict: Verdict | None = None
) -> list[dict[str, Any]]:
    """Return Seldon's custom metrics; what is not defined yet is left out.

    `is_outlier` and `anomaly_score` are means over the rows of `verdict`.
    """
    values: dict[str, float] = {}
    if verdict is not None:
        values["is_outlier"] = verdict.outliers / len(verdict)
        values["anomaly_score"] = verdict.mean_score
    values["nb_outliers"] = totals.outliers
    if totals.samples:
        values["fraction_outliers"] = totals.outliers / totals.samples
    values["observation"] = totals.samples
    values["threshold"] = threshold
    return [gauge(key, value) for key, value in values.items()]


def gauge(key: str, value: float) -> dict[str, Any]:
    """Return one custom metric of Seldon's."""
    return {"key": key, "type": "GAUGE", "value": value}


def _decode_meta(meta: Any) -> dict[str, Any]:
    if meta is None:
        return {}
    if not isinstance(meta, dict):
        raise BadInput("meta is not an object")
    kinds = {"puid": str, "tags": dict, "metrics": list, "requestPath": dict}
    for key, kind in kinds.items():
        if meta.get(key) is not None and not isinstance(meta[key], kind):
            word = {str: "a string", dict: "an object", list: "a list"}[kind]
            raise BadInput(f"meta.{key} is not {word}")
    return meta


def _decode_names(names: Any) -> tuple[str, ...]:
    if names is None:
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput("data.names is not a list of strings")
    return tuple(names)


def _decode_tensor(tensor: Any, names: tuple[str, ...], limits: Limits | None) -> Rows:
    if not isinstance(tensor, dict) or not {"shape", "values"} <= tensor.keys():
        raise BadInput(
            'data.tensor is an object with shape and values: {"shape": [1, 2], "values": [1, 2]}'
        )
    shape, values = tensor["shape"], tensor["values"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= -1 for n in shape):
        raise BadInput("data.tensor.shape is not a list of whole numbers")
    if len(shape) != 2:
        dimensions = count(len(shape), "dimension")
        raise BadInput(f"data.tensor.shape has {dimensions}; rows have 2, as in [1, 2]")
    if not isinstance(values, list):
        raise BadInput("data.tensor.values is not a list")
    return Rows.parse(_fold(values, *shape), names, limits)


def _fold(values: list[Any], n_rows: int, n_columns: int) -> list[list[Any]]:
    """Cut the flat values of a tensor into rows; one of the two sizes may be -1."""
    if n_columns == -1 and n_rows > 0:
        n_columns = len(values) // n_rows
    if n_rows == -1 and n_columns > 0:
        n_rows = len(values) // n_columns
    if n_rows * n_columns != len(values) or n_rows < 0 or n_columns < 0:
        sizes = f"[{n_rows}, {n_columns}]"
        raise BadInput(f"data.tensor has {count(len(values), 'value')} for the shape {sizes}")
    return [values[i : i + n_columns] for i in range(0, len(values), n_columns or 1)]


def _no_data(body: dict[str, Any]) -> str:
    sent = [key for key in _OTHER_PAYLOADS if key in body]
    return f"{sent[0]} is not served here; send {EXAMPLE}" if sent else f"no data; send {EXAMPLE}"


def _score_tags(verdict: Verdict) -> dict[str, Any]:
    return {"anomaly-scores": verdict.scores, "threshold": verdict.threshold}


def _encode_meta(
    message: Message, verdict: Verdict, totals: Totals, tags: dict[str, Any]
) -> dict[str, Any]:
    gauges = encode_gauges(totals, verdict.threshold, verdict)
    meta: dict[str, Any] = {"metrics": [*(message.meta.get("metrics") or []), *gauges]}
    for key in ("puid", "requestPath"):
        if message.meta.get(key):
            meta[key] = message.meta[key]
    if tags := {**(message.meta.get("tags") or {}), **tags}:
        meta["tags"] = tags
    return meta
