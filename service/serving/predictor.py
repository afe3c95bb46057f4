"""Score, count and record the rows of clients. Knows no protocol and no transport."""

from ..rows import Rows, Totals, Verdict
from ..state.counts import Counts
from ..state.low_pvalues import LowPValues
from ..state.odd_cells import OddCells
from ..state.records import Records
from .detector import Detector


class Predictor:
    """Scores the rows of every request, counts them once, and records them.

    `detector` may be replaced at any time; a request reads it once and passes it on.
    """

    def __init__(
        self,
        detector: Detector,
        counts: Counts,
        records: Records | None = None,
        odd_cells: OddCells | None = None,
        low_pvalues: LowPValues | None = None,
    ) -> None:
        self.detector, self.counts, self.records = detector, counts, records
        self.low_pvalues = low_pvalues or LowPValues()
        self.odd_cells = odd_cells or OddCells(detector.model.features)

    def predict(  # noqa: PLR0913, PLR0917 - what is asked of one prediction
        self,
        detector: Detector,
        rows: Rows,
        puid: str,
        trace_id: str = "",
        with_samples: bool = False,
        with_pvalues: bool = False,
    ) -> tuple[Verdict, Totals]:
        """Score the rows of the prediction `puid`; the totals include them.

        `rows` were encoded by the columns of `detector`, which was this predictor's.

        Raises:
            BadInput: there are no p-values to give; nothing was counted.
        """
        pvalues = detector.require_pvalues() if with_pvalues else None
        verdict = detector.score(rows, with_samples)
        totals = self.counts.add(verdict)
        if (low := detector.low_pvalues(verdict)) is not None:
            self.low_pvalues.add(low)
        if rows.odd:
            self.odd_cells.add(rows.odd)
        if self.records is not None:
            self.records.append(puid, rows.cells, verdict, trace_id)
        if pvalues is not None:
            verdict.pvalues = pvalues.of(verdict.scores)
        return verdict, totals
