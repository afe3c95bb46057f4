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

import io
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
from .content import REMEDY, ModelFile, find_card, read_model_file, version_of
from .forest import Forest, contradiction, unpack
from .pickles.reader import read_forest
from .pvalues import PValues, explain_lack
from .scorer import CompiledForest, compile_trees

CLOSE = 1e-12
"""The tolerance of a score: scikit-learn, numpy or the processor may differ from training's."""

_FAULTS = {"pickle": "is not a saved IsolationForest", "forest": "holds no sound forest"}

Report = Callable[[str, str], None]
"""Called after each step with its name and its result."""


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
        return version_of(self.sha256)

    @property
    def column_types(self) -> dict[str, str]:
        """The type of each column in training, or 'float': 'bool', 'int', 'float' or 'text'."""
        if self.card:
            return {column.name: column.type for column in self.card.columns}
        return dict.fromkeys(self.features, "float")


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
    card, fault = find_card(file, require_card)
    if card is not None:
        _check_columns(card_path(file.path), card, forest)
    report("card", f"none: {fault}" if card is None else _tell_card(file.path, card))
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
        remedy = "" if ";" in str(error) else f"; {REMEDY}"  # some errors name a remedy themselves
        raise BadModel(f"{path} {_FAULTS[reason]}: {error}{remedy}", reason) from error


def _tell_card(path: Path, card: Card) -> str:
    """Return what a card describes, and what its p-values rest on, or why there are none."""
    found = PValues.of_card(card)
    what = f"without p-values: {explain_lack(card)}"
    if found is not None:
        what = f"p-values from {count(found.rows, 'row')}"
    return f"{card_path(path)} describes this file, {what}"


def _check_columns(path: Path, card: Card, forest: Forest) -> None:
    """Compare the features that a card describes with the forest's own."""
    fault = contradiction(Columns.from_card(card).features, forest)
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
