"""Read a model file and its card into a `Model`.

A file passes these steps, in this order, or is refused at one of them:

    file      the bytes are read once; all later steps use these bytes
    sha256    the bytes are the ones that the operator pinned
    pickle    they are a pickle or a joblib file of an IsolationForest and nothing else (`pickles`)
    forest    the forest can be scored safely (`checks`)
    card      the card describes these bytes, and does not contradict the forest
    scores    the golden rows of the card score as in training

scikit-learn is not needed, and no code of the file runs.
"""

import hashlib
import io
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, BadModel, count
from ..rows import Floats, RawTable
from .card import Card, card_path
from .checks import check_forest
from .columns import Columns
from .forest import Forest, contradiction, unpack
from .pickles.reader import MOST_BYTES, read_forest
from .scorer import CompiledForest, compile_trees

logger = logging.getLogger(__name__)

_MOST_CARD_BYTES = 32 * 2**20  # the card of 4,096 columns takes 9 MB

CLOSE = 1e-12
"""The tolerance of a score: scikit-learn, numpy or the processor may differ from training's."""

_REMEDY = "put back a sound file, or make one with `python -m training.train`"

_FAULTS = {"pickle": "is not a saved IsolationForest", "forest": "holds no sound forest"}

Report = Callable[[str, str], None]
"""Called after each step with its name and its result."""


@dataclass(frozen=True)
class ModelFile:
    """A model file and its card, each read once."""

    path: Path
    content: bytes
    card: bytes | None
    """None if there is no card, or it cannot be read."""

    @cached_property
    def sha256(self) -> str:
        """The digest of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def read_card(self) -> Card:
        """Return the card; ValueError when it is missing, damaged or about other bytes."""
        path = card_path(self.path)
        if self.card is None:
            raise ValueError(f"{path} cannot be read")
        try:
            card = Card.from_json(self.card.decode())
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error})") from error
        if card.files.get(self.path.name) != self.sha256:
            raise ValueError(f"{path} describes another file than {self.path}")
        return card


@dataclass(frozen=True, eq=False)
class Model:
    """A forest that can be served. Immutable: a reload replaces the whole."""

    scorer: CompiledForest
    sha256: str
    """The digest of the file, in hexadecimal."""
    features: tuple[str, ...]
    """The names of its columns, in the order of the training table."""
    named: bool
    """Whether `features` are the training table's own names (else f0, f1, ...)."""
    knows_gaps: bool
    """Whether the trees know where missing values go; a card says it of each column."""
    card: Card | None

    @cached_property
    def version(self) -> str:
        """The first 12 digits of the file's SHA-256."""
        return self.sha256[:12]

    @property
    def column_types(self) -> dict[str, str]:
        """The type of each column in training, or 'float': 'bool', 'int', 'float' or 'text'."""
        if self.card:
            return {column.name: column.type for column in self.card.columns}
        return dict.fromkeys(self.features, "float")


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
    report: Report = lambda step, result: None,
) -> Model:
    """Take a model file through all steps and return the model.

    A missing, damaged or foreign card only logs a warning, unless `require_card`. A card of this
    file that contradicts the forest is refused. `pinned` is the
    SHA-256 that the file must have, or empty.

    Raises:
        BadModel: the file is refused; `reason` names the step.
    """
    report("file", f"{file.path}, {len(file.content):,} bytes")
    report("sha256", _check_pin(file, pinned))
    forest, kind = _read_forest(file)
    report("pickle", f"{kind}: all of an IsolationForest")
    nodes = count(sum(tree.left.size for tree in forest.trees), "node")
    columns = count(forest.n_features, "column")
    report("forest", f"{count(len(forest.trees), 'tree')}, {nodes}, {columns}: all sound")
    card, result = _read_card(file, forest, require_card)
    report("card", result)
    names = tuple(column.name for column in card.columns) if card else forest.names
    features = names or tuple(f"f{j}" for j in range(forest.n_features))
    scorer = compile_trees(forest)
    model = Model(scorer, file.sha256, features, names is not None, forest.knows_gaps, card)
    report("scores", _check_scores(file.path, model))
    return model


def load_fitted(file: ModelFile) -> Any:
    """Return the fitted forest itself, a `sklearn.ensemble.IsolationForest`, of a checked file.

    ImportError if scikit-learn is not installed.
    """
    import joblib  # noqa: PLC0415 - it comes with scikit-learn, which serving does not need

    _read_forest(file)
    return joblib.load(io.BytesIO(file.content))


def _read(path: Path, most: int) -> bytes:
    # Not blocking: to open a pipe would wait until somebody writes into it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(None, "it is not a file")
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(None, f"it is larger than {most:,} bytes")
    return content


def _check_pin(file: ModelFile, pinned: str) -> str:
    if pinned and file.sha256 != pinned:
        raise BadModel(
            f"{file.path} has the SHA-256 {file.sha256}, and ISOSERVE_MODEL_SHA256 is {pinned}; "
            "put the right file there, or set the SHA-256 of this one and start again",
            "sha256",
        )
    return f"{file.sha256}, {'as pinned' if pinned else 'not pinned'}"


def _read_forest(file: ModelFile) -> tuple[Forest, str]:
    """Return a file's forest, and the kind of the file."""
    with _refusal(file.path, "pickle"):
        fitted, kind = read_forest(file.content)
    with _refusal(file.path, "forest"):
        forest = unpack(fitted)
        check_forest(forest)
    return forest, kind


@contextmanager
def _refusal(path: Path, reason: str) -> Iterator[None]:
    """Raise BadModel in place of a ValueError."""
    try:
        yield
    except ValueError as error:
        remedy = "" if ";" in str(error) else f"; {_REMEDY}"  # some errors name a remedy themselves
        raise BadModel(f"{path} {_FAULTS[reason]}: {error}{remedy}", reason) from error


def _read_card(file: ModelFile, forest: Forest, require_card: bool) -> tuple[Card | None, str]:
    """Return the card, if it can be used, and a sentence about it."""
    path = card_path(file.path)
    try:
        card = file.read_card()
        features = Columns.from_card(card).features
    except ValueError as error:
        if require_card:
            raise BadModel(
                f"{error}; {file.path} needs the card that was written with it, because "
                "ISOSERVE_REQUIRE_CARD is set or there is another card beside it",
                "card",
            ) from error
        logger.warning(
            "%s; the model is served without a card (`python -m training.describe` writes one)",
            error,
        )
        return None, f"none: {error}"
    _check_columns(path, features, forest)
    return card, f"{path} describes this file, {_tell_pvalues(card)}"


def _tell_pvalues(card: Card) -> str:
    """Return what p-values rest on, or why there are none."""
    if card.calibration is None:
        return "without p-values: it is of an earlier version"
    if not card.calibration.rows:
        return f"without p-values: {card.calibration.without}"
    return f"p-values from {count(card.calibration.rows, 'row')}"


def _check_columns(path: Path, names: tuple[str, ...], forest: Forest) -> None:
    """Compare the features that a card describes with the forest's own."""
    fault = contradiction(names, forest)
    if fault:
        raise BadModel(
            f"{path} {fault}; write the card anew: `python -m training.describe MODEL TABLE`",
            "card",
        )


def _check_scores(path: Path, model: Model) -> str:
    """Compare the model's scores of the card's golden rows with training's."""
    if model.card is None or not model.card.golden.rows:
        return "not compared: no card has golden rows of this file"
    golden = model.card.golden
    rows = _encode_golden(path, model.card)
    scores = model.scorer.decision_function(rows)
    apart = np.abs(scores - golden.scores)
    wrong = np.flatnonzero(~(apart <= CLOSE))  # NaN is wrong, too
    if wrong.size:
        row = wrong[0]
        raise BadModel(
            f"{path} does not score as in training: golden row {row} of its card scores "
            f"{scores[row]!r}, not {golden.scores[row]!r}; train it again, or write the card anew: "
            "`python -m training.describe MODEL TABLE`",
            "scores",
        )
    worst = f"equal within {CLOSE:g} (at most {apart.max():.1e} apart)"
    return (
        f"{count(len(scores), 'golden row')}: {worst if apart.any() else 'identical to training'}"
    )


def _encode_golden(path: Path, card: Card) -> Floats:
    """Encode the golden rows as a request is, and compare the features with training's."""
    golden = card.golden
    try:
        values = Columns.from_card(card, by_name=False).encode(RawTable(golden.rows)).values
    except BadInput as error:
        fault = f"its golden {error}"
    else:
        encoded = golden.rows if golden.encoded is None else golden.encoded
        if np.array_equal(values, np.array(encoded, dtype=np.float64), equal_nan=True):
            return values
        fault = "its golden rows become other features than in training"
    raise BadModel(f"{path} does not fit its card: {fault}; train the model again", "scores")
