"""A model with known scores, and batches of rows with their expected counts."""

import json
import pickle
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import IsolationForest

from service.model.file import load_model
from service.serving.detector import Detector
from service.state.counts import SCORE_BOUNDS
from tests.support.cards import make_card, number

PERCENT = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Tally:
    """Rows, the outliers among them, and how many fell into each interval of the score."""

    rows: int = 0
    outliers: int = 0
    buckets: tuple = (0,) * (len(SCORE_BOUNDS) + 1)

    @property
    def numbers(self):
        return self.rows, self.outliers, *self.buckets

    @classmethod
    def sum(cls, tallies):
        columns = [tally.numbers for tally in tallies]
        if not columns:
            return cls()
        rows, outliers, *buckets = (sum(column) for column in zip(*columns, strict=True))
        return cls(rows, outliers, tuple(buckets))


@dataclass(frozen=True)
class Batch:
    """The rows of a request as JSON, and their expected counts."""

    rows: str
    tally: Tally


class Model:
    """A model file with a card, and batches of rows with known scores."""

    def __init__(self, folder):
        table = np.random.default_rng(16).lognormal(size=(5000, 2))
        self.forest = IsolationForest(random_state=16).fit(table)
        self.path = folder / "model.pickle"
        self.path.write_bytes(pickle.dumps(self.forest, protocol=5))
        self.baseline = write_card(self.path, self.forest, table)
        self.scorer = load_model(self.path).scorer
        self.values = np.random.default_rng(1).lognormal(sigma=1.3, size=(20_000, 2))
        self.scores = self.forest.decision_function(self.values)

    def batch(self, rows, chance):
        start = chance.randrange(len(self.values) - rows)
        scores = self.scores[start : start + rows]
        places = np.searchsorted(SCORE_BOUNDS, scores, side="left")
        buckets = np.bincount(places, minlength=len(SCORE_BOUNDS) + 1).tolist()
        values = json.dumps(self.values[start : start + rows].tolist())
        return Batch(values, Tally(rows, int((scores < 0).sum()), tuple(buckets)))


def write_card(path, forest, table):
    """Write a model's card and return its baseline for drift."""
    features, scores = np.quantile(table, PERCENT, axis=0).T.tolist(), forest.score_samples(table)
    card = make_card(
        path.read_bytes(),
        forest,
        table,
        columns=[number(f"f{i}", quantiles) for i, quantiles in enumerate(features)],
        score_quantiles=np.quantile(scores - forest.offset_, PERCENT).tolist(),
    )
    path.with_suffix(".json").write_text(card.to_json())
    return Detector(load_model(path)).baseline
