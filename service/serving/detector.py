"""Tell outliers from inliers: a model and a threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter

import numpy as np

from ..errors import BadInput
from ..model.baseline import Baseline
from ..model.columns import Columns
from ..model.file import Model
from ..model.pvalues import PValues, explain_lack, no_share
from ..rows import Floats, RawTable, Rows, Verdict
from ..state.low_pvalues import LARGEST
from ..threshold_choice import ThresholdChoice


@dataclass(frozen=True)
class Detector:
    """A model and the threshold below which a score is an outlier's."""

    model: Model
    threshold: float = 0.0
    by_name: bool = True
    """Whether named columns may come in any order; else names are ignored."""
    share: float | None = None
    """The share of rows like training's that the threshold was chosen for, if it was."""

    def flagging(self, choice: ThresholdChoice) -> Detector:
        """Return a detector that flags by this threshold, or this share of rows.

        BadInput if the model cannot promise the share.
        """
        if choice.share is None:
            return replace(self, threshold=choice.threshold or 0.0, share=None)
        if self.pvalues is None:
            raise BadInput(no_share(self.without_pvalues))
        return replace(self, threshold=self.pvalues.threshold(choice.share), share=choice.share)

    @cached_property
    def columns(self) -> Columns:
        """The columns that the model takes."""
        model = self.model
        if model.card is None:
            return Columns.of_numbers(model.features, self.by_name, model.named, model.knows_gaps)
        return Columns.from_card(model.card, self.by_name)

    @cached_property
    def baseline(self) -> Baseline | None:
        """The training distribution, which drift is measured from; None without a card."""
        card = self.model.card
        if card is None:
            return None
        return Baseline(self.model.version, card.columns, card.score_quantiles)

    @cached_property
    def pvalues(self) -> PValues | None:
        """The p-values of scores; None if the card has no out-of-bag scores, or there is none."""
        return PValues.of_card(self.model.card)

    def require_pvalues(self) -> PValues:
        """Return the p-values of scores; BadInput, which says why, if there are none."""
        if self.pvalues is None:
            raise BadInput(f"this model has no p-values: {self.without_pvalues}")
        return self.pvalues

    @cached_property
    def _rare(self) -> float:
        """The score below which a row's p-value is at most `LARGEST`; -inf if that is never."""
        if self.pvalues is None or self.pvalues.smallest > LARGEST:
            return -math.inf
        return self.pvalues.threshold(LARGEST)

    def low_pvalues(self, verdict: Verdict) -> Floats | None:
        """Return the p-values of rows that have a low one; None if no row has."""
        rare, scores = self._rare, verdict.scores
        if len(scores) == 1:
            if verdict.score_sum >= rare:
                return None
        elif not (low := scores < rare).any():
            return None
        else:
            scores = scores[low]
        return self.pvalues.of(scores) if self.pvalues else None

    @property
    def without_pvalues(self) -> str:
        """Why there are no p-values; empty if there are."""
        return explain_lack(self.model.card)

    @property
    def choice(self) -> ThresholdChoice:
        """What the rows are flagged by."""
        return (
            ThresholdChoice(self.threshold)
            if self.share is None
            else ThresholdChoice(share=self.share)
        )

    @property
    def examples(self) -> list[list[float | None]]:
        """Rows to try: the card's most normal and most abnormal golden row; else a row of zeros."""
        card = self.model.card
        if card is None or not card.golden.rows:
            return [[0.0] * len(self.model.features)]
        ranked = sorted(zip(card.golden.scores, card.golden.rows, strict=True), key=itemgetter(0))
        return [ranked[-1][1], ranked[0][1]]

    def detect(self, table: RawTable) -> Verdict:
        """Read and score a table; nothing is counted or recorded. BadInput as `Columns.encode`."""
        return self.score(self.columns.encode(table))

    def score(self, rows: Rows, with_samples: bool = False) -> Verdict:
        """Score rows that `columns` has encoded; on request keep their `score_samples`, too."""
        scorer, values = self.model.scorer, rows.values
        one = len(values) == 1
        anomalies = scorer.row_anomaly(values) if one else scorer.anomalies(values)
        samples = np.negative(anomalies) if with_samples else None
        scores = np.subtract(-scorer.offset, anomalies)
        return Verdict(scores, self.threshold, self.model.version, samples, rows.ids)

    def explain(self, rows: Rows) -> Floats:
        """Return each column's share in each row's path length, (n_rows, n_columns)."""
        return self.columns.add_up(self.model.scorer.contributions(rows.values))

    def try_row(self) -> None:
        """Score a row of zeros, which is not counted: any failure raises."""
        self.score(Rows(np.zeros((1, self.model.scorer.n_features))))
