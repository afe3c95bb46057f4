"""Tell outliers from inliers: a model and a threshold."""

from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from ..model.baseline import Baseline
from ..model.columns import Columns
from ..model.file import Model
from ..rows import Floats, RawTable, Rows, Verdict


@dataclass(frozen=True)
class Detector:
    """A model and the threshold below which a score is an outlier's."""

    model: Model
    threshold: float = 0.0
    by_name: bool = True
    """Whether named columns may come in any order; else names are ignored."""

    @cached_property
    def columns(self) -> Columns:
        """The columns that the model takes."""
        model = self.model
        return Columns(model.features, self.by_name, model.takes_missing, model.named)

    @cached_property
    def baseline(self) -> Baseline | None:
        """The training distribution, which drift is measured from; None without a card."""
        card = self.model.card
        if card is None:
            return None
        features = {feature.name: feature.quantiles for feature in card.features}
        return Baseline(self.model.version, features, card.score_quantiles)

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
        scorer, samples = self.model.scorer, None
        if with_samples:
            samples = scorer.score_samples(rows.values)
            scores = samples - scorer.offset
        elif len(rows.values) == 1:
            scores = scorer.decide_row(rows.values)
        else:
            scores = scorer.decision_function(rows.values)
        return Verdict(scores, self.threshold, self.model.version, samples)

    def explain(self, rows: Rows) -> Floats:
        """Return each feature's share in each row's path length, (n_rows, n_features)."""
        return self.model.scorer.contributions(rows.values)
