"""Tell outliers from inliers: a model and a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from service.errors import BadInput
from service.model.file import Model
from service.rows import Floats, Rows, Verdict

from ..model.baseline import Baseline


@dataclass(frozen=True)
class Detector:
    """A model and the threshold below which a score is an outlier's."""

    model: Model
    threshold: float = 0.0
    by_name: bool = True
    """Whether named columns may come in any order; else names are ignored."""

    @cached_property
    def baseline(self) -> Baseline | None:
        """What drift is measured from; None where the model has no card."""
        card = self.model.card
        if card is None:
            return None
        features = {feature.name: feature.quantiles for feature in card.features}
        return Baseline(self.model.version, features, card.score_quantiles)

    def detect(self, rows: Rows) -> Verdict:
        """Score rows; nothing is counted and nothing remembered."""
        return self.judge(self.arrange(rows))

    def arrange(self, rows: Rows) -> Rows:
        """Return the rows with their columns in the model's order.

        Raises:
            BadInput: other columns than the model's, or a missing value where it knows none.
        """
        if rows.missing and not self.takes_missing:
            raise BadInput(f"{rows.first_missing()}; this model takes none")
        return rows.arranged(self.model.features, self.by_name and self.model.named)

    @cached_property
    def takes_missing(self) -> bool:
        """Whether values may be missing: the model was trained with such."""
        card = self.model.card
        return card is not None and card.allow_missing

    def judge(self, rows: Rows, with_samples: bool = False) -> Verdict:
        """Score rows whose columns are arranged; on request keep their `score_samples`, too."""
        scorer, samples = self.model.scorer, None
        if with_samples:
            samples = scorer.score_samples(rows.values)
            scores = samples - scorer.offset
        else:
            scores = scorer.decision_function(rows.values)
        return Verdict(scores, self.threshold, self.model.version, samples)

    def explain(self, rows: Rows) -> Floats:
        """Return each feature's share in each row's path length; the columns are arranged."""
        return self.model.scorer.contributions(rows.values)
