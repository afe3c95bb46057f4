"""The scores of all rows of a table that is larger than the memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from service.errors import CannotTrain
from service.model.scorer import compile_forest
from service.rows import Floats
from training.parts import Watch

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest

    from service.model.card import Card
    from training.datasets import Whole

_BINS = 2**20
"""Bins of the scores from -1 to 0: a quantile is within a millionth of the exact one."""


class Spread:
    """How the `score_samples` of some rows are spread, in 16 MB whatever their number.

    For each bin the rows are counted, and the largest score is kept, so that quantiles are scores
    that occur.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._counts = np.zeros(_BINS, np.int64)
        self._largest = np.full(_BINS, -np.inf)
        self._smallest = np.inf

    def add(self, scores: Floats) -> None:
        """Take the scores of some rows, (n,), from -1 to below 0."""
        bins = np.minimum(((scores + 1.0) * _BINS).astype(np.int64), _BINS - 1)
        self.rows += len(scores)
        self._counts += np.bincount(bins, minlength=_BINS)
        np.maximum.at(self._largest, bins, scores)
        self._smallest = float(scores.min(initial=self._smallest))

    def percentile(self, percent: float) -> float:
        """Return the score below which so many percent of the rows are, as `numpy.percentile`."""
        index = (self.rows - 1) * percent / 100.0
        low, high = self._at(np.array([int(index), min(int(index) + 1, self.rows - 1)]))
        return float(low + (high - low) * (index - int(index)))

    def quantiles(self, shares: Floats) -> Floats:
        """Return the scores at these shares of the rows, by the method "inverted_cdf" of numpy."""
        found = self._at(np.maximum(np.ceil(shares * self.rows).astype(np.int64) - 1, 0))
        found[shares == 0] = self._smallest
        return found

    def share_below(self, score: float) -> float:
        """Return the share of the rows with a smaller score."""
        return float(self._counts[self._largest < score].sum() / self.rows)

    def _at(self, indices: Floats) -> Floats:
        """Return the scores at these indices of all scores in ascending order."""
        bins = np.searchsorted(np.cumsum(self._counts), indices, side="right")
        found: Floats = self._largest[bins]
        return found


def score_whole(forest: IsolationForest, whole: Whole, watch: Watch) -> Spread:
    """Score all rows of a table, and set the forest's offset by them.

    Raises:
        CannotTrain: the table changed since its columns were learned.
    """
    scorer, spread = compile_forest(forest), Spread()
    for rows in whole.read(watch):
        spread.add(scorer.score_samples(rows))
    if spread.rows != whole.rows:
        raise CannotTrain(
            f"the table changed while it was read: it had {whole.rows:,} rows and then "
            f"{spread.rows:,}; train again"
        )
    if forest.contamination != "auto":
        forest.offset_ = spread.percentile(100.0 * forest.contamination)
    return spread


def describe_whole(card: Card, forest: IsolationForest, spread: Spread) -> Card:
    """Return the card of a forest that grew from a sample, with the figures of all rows."""
    shares = np.linspace(0.0, 1.0, len(card.score_quantiles))
    return replace(
        card,
        rows=spread.rows,
        pool=card.rows,
        training_outlier_share=spread.share_below(float(forest.offset_)),
        score_quantiles=(spread.quantiles(shares) - forest.offset_).tolist(),
    )
