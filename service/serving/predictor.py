"""Score, count and record clients' rows. Knows no protocol and no transport."""

from __future__ import annotations

from service.rows import Rows, Verdict
from service.state.records import Records

from ..rows import Totals
from ..state.counts import Counts
from .detector import Detector


class Predictor:
    """Where every client's rows are scored, counted once, and recorded.

    `detector` may be replaced by another at any time; a request looks at it once.
    """

    def __init__(self, detector: Detector, counts: Counts, records: Records | None = None) -> None:
        self.detector, self.counts, self.records = detector, counts, records

    def predict(
        self,
        rows: Rows,
        puid: str,
        detector: Detector | None = None,
        with_samples: bool = False,
    ) -> tuple[Verdict, Totals]:
        """Score the rows of the prediction `puid`; the totals include them.

        Who has more to ask of the same model names the `detector` that the predictor had.
        """
        detector = detector or self.detector
        rows = detector.arrange(rows)
        verdict = detector.judge(rows, with_samples)
        totals = self.counts.add(verdict)
        if self.records is not None:
            self.records.append(puid, rows.values, verdict)
        return verdict, totals
