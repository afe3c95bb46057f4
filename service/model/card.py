"""The card of a model file: what training recorded about the forest, as JSON.

pydantic could check the fields, but the component classes read cards where only numpy and numba are
installed.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from .forest import check_names
from .pvalues import kept_ranks

CARD_FORMAT = 2

PARTS = {"hour": range(24), "weekday": range(7), "day": range(1, 32)}
"""The features of a date, and their values; Monday is 0."""

_MOST_RANKED = 2**40  # rows; a damaged number takes no time

_QUANTILES = 101  # the minimum, each percentile, the maximum


@dataclass(frozen=True)
class Column:
    """One column of the training table that is trained on."""

    name: str
    kind: str
    """number, flag, category, text or date: see docs/internals/columns.md."""
    type: str
    """The type of its cells: 'bool', 'int', 'float' or 'text'."""
    missing: int = 0
    """Training rows without a value; requests may miss it too if there are any."""
    quantiles: list[float | None] | None = None
    """Of a number or flag: minimum, percentiles and maximum; None if all are missing."""
    values: dict[str, int] | None = None
    """Of a category or text: the training rows of each value, the most common first."""
    others: int = 0
    """Training rows with a value beyond those that are kept; they count as unknown."""
    format: str | None = None
    """Of a date: how it is written."""
    parts: list[str] | None = None
    """Of a date: its features, of hour, weekday and day."""
    moments: dict[str, list[int]] | None = None
    """Of a date: for each part, the training rows with each of its values, in ascending order."""

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number in training; infinite if they are unknown."""
        low, high = (self.quantiles[0], self.quantiles[-1]) if self.quantiles else (None, None)
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def rows(self) -> int:
        """The number of training rows, of a category or text."""
        return sum((self.values or {}).values()) + self.others + self.missing


@dataclass(frozen=True)
class LeftOut:
    """One column of the training table that is not trained on."""

    name: str
    kind: str
    """id, running number, constant, free text, label or unused."""
    why: str


@dataclass(frozen=True)
class Golden:
    """Training rows and their exact scores (`decision_function`)."""

    rows: list[list[Any]]
    """The cells as a request sends them."""
    encoded: list[list[float | None]] | None
    """The features that they become; None where all columns are numbers."""
    scores: list[float]


@dataclass(frozen=True)
class Calibration:
    """The out-of-bag scores of the training rows: each by the trees that never saw it."""

    rows: int
    """How many training rows have such a score; 0 without p-values."""
    scores: list[float]
    """The lowest 1,000, ascending, and from there one for each percent of rank."""
    without: str
    """Why there are no p-values; empty if there are."""


@dataclass(frozen=True)
class LabelCurve:
    """The labels of the evaluation rows in the order of their scores, lowest first."""

    rows: int
    """The number of labelled rows."""
    held_out: bool
    """Whether they were left out of training; else the scores are out of bag where known."""
    scores: list[float]
    """The lowest 1,000, ascending, and from there one for each percent of rank."""
    found: list[int]
    """How many of the rows up to each score are labelled outliers."""


@dataclass(frozen=True)
class Evaluation:
    """How well the forest finds labelled outliers, at the threshold 0."""

    rows: int
    """The number of evaluation rows."""
    outliers: int
    """How many of them are labelled outliers."""
    held_out: bool
    """Whether the evaluation rows were left out of training."""
    roc_auc: float
    average_precision: float
    precision: float
    recall: float
    f1: float
    recall_by_kind: dict[str, float] | None
    """The share found of each kind of outlier; None if the kinds are unknown."""


@dataclass(frozen=True)
class Card:
    """What training recorded about a model. Floats are exact; a missing value is null."""

    created: str
    """UTC, ISO 8601."""
    dataset: str
    rows: int
    columns: list[Column]
    left_out: list[LeftOut]
    id: str | None
    """The column among those left out that is returned with each answer."""
    decimal: str
    """The decimal mark of the training file, '.' or ','."""
    parameters: dict[str, Any]
    """The hyper-parameters, from scikit-learn's `get_params`."""
    seed: int | None
    offset: float
    """scikit-learn's `offset_`: decision_function = score_samples - offset."""
    training_outlier_share: float
    """Share (0 to 1) of the training rows with a score below 0."""
    score_quantiles: list[float]
    """101 values of `decision_function` over the training rows."""
    golden: Golden
    quality: Evaluation | None
    """None without labels of both kinds."""
    versions: dict[str, str]
    files: dict[str, str]
    """File name to SHA-256 (hexadecimal) of each file that this card describes."""
    calibration: Calibration | None = None
    """None in the card of an earlier version."""
    labels: LabelCurve | None = None
    """None without labels of both kinds."""
    pool: int | None = None
    """How many of the rows the trees grew from, drawn uniformly; not written if it is all."""
    format: int = CARD_FORMAT

    def to_json(self) -> str:
        """Return the text of the card file, with a line for each field, feature and golden row."""
        fields = asdict(self)
        if self.pool is None:
            del fields["pool"]
        return _layout(fields) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read the text of a card file; a damaged one raises ValueError."""
        try:
            found = json.loads(text, parse_constant=_refuse_constant)
            if found["format"] != CARD_FORMAT:
                raise ValueError(
                    f"it is of the format {found['format']}, and this version reads {CARD_FORMAT}: "
                    "train the model again"
                )
            card: Card = _read(cls, found)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            other = f"it is no card of this version ({type(error).__name__}: {error})"
            raise ValueError(f"{other}: train the model again") from error
        card._check_lengths()
        return card

    def _check_lengths(self) -> None:
        names = [column.name for column in self.columns]
        names += [column.name for column in self.left_out]
        check_names(tuple(names))
        if self.decimal not in (".", ","):
            raise ValueError("decimal is neither a point nor a comma")
        if self.id is not None and self.id not in [column.name for column in self.left_out]:
            raise ValueError("the id is not among the columns left out")
        for column in self.columns:
            _check_column(column)
        if len(self.score_quantiles) != _QUANTILES:
            raise ValueError(f"there are not {_QUANTILES} quantiles of the score")
        if self.calibration is not None:
            _check_calibration(self.calibration)
        if self.labels is not None:
            _check_labels(self.labels)
        golden = self.golden
        if len(golden.rows) != len(golden.scores) or any(
            len(row) != len(self.columns) for row in golden.rows
        ):
            raise ValueError("golden needs a cell for each column and a score for each row")


def _check_calibration(found: Calibration) -> None:
    """Raise ValueError where there are not as many scores as rows ask for, in ascending order."""
    if not _are_kept(found.scores, found.rows):
        raise ValueError("the out-of-bag scores are not those of so many rows in ascending order")
    if bool(found.rows) == bool(found.without):
        raise ValueError("there must be out-of-bag scores, or a reason why there are none")


def _check_labels(found: LabelCurve) -> None:
    """Raise ValueError where the counts are not those of rows in ascending order."""
    if not found.rows or not _are_kept(found.scores, found.rows):
        raise ValueError("the labelled scores are not those of so many rows in ascending order")
    steps = np.diff(kept_ranks(found.rows), prepend=0)
    grown = np.diff(found.found, prepend=0) if len(found.found) == len(steps) else steps + 1
    if (grown < 0).any() or (grown > steps).any():
        raise ValueError("the labelled outliers are not counted up to each score")


def _are_kept(scores: list[float], rows: int) -> bool:
    """Tell whether these are the ascending scores that a card keeps of so many rows."""
    ranks = kept_ranks(rows) if 0 <= rows < _MOST_RANKED else (-1,)
    return len(scores) == len(ranks) and scores == sorted(scores)


def _check_column(column: Column) -> None:
    """Raise ValueError where the parts of a column do not fit its kind."""
    name, kind = column.name, column.kind
    if kind in ("number", "flag"):
        sound = column.quantiles is not None and len(column.quantiles) == _QUANTILES
    elif kind in ("category", "text"):
        counts = [column.missing, column.others, *(column.values or {}).values()]
        sound = bool(column.values) and min(counts) >= 0 and min(counts[2:]) > 0
    else:
        sound = kind == "date" and bool(column.parts) and _are_parts(column)
    if not sound:
        raise ValueError(f"the column {name[:40]!r} is not described as a {kind[:20]} is")


def _are_parts(column: Column) -> bool:
    """Tell whether a date has known parts only, and as many counts as each has values."""
    moments = column.moments or {}
    return {*(column.parts or ()), *moments} <= PARTS.keys() and all(
        len(counts) == len(PARTS[part]) and min(counts) >= 0 for part, counts in moments.items()
    )


def _read(hint: Any, value: Any, field: str = "") -> Any:
    """Convert a value from JSON to the type that an annotation names.

    Raises:
        ValueError: it does not fit; the text names the outermost field.
    """
    origin, inner = get_origin(hint), get_args(hint)
    is_record = is_dataclass(hint) and type(value) is dict
    if is_record:
        hints = get_type_hints(hint)
        items = {
            name: _read(hints.get(name, Any), item, field or name) for name, item in value.items()
        }
        return hint(**items)
    if origin is UnionType:  # with None, which comes last
        return None if value is None else _read(inner[0], value, field)
    if origin is list and type(value) is list:
        return [_read(inner[0], item, field) for item in value]
    if origin is dict and type(value) is dict:
        return {key: _read(inner[1], item, field) for key, item in value.items()}
    if hint is float:  # json reads a number beyond the range as infinite
        sound = type(value) in (int, float) and abs(value) <= sys.float_info.max
    else:
        sound = hint in (Any, type(value))
    if not sound:
        raise ValueError(f"{field} is of the wrong type")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _layout(value: Any, indent: str = "") -> str:
    """Return JSON that people can read: lists of numbers stay on one line."""
    deeper = indent + " "
    if isinstance(value, dict) and len(indent) < 2:
        lines = [f"{json.dumps(key)}: {_layout(item, deeper)}" for key, item in value.items()]
        opening, closing = "{}"
    elif isinstance(value, list) and value and isinstance(value[0], dict | list):
        lines = [json.dumps(item, allow_nan=False) for item in value]
        opening, closing = "[]"
    else:
        return json.dumps(value, allow_nan=False)
    inside = ",\n".join(deeper + line for line in lines)
    return f"{opening}\n{inside}\n{indent}{closing}"


def card_path(path: Path) -> Path:
    """Return the path of a model file's card: `model.json` for `model.pickle`."""
    return path.with_suffix(".json")
