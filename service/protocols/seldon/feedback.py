"""Seldon Core v1's Feedback message: pure functions from a JSON value and back.

A Feedback has `request`, `response`, `reward` and `truth`; all but the reward are Seldon messages.
As in Seldon, `[]` is an empty message, and a field that Seldon does not have is refused.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from ...cells import parse_number
from ...errors import BadInput, TooLarge, count, nearest
from ...rows import Limits, RawTable, Totals
from ...truths import MILLIONTHS, MOST_REWARD, FeedbackSummary, Statement
from ..codec import MOST_ITEMS, bounded
from .envelope import read_json
from .gauges import encode_gauges, gauge
from .messages import decode_message

EXAMPLE = '{"response": {"meta": {"puid": "..."}}, "truth": {"data": {"ndarray": [0, 1]}}}'

_FIELDS = ("request", "response", "reward", "truth")
_MESSAGE_FIELDS = ("status", "meta", "data", "binData", "strData", "jsonData", "customData")
_DATA_FIELDS = ("names", "ndarray", "tensor")
_META_FIELDS = ("puid", "tags", "routing", "requestPath", "metrics")
_METRIC_FIELDS = ("key", "type", "value", "tags")
_METRIC_TYPES = ("COUNTER", "GAUGE", "TIMER")  # Seldon's messages know them by number, too

_KINDS: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}

# Metrics are 32-bit floats in Seldon's own messages, and so are rewards; larger ones do not fit.
_LARGEST = 3.4028234e38

_ROW_FIELD = "request.meta.tags.row"

MODELS, _MOST_MODELS = "models", 20
"""The tag with the versions of the models that the figures are about, and the most it lists."""


@dataclass(frozen=True)
class Feedback:
    """A message: its statement about a prediction, and the parts that its answer repeats."""

    statement: Statement
    is_array: bool = False
    """Whether the request came as `data.ndarray`; so does the answer then."""
    metrics: tuple[Any, ...] = ()
    path: Mapping[str, Any] = field(default_factory=dict)
    """The `requestPath`."""


def decode_feedback(
    body: bytes, content_type: str, query: str, limits: Limits, new_puid: Callable[[], str]
) -> Feedback:
    """Read the Feedback of a request (see `read_json`); raises as `parse_feedback` does."""
    # A Feedback contains whole messages.
    value, refusal = read_json(content_type, query, body, replace(limits, depth=limits.depth + 1))
    feedback = parse_feedback(value, limits, new_puid)
    if refusal:
        rows = feedback.statement.rows
        where = rows.infinite() if rows else ""
        raise BadInput(f"the request that the feedback carries: {where}") if where else refusal
    return feedback


def parse_feedback(body: Any, limits: Limits, new_puid: Callable[[], str]) -> Feedback:
    """Read a Feedback; `new_puid` makes an id for one that came without.

    Raises:
        BadInput: not such a message; the text says what to send instead.
        TooLarge: more rows or columns than `limits`.
    """
    if not isinstance(body, (dict, list)):
        raise BadInput(f"Invalid JSON: a Feedback is a JSON object, as in {EXAMPLE}")
    message = _check_fields(body, "a Feedback", _FIELDS)
    request, response, truth = (
        _check_fields(message.get(name), name, _MESSAGE_FIELDS)
        for name in ("request", "response", "truth")
    )
    meta = _check_fields(request.get("meta"), "request.meta", _META_FIELDS)
    answered = _check_fields(response.get("meta"), "response.meta", _META_FIELDS)
    row, truths = _decode_row(meta, limits), _decode_truths(truth, limits)
    if row is not None and len(truths) > 1:
        raise BadInput(f"{len(truths):,} truths for the one row that {_ROW_FIELD} names")
    puid, reward = _decode_puid(meta, answered), _decode_reward(message.get("reward"))
    rows, metrics = _decode_rows(request, limits), _decode_metrics(meta)
    path = _get(meta, "request.meta", "requestPath", dict)
    if truths and not puid and rows is None:
        raise BadInput(f"truth about no prediction: send its puid, as in {EXAMPLE}")
    data = request.get("data")
    return Feedback(
        Statement(puid or new_puid(), not puid, row, truths, reward, rows, _ROW_FIELD),
        is_array=isinstance(data, dict) and "tensor" not in data and "ndarray" in data,
        metrics=metrics,
        path=path,
    )


def encode_summary(
    feedback: Feedback,
    totals: Totals,
    threshold: float,
    summary: FeedbackSummary,
    unit: Mapping[str, str],
) -> dict[str, Any]:
    """Answer feedback: no data, and the figures of all feedback among the metrics.

    A tag lists the versions of the models that the figures are about.
    `unit`, this service's name and image, is added to the units that the request came through.
    """
    payload: dict[str, Any] = {"ndarray": []} if feedback.is_array else {"tensor": {"shape": [0]}}
    known = [gauge(key, value) for key, value in summary.gauges().items()]
    gauges = [*feedback.metrics, *encode_gauges(totals, threshold), *known]
    meta: dict[str, Any] = {"metrics": gauges, "puid": feedback.statement.puid}
    if summary.models:
        meta["tags"] = {MODELS: _list_models(summary.models)}
    if path := {**unit, **feedback.path}:
        meta["requestPath"] = path
    return {"data": payload, "meta": meta}


def _list_models(models: Sequence[str]) -> list[str]:
    """Return the versions that the figures are about, of very many the first."""
    more = len(models) - _MOST_MODELS
    return [*models[:_MOST_MODELS], *([f"and {more} more"] if more > 0 else [])]


def _check_fields(value: Any, name: str, fields: Sequence[str]) -> dict[str, Any]:
    """Return an object, after checking its fields; None and `[]` count as an empty one."""
    if value is None or value == []:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"Invalid JSON: {name} is not an object, as in {EXAMPLE}")
    for key in value:
        if key not in fields:
            hint = nearest(key, fields) or f"; it has {', '.join(fields)}"
            raise BadInput(f"Invalid JSON: {name} has no field {key[:40]!r}{hint}")
    return value


def _get(parent: dict[str, Any], name: str, key: str, kind: type) -> Any:
    """Return a field of the object `name`, which must be of this kind; an empty one by default."""
    value = parent.get(key)
    if not isinstance(value, kind | None):
        raise BadInput(f"Invalid JSON: {name}.{key} is not {_KINDS[kind]}")
    return value or kind()


def _decode_puid(meta: dict[str, Any], answered: dict[str, Any]) -> str:
    """Return the puid of the response or the request; empty when neither has one."""
    response: str = _get(answered, "response.meta", "puid", str)
    request: str = _get(meta, "request.meta", "puid", str)
    if response and request and response != request:
        raise BadInput(
            f"response.meta.puid is {response[:50]!r} and request.meta.puid is {request[:50]!r}; "
            "feedback is about one prediction"
        )
    return response or request


def _decode_row(meta: dict[str, Any], limits: Limits) -> int | None:
    row = _get(meta, "request.meta", "tags", dict).get("row")
    if row is None:
        return None
    if isinstance(row, bool) or not isinstance(row, (int, float)) or row != row // 1 or row < 0:
        raise BadInput(f"{_ROW_FIELD} is {str(row)[:40]!r}; it is the number of a row, from 0")
    if row >= limits.rows:
        raise BadInput(
            f"{_ROW_FIELD} is {str(row)[:40]}; a prediction has at most "
            f"{limits.rows:,} rows, counted from 0"
        )
    return int(row)


def _decode_number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        number = parse_number(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"Invalid JSON: {name} is {str(value)[:40]!r}, not a number") from error
    if not math.isfinite(number) or abs(number) > _LARGEST:
        raise BadInput(f"Invalid JSON: {name} is {str(value)[:40]}, not a finite 32-bit number")
    return number


def _decode_reward(value: Any) -> int | None:
    """Read a reward in millionths, exactly as the digits of the number say.

    >>> _decode_reward(0.3)
    300000
    """
    number = _decode_number("reward", value)
    if number is None:
        return None
    if abs(number) > MOST_REWARD:
        raise BadInput(
            f"reward is {str(value)[:40]}; it is a number from -{MOST_REWARD:,} to {MOST_REWARD:,}"
        )
    # A float's repr has the fewest digits that identify it: 0.3 for 0.299999999999999988897769753.
    millionths = Decimal(repr(number)) * MILLIONTHS
    if millionths % 1:
        raise BadInput(f"reward is {str(value)[:40]}; it has at most six digits after the point")
    return int(millionths)


def _decode_metrics(meta: dict[str, Any]) -> tuple[Any, ...]:
    """Read the request's metrics, which must be Seldon's because the answer repeats them."""
    metrics = _get(meta, "request.meta", "metrics", list)
    bounded(len(metrics), MOST_ITEMS, "entries in request.meta.metrics")
    for i, metric in enumerate(metrics):
        name = f"request.meta.metrics[{i}]"
        if not isinstance(metric, dict):
            raise BadInput(f"Invalid JSON: {name} is not an object with key, type and value")
        _check_fields(metric, name, _METRIC_FIELDS)
        _get(metric, name, "key", str)
        kind = metric.get("type")
        if kind not in (None, *_METRIC_TYPES, *range(len(_METRIC_TYPES))):
            known = ", ".join(_METRIC_TYPES)
            raise BadInput(f"Invalid JSON: {name}.type is {str(kind)[:40]!r}, none of {known}")
        _decode_number(f"{name}.value", metric.get("value"))
        tags = metric.get("tags") or {}
        if not isinstance(tags, dict) or not all(isinstance(tag, str) for tag in tags.values()):
            raise BadInput(f"Invalid JSON: {name}.tags is not an object of strings")
    return tuple(metrics)


def _decode_rows(request: dict[str, Any], limits: Limits) -> RawTable | None:
    if not request.get("data") and request.get("jsonData") is None:
        return None
    try:
        table = decode_message(request, limits).table
        table.columns()  # checks their lengths
    except (BadInput, TooLarge) as error:
        raise type(error)(f"the request that the feedback carries: {error}") from error
    return table


def _decode_truths(truth: dict[str, Any], limits: Limits) -> tuple[int, ...]:
    """Read `data.ndarray`, (n,) or (n, 1), or a tensor of such a shape."""
    for name in ("binData", "strData", "jsonData"):
        if truth.get(name) is not None:
            raise BadInput(f"truth.{name} is not read here; send {EXAMPLE}")
    data = _check_fields(truth.get("data"), "truth.data", _DATA_FIELDS)
    values = _decode_tensor(data["tensor"]) if "tensor" in data else data.get("ndarray")
    if values is None and data.keys() <= {"names", "ndarray"}:
        return ()
    if not isinstance(values, list):
        raise BadInput(f"truth is a list with 0 or 1 for each row, as in {EXAMPLE}")
    if len(values) > limits.rows:
        raise TooLarge(f"{count(len(values), 'truth')} in one message; at most {limits.rows:,}")
    plain = [value[0] if type(value) is list and len(value) == 1 else value for value in values]
    if set(map(type, plain)) <= {int, bool} and set(plain) <= {0, 1}:
        return tuple(map(int, plain))  # as nearly all are: ten times faster
    return tuple(_decode_truth(i, value) for i, value in enumerate(values))


def _decode_tensor(tensor: Any) -> Any:
    if not isinstance(tensor, dict) or not isinstance(values := tensor.get("values", []), list):
        raise BadInput("truth.data.tensor is an object with shape and values")
    shape = tensor.get("shape", [len(values)])
    if shape not in ([len(values)], [-1], [len(values), 1], [-1, 1]):
        raise BadInput(
            f"truth.data.tensor has the shape {str(shape)[:40]}; "
            f"its {count(len(values), 'value')} are of the shape [{len(values)}]"
        )
    return values


def _decode_truth(i: int, value: Any) -> int:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    try:
        number = parse_number(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if number == -1:
        raise BadInput(
            f"truth {i} is -1; send 1 for an outlier and 0 for an inlier (scikit-learn's -1 and 1)"
        )
    if number not in (0, 1):
        raise BadInput(
            f"truth {i} is {str(value)[:40]}; send 1 for an outlier and 0 for an inlier; "
            f"to judge one row only, name it in {_ROW_FIELD}"
        )
    return int(number)
