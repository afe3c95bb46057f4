"""A model file and its card, read into a `Model`.

The card of `model.pickle` is `model.json`: what training knew of the forest, and the SHA-256 of the
file that it describes. A file passes these steps, in this order, or is refused at one of them:

    file      the bytes are read once; all that follows is about them
    sha256    they are those that the operator pinned
    pickle    they are an IsolationForest's and nothing else (`pickles`) ...
    forest    ... and one that can be walked (`trees`); both happen first in a child (`rehearsal`)
    card      the card is about these bytes
    scores    the golden rows of the card score as in training
"""

from __future__ import annotations

import hashlib
import json
import logging
import stat
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import sklearn
from sklearn.ensemble import IsolationForest

from ..errors import BadModel, count
from .checks import check_forest
from .pickles import read_forest, scan
from .sandbox import Fell, rehearse
from .scorer import CompiledForest, compile_forest

logger = logging.getLogger(__name__)

CARD_FORMAT = 1
_QUANTILES = 101  # the minimum, each percentile, the maximum

MOST_BYTES = 256 * 2**20
"""The largest file that is read: some 20,000 trees of 256 samples."""

_MOST_CARD_BYTES = 32 * 2**20  # 4,096 columns are 9 MB

CLOSE = 1e-12
"""How far from training's a score may be where scikit-learn, numpy or the processor are others."""

_MEND = "put back a sound file, or make one with `python -m training.train`"

# In the child a sound file takes a third of this time at most, and of this memory.
_SECONDS, _BYTES_A_SECOND = 2, 16 * 2**20
_MEMORY, _MEMORY_A_BYTE = 512 * 2**20, 8

Tell = Callable[[str, str], None]
"""What is told of each step: its name, and what was found."""


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
        golden = self.golden
        if len(golden.rows) != len(golden.scores) or any(
            len(row) != len(self.features) for row in golden.rows
        ):
            raise ValueError("golden has not a cell for each feature and a score for each row")


@dataclass(frozen=True)
class ModelFile:
    """A model file and its card, each read once."""

    path: Path
    content: bytes
    card: bytes | None
    """None where there is no card, or none that can be read."""

    @cached_property
    def sha256(self) -> str:
        """Of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def read_card(self) -> Card:
        """Return the card; ValueError when it is missing, damaged or about other bytes."""
        place = card_path(self.path)
        if self.card is None:
            raise ValueError(f"{place} cannot be read")
        try:
            card = Card.from_json(self.card.decode())
        except ValueError as error:
            raise ValueError(f"{place} is damaged ({error})") from error
        if card.files.get(self.path.name) != self.sha256:
            raise ValueError(f"{place} describes another file than {self.path}")
        return card


@dataclass(frozen=True, eq=False)
class Model:
    """A forest that can be served. Immutable: a swap replaces the whole."""

    forest: IsolationForest
    scorer: CompiledForest
    sha256: str
    """Of the file, in hexadecimal."""
    features: tuple[str, ...]
    named: bool
    """Whether `features` are the training table's own names (else f0, f1, ...)."""
    card: Card | None

    @property
    def version(self) -> str:
        """The first 12 digits of the file's SHA-256."""
        return self.sha256[:12]

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


def read_model_file(path: Path) -> ModelFile:
    """Read a model file and its card.

    Raises:
        BadModel: there is no such file, or it is too large.
    """
    try:
        content = _read(path, MOST_BYTES)
    except OSError as error:
        raise BadModel(
            f"{path} cannot be read ({error.strerror}); make a model with "
            "`python -m training.train`, or name yours in ISOSERVE_MODEL",
            "file",
        ) from error
    try:
        card = _read(card_path(path), _MOST_CARD_BYTES)
    except OSError:
        card = None
    return ModelFile(path, content, card)


def load_model(path: Path, require_card: bool = False) -> Model:
    """Read and open a model file with its card: `read_model_file` and `open_model` in one."""
    return open_model(read_model_file(path), require_card)


def open_model(
    file: ModelFile,
    require_card: bool = False,
    pinned: str = "",
    passed: bool = False,
    tell: Tell = lambda step, found: None,
) -> Model:
    """Take a model file through all steps and return the model.

    A missing, damaged or foreign card is a warning, unless `require_card`. `pinned` is the SHA-256
    that the file must have, if any. Of a file that has `passed` before, in another process, nothing
    is rehearsed.

    Raises:
        BadModel: the file is refused; `reason` names the step.
    """
    tell("file", f"{file.path}, {len(file.content):,} bytes")
    _check_pin(file, pinned, tell)
    forest = _open_forest(file, passed, tell)
    card = _fitting_card(file, forest, require_card, tell)
    features, named = _feature_names(forest, card)
    model = Model(forest, compile_forest(forest), file.sha256, features, named, card)
    _check_scores(file.path, model, tell)
    return model


def _read(path: Path, most: int) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(None, "it is not a file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(None, f"it is larger than {most:,} bytes")
    return content


def _check_pin(file: ModelFile, pinned: str, tell: Tell) -> None:
    if pinned and file.sha256 != pinned:
        raise BadModel(
            f"{file.path} has the SHA-256 {file.sha256}, and ISOSERVE_MODEL_SHA256 is {pinned}; "
            "put the right file there, or start with that of this one",
            "sha256",
        )
    tell("sha256", f"{file.sha256}, {'as pinned' if pinned else 'not pinned'}")


def _open_forest(file: ModelFile, passed: bool, tell: Tell) -> IsolationForest:
    if not passed:
        try:
            found = rehearse(
                lambda: _examine(file.content),
                _SECONDS + len(file.content) // _BYTES_A_SECOND,
                _MEMORY + _MEMORY_A_BYTE * len(file.content),
            )
        except Fell as error:
            raise BadModel(
                f"{file.path} is damaged or meant to do harm: a child process that read it "
                f"{error}; {_MEND}",
                "crash",
            ) from error
        if "reason" in found:
            raise _refused(file.path, found["reason"], found["text"])
        tell("pickle", f"{found['instructions']:,} instructions, all of an IsolationForest")
    try:
        forest = read_forest(file.content)
    except ValueError as error:
        raise _refused(file.path, "pickle", str(error)) from error
    try:
        trees, nodes = check_forest(forest)
    except ValueError as error:
        raise _refused(file.path, "forest", str(error)) from error
    tell("forest", f"{count(trees, 'tree')}, {count(nodes, 'node')}, {_columns(forest)}: all sound")
    return forest


def _examine(content: bytes) -> dict[str, Any]:
    """Do what a file could be made to crash, and tell what came of it."""
    reason = "pickle"
    try:
        instructions = scan(content)
        forest = read_forest(content)
        reason = "forest"
        check_forest(forest)
    except ValueError as error:
        return {"reason": reason, "text": str(error)}
    return {"instructions": instructions}


def _refused(path: Path, reason: str, text: str) -> BadModel:
    what = {"pickle": "is not a pickled IsolationForest", "forest": "holds no sound forest"}[reason]
    mend = "" if ";" in text else f"; {_MEND}"  # what is mended in another way says how
    return BadModel(f"{path} {what}: {text}{mend}", reason)


def _columns(forest: IsolationForest) -> str:
    return count(int(forest.n_features_in_), "column")


def _fitting_card(
    file: ModelFile, forest: IsolationForest, require_card: bool, tell: Tell
) -> Card | None:
    place = card_path(file.path)
    try:
        card = file.read_card()
        if len(card.features) != forest.n_features_in_:
            raise ValueError(
                f"{place} names {len(card.features)} features for {forest.n_features_in_}"
            )
    except ValueError as error:
        if require_card:
            raise BadModel(
                f"{error}; {file.path} needs the card that was written with it, because "
                "ISOSERVE_REQUIRE_CARD is set or there is another card beside it",
                "card",
            ) from error
        logger.warning("%s; the model is served without a card", error)
        tell("card", f"none: {error}")
        return None
    tell("card", f"{place} is about this file")
    return card


def _feature_names(forest: IsolationForest, card: Card | None) -> tuple[tuple[str, ...], bool]:
    if card is not None:
        return tuple(feature.name for feature in card.features), True
    if hasattr(forest, "feature_names_in_"):
        return tuple(str(name) for name in forest.feature_names_in_), True
    return tuple(f"f{j}" for j in range(forest.n_features_in_)), False


def _check_scores(path: Path, model: Model, tell: Tell) -> None:
    """Hold the model to the golden rows of its card."""
    if model.card is None or not model.card.golden.rows:
        tell("scores", "not compared: no card has golden rows of this file")
        return
    golden = model.card.golden
    scores = model.scorer.decision_function(np.array(golden.rows, dtype=np.float64))
    apart = np.abs(scores - golden.scores)
    wrong = np.flatnonzero(~(apart <= CLOSE))
    if wrong.size:
        row = wrong[0]
        raise BadModel(
            f"{path} does not score as in training: golden row {row} of its card scores "
            f"{scores[row]!r}, not {golden.scores[row]!r}; train it again with scikit-learn "
            f"{sklearn.__version__}, which serves it (training had "
            f"{model.card.versions.get('scikit-learn', 'one unknown')})",
            "scores",
        )
    rows = count(len(scores), "golden row")
    worst = f"equal within {CLOSE:g} (at most {apart.max():.1e} apart)"
    tell("scores", f"{rows}: {worst if apart.any() else 'identical to training'}")
