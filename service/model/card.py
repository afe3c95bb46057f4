"""The card of a model file: what training knew of the forest. `model.pickle` has `model.json`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

CARD_FORMAT = 1


_QUANTILES = 101  # the minimum, each percentile, the maximum


@dataclass(frozen=True)
class Feature:
    """One column of the training table."""

    name: str
    type: str
    """What the column held: 'bool', 'int' or 'float'."""
    quantiles: list[float | None]
    """101 values: the minimum, each percentile, the maximum of the training rows."""


@dataclass(frozen=True)
class Golden:
    """Training rows with the exact scores (`decision_function`) that the forest gave them."""

    rows: list[list[float | None]]
    scores: list[float]


@dataclass(frozen=True)
class Evaluation:
    """How well the labels were found; a row is called an outlier when its score is below 0."""

    rows: int
    outliers: int
    """Rows judged, and how many of them their labels call outliers."""
    fresh: bool
    """Whether the forest never saw these rows in training."""
    roc_auc: float
    average_precision: float
    precision: float
    recall: float
    f1: float
    recall_by_kind: dict[str, float] | None
    """Where outliers are of known kinds: the share of each that was found."""


@dataclass(frozen=True)
class Card:
    """What training knew of a model. Floats are exact; a missing value is null."""

    created: str
    """UTC, ISO 8601."""
    dataset: str
    rows: int
    features: list[Feature]
    parameters: dict[str, Any]
    """The hyper-parameters, as scikit-learn's `get_params` has them."""
    seed: int | None
    offset: float
    """scikit-learn's `offset_`: decision_function = score_samples - offset."""
    training_outlier_share: float
    """Share (0 to 1) of the training rows with a score below 0."""
    allow_missing: bool
    score_quantiles: list[float]
    """101 values of `decision_function` over the training rows."""
    golden: Golden
    quality: Evaluation | None
    """None where no labels were known, or only one of the two."""
    versions: dict[str, str]
    files: dict[str, str]
    """File name to SHA-256 (hexadecimal) of each file that this card describes."""
    format: int = CARD_FORMAT

    def to_json(self) -> str:
        """Return the text of the card file: a line a field, a feature and a golden row."""
        return _layout(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read the text of a card file; a damaged one raises ValueError."""
        try:
            found = json.loads(text, parse_constant=_refuse_constant)
            if found["format"] != CARD_FORMAT:
                raise ValueError(f"format {found['format']} is not {CARD_FORMAT}")
            features = [Feature(**feature) for feature in found.pop("features")]
            golden = Golden(**found.pop("golden"))
            quality = found.pop("quality")
            if quality is not None:
                quality = Evaluation(**quality)
            card = cls(features=features, golden=golden, quality=quality, **found)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        card._check()
        return card

    def _check(self) -> None:
        """Raise ValueError for the first field that holds what it should not."""
        if wrong := _misfit(self):
            raise ValueError(f"{wrong} is of the wrong type")
        names = [feature.name for feature in self.features]
        if len(set(names)) < len(names):
            raise ValueError("two features have one name")
        lengths = {len(feature.quantiles) for feature in self.features}
        if lengths | {len(self.score_quantiles)} != {_QUANTILES}:
            raise ValueError(f"there are not {_QUANTILES} quantiles of each feature and the score")
        golden = self.golden
        if len(golden.rows) != len(golden.scores) or any(
            len(row) != len(self.features) for row in golden.rows
        ):
            raise ValueError("golden has not a cell for each feature and a score for each row")


def _misfit(record: Any) -> str | None:
    """Return the name of a dataclass field whose value does not fit its type, if there is one."""
    hints = get_type_hints(type(record))
    for field in fields(record):
        if not _fits(getattr(record, field.name), hints[field.name]):
            return field.name
    return None


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(_fits(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, inner[1]) for item in value.values())
    if is_dataclass(hint):
        return type(value) is hint and _misfit(value) is None
    if hint is float:  # a number beyond its range reads as infinite
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return hint is Any or type(value) is hint


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _layout(value: Any, indent: str = "") -> str:
    """Return JSON that a person can scroll through: lists of numbers stay on one line."""
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
    """Return the place of a model file's card: its stem plus `.json`."""
    return path.with_suffix(".json")
