"""Describe a fitted forest in a card, and save both for the service."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.ensemble import IsolationForest

import service
from service.errors import CannotTrain
from service.model.card import Card, Column, Evaluation, Golden, LabelCurve, card_path
from service.model.encoding import make_encoder
from service.model.forest import contradiction, unpack
from service.model.scorer import CompiledForest, compile_forest
from service.rows import Floats
from training.calibration import calibrate, keep_labels, score_out_of_bag
from training.datasets import UNLABELLED, Dataset, Whole

MODEL_FILE = "model.pickle"

_STEPS = np.linspace(0.0, 1.0, 101)  # the minimum, each percentile, the maximum
_GOLDEN_ROWS = 32


def describe(forest: IsolationForest, dataset: Dataset, held_out: Dataset | None = None) -> Card:
    """Return the card of a forest that was fitted on `dataset`.

    If there are labels of both kinds, it contains an evaluation: on the held-out rows, or without
    these on the training rows.

    Raises:
        CannotTrain: the table has other columns than the forest, or in another order.
    """
    fault = contradiction(dataset.encoded, unpack(forest))
    if fault:
        raise CannotTrain(f"{dataset.name} {fault}; give the columns in the forest's order")
    scorer = compile_forest(forest)
    parameters = {name: _plain(value) for name, value in forest.get_params().items()}
    seed = parameters["random_state"]
    scores = scorer.decision_function(dataset.X)
    unseen, without = score_out_of_bag(forest, scorer, dataset.X)
    evaluation = _choose_evaluation(scorer, dataset, scores, held_out)
    return Card(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset=dataset.name,
        rows=len(dataset),
        columns=_columns(dataset),
        left_out=list(dataset.left_out),
        id=dataset.id,
        decimal=dataset.decimal,
        parameters=parameters,
        seed=seed if type(seed) is int else None,
        offset=float(forest.offset_),
        training_outlier_share=float((scores < 0).mean()),
        score_quantiles=np.quantile(scores, _STEPS, method="inverted_cdf").tolist(),
        golden=_golden(forest, dataset, scores),
        quality=_evaluate(*evaluation, held_out is not None) if evaluation else None,
        versions=_versions(),
        files={},
        calibration=calibrate(unseen, without),
        labels=_keep_labels(*evaluation, unseen if held_out is None else None)
        if evaluation
        else None,
    )


def _plain(value: object) -> object:
    """Return a parameter as JSON can hold it: a number of Python, or a text."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def write_card(path: Path, card: Card) -> None:
    """Write the card of a model file that is there already.

    Raises:
        CannotTrain: the folder cannot be written; the old card stays.
    """
    try:
        with _locked(path.parent):
            _write({card_path(path): card.to_json().encode()})
    except OSError as error:
        raise CannotTrain(f"{card_path(path)} cannot be written: {error.strerror}") from error


def save_model(folder: Path, forest: IsolationForest, card: Card) -> Path:
    """Write `model.pickle` and its card into a folder, and return the path of the pickle.

    Each file is replaced as a whole. For an instant the new pickle is beside the old card, whose
    SHA-256 then does not match. A lock makes concurrent trainings write one after the other.

    Raises:
        CannotTrain: the folder cannot be written; the old files stay.
    """
    path = Path(folder) / MODEL_FILE
    content = pickle.dumps(forest, protocol=5)
    card = replace(card, files={path.name: hashlib.sha256(content).hexdigest()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            _write({path: content, card_path(path): card.to_json().encode()})
    except OSError as error:
        raise CannotTrain(f"{path} cannot be written: {error.strerror}") from error
    return path


def check_folder(folder: Path) -> None:
    """Check before a long fit that a model can be saved in a folder, without creating it.

    Raises:
        CannotTrain: it cannot be written; the text says why.
    """
    folder = Path(folder)
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with _locked(folder):
            probe = folder / f".{MODEL_FILE}.probe"
            probe.touch()
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise CannotTrain(f"no model can be saved in {folder}: {error.strerror}") from error


def _write(files: dict[Path, bytes]) -> None:
    """Replace each file as a whole, in the order given; replace none when writing one fails."""
    written = {path: path.with_name(f".{path.name}.part") for path in files}
    try:
        for path, part in written.items():
            part.unlink(missing_ok=True)  # left by a training that was killed
            # Not a private temporary file, because the service may run as another user.
            with part.open("xb") as file:
                file.write(files[path])
                file.flush()
                os.fsync(file.fileno())
        for path, part in written.items():
            part.rename(path)
    finally:
        for part in written.values():
            part.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other trainings, and sync its entries to disk at the end."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        with suppress(OSError):  # and some cannot sync folders
            os.fsync(handle)
    finally:
        os.close(handle)


def _columns(dataset: Dataset) -> list[Column]:
    """Return the columns of a dataset, with the quantiles of those that are numbers."""
    columns, feature = [], 0
    for column in dataset.columns:
        if column.kind in ("number", "flag"):
            columns.append(_describe_numbers(column, dataset.X[:, feature], dataset.whole))
        else:
            columns.append(column)
        feature += len(make_encoder(column).features)
    return columns


def _describe_numbers(column: Column, values: Floats, whole: Whole | None) -> Column:
    """Return a column of numbers with its quantiles; of a sample, with the range of all rows."""
    quantiles = _quantiles(values)
    if whole is None:
        return replace(column, missing=int(np.isnan(values).sum()), quantiles=quantiles)
    low, high = whole.ranges[column.name]
    return replace(column, quantiles=[low, *quantiles[1:-1], high])


def _versions() -> dict[str, str]:
    return {
        "isoserve": service.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }


def _quantiles(column: Floats) -> list[float | None]:
    present = column[~np.isnan(column)]
    if not len(present):
        return [None] * len(_STEPS)
    quantiles: list[float | None] = np.quantile(present, _STEPS, method="inverted_cdf").tolist()
    return quantiles


def _golden(forest: IsolationForest, dataset: Dataset, scores: Floats) -> Golden:
    """Choose rows at even steps of their score's rank, from the lowest to the highest score.

    scikit-learn itself scores them, so that the service can compare its scores with the original.
    """
    n = len(dataset)
    ranks = np.linspace(0, n - 1, min(_GOLDEN_ROWS, n)).astype(np.int64)
    chosen = np.argsort(scores, kind="stable")[ranks]
    rows = dataset.X[chosen]
    encoded = [[None if np.isnan(cell) else cell for cell in row] for row in rows.tolist()]
    cells = [dataset.cells(row) for row in chosen.tolist()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the forest may have been fitted on a table with names
        golden = forest.decision_function(rows)
    return Golden(cells, None if dataset.raw is None else encoded, golden.tolist())


def _choose_evaluation(
    scorer: CompiledForest, dataset: Dataset, scores: Floats, held_out: Dataset | None
) -> tuple[Dataset, Floats] | None:
    """Return the table to evaluate on and its scores; None without labels of both kinds."""
    if held_out is not None:
        dataset, scores = held_out, scorer.decision_function(held_out.X)
    if dataset.labels is None or not {0, 1} <= set(np.unique(dataset.labels).tolist()):
        return None
    return dataset, scores


def _keep_labels(dataset: Dataset, scores: Floats, unseen: Floats | None) -> LabelCurve | None:
    """Return the labels in the order of the scores, which are out of bag where these are known."""
    if dataset.labels is None:
        return None
    if unseen is not None:
        scores = np.where(np.isnan(unseen), scores, unseen)
    known = dataset.labels != UNLABELLED
    return keep_labels(scores[known], dataset.labels[known], unseen is None)


def _evaluate(dataset: Dataset, scores: Floats, held_out: bool) -> Evaluation | None:
    if dataset.labels is None:
        return None
    known = dataset.labels != UNLABELLED
    flagged, labels, scores = scores < 0, dataset.labels[known], scores[known]
    found = scores < 0
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, found, average="binary", zero_division=0.0
    )
    return Evaluation(
        rows=len(labels),
        outliers=int(labels.sum()),
        held_out=held_out,
        roc_auc=float(metrics.roc_auc_score(labels, -scores)),
        average_precision=float(metrics.average_precision_score(labels, -scores)),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        recall_by_kind=_recall_by_kind(dataset, flagged),
    )


def _recall_by_kind(dataset: Dataset, found: NDArray[np.bool_]) -> dict[str, float] | None:
    if dataset.kinds is None or dataset.labels is None:
        return None
    kinds = np.unique(dataset.kinds[dataset.labels == 1]).tolist()
    return {kind: float(found[dataset.kinds == kind].mean()) for kind in kinds}
