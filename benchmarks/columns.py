"""Columns of text: what a request with categories costs, and what text adds to quality."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
import pyarrow as pa
from sklearn.metrics import average_precision_score, roc_auc_score

from service.errors import CannotTrain
from service.model.file import load_model
from service.rows import Floats, Limits
from service.serving.detector import Detector
from service.serving.feedback import FeedbackMatcher
from service.serving.predictor import Predictor
from service.state.counts import Counts
from service.state.feedback.store import begin_feedback
from service.state.records import begin_records
from service.tables.read import Table
from service.web.admission import RowLimit
from service.web.handlers import Handlers
from service.web.middleware import new_id
from service.web.request import Request
from training import kddcup99
from training.datasets import Dataset
from training.export import describe, save_model
from training.forest import fit_forest
from training.tables import Options, make_dataset

from .measure import Figure, Ratio, Result, in_turns

_ROWS, _COLUMNS = 5_000, 6
_TARGET = 1 / 1.5  # a request with categories takes at most 1.5 times as long

_SEEDS = range(5)

Served = tuple[Callable[[bytes], object], dict[int, bytes]]
"""What answers a Seldon message, and bodies by their number of rows."""


def run(short: bool) -> Iterator[Result]:
    """Compare requests with and without categories, then forests with and without text."""
    with tempfile.TemporaryDirectory() as folder:
        numbers, mixed, texts = (
            _serve(Path(folder) / name, _table(categories))
            for name, categories in (("numbers", 0), ("mixed", 4), ("texts", 6))
        )
        for what, served, target in (
            ("4 of 6 columns text", mixed, _TARGET),
            ("all 6 text", texts, None),  # fresh texts must be hashed, one by one
        ):
            for n, calls in ((1, 100), (1_000, 3)):
                rounds = 9 if short else 41
                times = in_turns(rounds, _ask(served, n, calls), _ask(numbers, n, calls))
                rows = "1 row" if n == 1 else f"{n:,} rows"
                yield Ratio(f"{what}: {rows}, {calls} requests", "6 numbers", *times, target)
    yield from _planted(short)
    if not short:
        yield from _kddcup99()


def _ask(served: Served, n: int, calls: int) -> Callable[[], object]:
    """Return a function that answers a request of n rows some times."""
    answer, bodies = served
    body = bodies[n]
    return lambda: [answer(body) for _ in range(calls)]


def _table(categories: int, rows: int = _ROWS) -> dict[str, list[object]]:
    """Return a table of 6 columns, of which some are categories and texts in turns."""
    chance = np.random.default_rng(16)
    table: dict[str, list[object]] = {}
    for j in range(_COLUMNS):
        if j >= categories:
            table[f"n{j}"] = chance.lognormal(size=rows).round(4).tolist()
        else:
            values = [f"value {i}" for i in range(12 if j % 2 else 500)]
            table[f"c{j}"] = chance.choice(values, rows).tolist()
    return table


def _dataset(table: dict[str, list[object]], **options: object) -> Dataset:
    return make_dataset(Table(Path("made"), pa.table(table)), Options(**options))  # type: ignore[arg-type]


def _serve(folder: Path, table: dict[str, list[object]]) -> Served:
    """Return what answers a Seldon message, in this process, and bodies of 1 and 1,000 rows."""
    dataset = _dataset(table)
    forest = fit_forest(dataset.X)
    detector = Detector(load_model(save_model(folder, forest, describe(forest, dataset))))
    recorded = detector.columns.recorded
    (folder / "state").mkdir()
    texts = [name for name, is_text in recorded.items() if is_text]
    records = begin_records(folder / "state", list(recorded), 20_000, texts=texts)
    predictor = Predictor(detector, Counts(), records)
    matcher = FeedbackMatcher(predictor, begin_feedback(folder / "state", 100, 30))
    handlers = Handlers(predictor, Limits(), new_id, matcher, RowLimit(200_000))
    rows = list(zip(*table.values(), strict=True))
    bodies = {
        n: json.dumps({"data": {"names": list(table), "ndarray": rows[:n]}}).encode()
        for n in (1, 1_000)
    }
    request = Request("POST", "/predict", {b"content-type": b"application/json"})
    return partial(handlers.seldon, request), bodies


def _planted(short: bool) -> Iterator[Result]:
    """Compare forests on a table in which 1 % of the rows have a rare category."""
    chance = np.random.default_rng(7)
    n = 20_000
    labels = (chance.random(n) < 0.01).astype(np.int64)
    common = [f"shop {i}" for i in range(8)]
    shops = np.where(
        labels == 1, chance.choice(["casino", "pawnshop"], n), chance.choice(common, n)
    )
    table: dict[str, list[object]] = {
        "amount": chance.lognormal(3, size=n).round(2).tolist(),
        "visits": chance.poisson(3, n).tolist(),
        "shop": shops.tolist(),
    }
    for what, leave in (("numbers alone", ["shop"]), ("with the category", [])):
        options = ",".join(f"-{name}" for name in leave)
        dataset = _dataset(table, columns=options)
        yield Figure(f"planted rare categories, {what}", _quality(dataset.X, labels, short))


def _kddcup99() -> Iterator[Result]:
    """Compare forests on KDD Cup 99 with its columns of text, and on its numbers alone."""
    try:
        found = kddcup99.load()
    except CannotTrain:  # its sentence names a folder of this machine
        yield Figure("KDD Cup 99", "not compared: the data set could not be loaded")
        return
    chance = np.random.default_rng(16)
    attack = found.kinds != "normal"
    chosen = np.concatenate(
        [
            chance.choice(np.flatnonzero(attack == one), k)
            for one, k in ((False, 45_000), (True, 5_000))
        ]
    )
    labels = attack[chosen].astype(np.int64)
    table: dict[str, list[object]] = {
        name: [_plain(cell) for cell in found.cells[chosen, j]]
        for j, name in enumerate(found.columns)
    }
    for what, leave in (
        ("numbers alone", ["protocol_type", "service", "flag"]),
        ("with text", []),
        ("with text but service", ["service"]),
    ):
        dataset = _dataset(table, columns=",".join(f"-{name}" for name in leave))
        width = f"{dataset.X.shape[1]} features"
        yield Figure(f"KDD Cup 99, {what}, {width}", _quality(dataset.X, labels, False))


def _plain(cell: object) -> object:
    return cell.decode() if isinstance(cell, bytes) else cell


def _quality(X: Floats, labels: object, short: bool) -> str:
    """Return ROC AUC and average precision, the mean over some seeds."""
    seeds = _SEEDS[:1] if short else _SEEDS
    scores = [-fit_forest(X, seed=seed).decision_function(X) for seed in seeds]
    auc = mean(float(roc_auc_score(labels, score)) for score in scores)
    precision = mean(float(average_precision_score(labels, score)) for score in scores)
    return f"ROC AUC {auc:.3f}, average precision {precision:.3f}"
