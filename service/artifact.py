"""A model file and its card, read into a `Model`.

The card of `model.pickle` is `model.json`: what training knew of the forest, and the SHA-256 of the
file that it describes.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import warnings
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from sklearn.ensemble import IsolationForest

from .errors import BadModel
from .scorer import CompiledForest, compile_forest

logger = logging.getLogger(__name__)

CARD_FORMAT = 1
_QUANTILES = 101  # the minimum, each percentile, the maximum

# numpy 2 renamed its private package; a file may come from either side of that.
_NUMPY_CORE = "numpy._core" if int(np.__version__.split(".")[0]) >= 2 else "numpy.core"

# All that a pickled IsolationForest is made of; anything else is not a model.
_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    (f"{_NUMPY_CORE}.multiarray", "_reconstruct"),
    (f"{_NUMPY_CORE}.multiarray", "scalar"),
    (f"{_NUMPY_CORE}.numeric", "_frombuffer"),
    ("sklearn.ensemble._iforest", "IsolationForest"),
    ("sklearn.tree._classes", "ExtraTreeRegressor"),
    ("sklearn.tree._tree", "Tree"),
}


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
class Judgement:
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
    quality: Judgement | None
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
                quality = Judgement(**quality)
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


@dataclass(frozen=True)
class Model:
    """A forest that can be served. Immutable: a swap replaces the whole."""

    forest: IsolationForest
    scorer: CompiledForest
    version: str
    """The first 12 digits of the file's SHA-256."""
    features: tuple[str, ...]
    named: bool
    """Whether `features` are the training table's own names (else f0, f1, ...)."""
    card: Card | None

    @property
    def column_types(self) -> dict[str, str]:
        """What each column held in training: 'bool', 'int' or 'float', as the card knows it."""
        known = {feature.name: feature.type for feature in self.card.features} if self.card else {}
        return {name: known.get(name, "float") for name in self.features}


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
    return hint is Any or type(value) is hint or (hint is float and type(value) is int)


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


def load_model(path: Path, require_card: bool = False) -> Model:
    """Read a pickled IsolationForest and its card.

    A missing, damaged or foreign card is a warning, unless `require_card`.

    Raises:
        BadModel: no file, no IsolationForest in it, or no matching card where one is required.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadModel(
            f"{path} cannot be read ({error.strerror}); make a model with "
            "`python -m training.train`, or name yours in ISOSERVE_MODEL"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    forest = _unpickle(content, path)
    try:
        card = _read_card(path, digest, forest)
    except ValueError as error:
        if require_card:
            raise BadModel(
                f"{error}; ISOSERVE_REQUIRE_CARD is set, so {path} is refused"
            ) from error
        logger.warning("%s; the model is served without a card", error)
        card = None
    features, named = _feature_names(forest, card)
    return Model(forest, compile_forest(forest), digest[:12], features, named, card)


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the parts of an IsolationForest and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        for twin in ("numpy.core", "numpy._core"):
            if module.startswith(f"{twin}."):
                module = _NUMPY_CORE + module.removeprefix(twin)
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return super().find_class(module, name)


def _unpickle(content: bytes, path: Path) -> IsolationForest:
    try:
        with warnings.catch_warnings():
            # Another version's pickle is told by its scores, not by its version string.
            warnings.simplefilter("ignore")
            forest = _Unpickler(io.BytesIO(content)).load()
    except Exception as error:  # unpickling a damaged file can raise anything
        raise BadModel(f"{path} is not a pickled IsolationForest: {error}") from error
    if type(forest) is not IsolationForest:
        raise BadModel(f"{path} holds a {type(forest).__name__}, not an IsolationForest")
    if not hasattr(forest, "estimators_"):
        raise BadModel(f"{path} holds an IsolationForest that was never fitted")
    return forest


def _read_card(path: Path, digest: str, forest: IsolationForest) -> Card:
    place = card_path(path)
    try:
        card = Card.from_json(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{place} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{place} is damaged ({error})") from error
    if card.files.get(path.name) != digest:
        raise ValueError(f"{place} describes another file than {path}")
    if len(card.features) != forest.n_features_in_:
        raise ValueError(f"{place} names {len(card.features)} features for {forest.n_features_in_}")
    return card


def _feature_names(forest: IsolationForest, card: Card | None) -> tuple[tuple[str, ...], bool]:
    if card is not None:
        return tuple(feature.name for feature in card.features), True
    if hasattr(forest, "feature_names_in_"):
        return tuple(str(name) for name in forest.feature_names_in_), True
    return tuple(f"f{j}" for j in range(forest.n_features_in_)), False
