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
import logging
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.ensemble import IsolationForest

from ..errors import BadModel, count
from .card import Card, card_path
from .checks import check_forest
from .pickles import read_forest, scan
from .sandbox import ChildFailed, run_sandboxed
from .scorer import CompiledForest, compile_forest

logger = logging.getLogger(__name__)


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
            found = run_sandboxed(
                lambda: _examine(file.content),
                _SECONDS + len(file.content) // _BYTES_A_SECOND,
                _MEMORY + _MEMORY_A_BYTE * len(file.content),
            )
        except ChildFailed as error:
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
