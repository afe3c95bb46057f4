"""Which rows feedback is about, and what was answered for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from ..errors import BadInput, NotFound, count
from ..protocols.seldon.feedback import EXAMPLE, Feedback
from ..rows import Rows
from ..state.feedback.store import FeedbackStore, ScoredRow
from ..state.records import Recorded
from ..truths import FeedbackSummary
from .predictor import Predictor


class FeedbackMatcher:
    """Where feedback is paired with the rows that it is about, and stored.

    What the model said of a row is, in this order: what the record of predictions has under the
    puid; what feedback that came before was paired with; what the model says now of the request
    that the feedback carries. It is never what a client says that was answered.
    """

    def __init__(self, predictor: Predictor, store: FeedbackStore) -> None:
        self.predictor, self.store = predictor, store

    def take(self, feedback: Feedback) -> FeedbackSummary:
        """Store what a message says; return what is known then.

        Raises:
            BadInput: the truths do not fit the rows.
            NotFound: nobody knows the prediction, or not all its rows; this is counted apart.
            Unavailable: the storage fails; nothing of the message is stored.
        """
        recorded = self._recorded(feedback)
        if feedback.truths:
            rows = self._pair(feedback, recorded)
        elif self._is_known(feedback, recorded):
            _check_row(feedback, recorded)
            rows = []
        else:
            self._miss(feedback)
        return self.store.add(feedback.puid, rows, feedback.truths, feedback.reward, feedback.row)

    def _recorded(self, feedback: Feedback) -> Recorded | None:
        """Return the rows of the prediction that are on record; None if there are none."""
        if feedback.is_new or self.predictor.records is None:
            return None
        recorded = self.predictor.records.find(feedback.puid)
        return recorded if len(recorded) else None

    def _is_known(self, feedback: Feedback, recorded: Recorded | None) -> bool:
        return (
            feedback.is_new
            or recorded is not None
            or feedback.rows is not None
            or self.store.knows(feedback.puid)
        )

    def _pair(self, feedback: Feedback, recorded: Recorded | None) -> list[ScoredRow]:
        """Return what the model said of each row that the feedback tells the truth about."""
        carried = feedback.rows
        if recorded is not None:
            size = int(recorded["row"][-1]) + 1
            _check_size(feedback, size)
            if carried is not None and len(carried) != size:
                carried = None  # those of another prediction
        elif carried is not None:
            _check_size(feedback, len(carried))
        elif feedback.is_new:
            raise BadInput(f"truth about no prediction: send its puid, as in {EXAMPLE}")
        wanted = _wanted(feedback)
        found = {} if recorded is None else _read(recorded, wanted)
        if len(found) < len(wanted):
            known = self.store.find(feedback.puid, wanted[0], wanted[-1])
            if carried is not None:  # what was scored for a feedback is scored again
                known = {row: said for row, said in known.items() if said.recorded}
            found = known | found
        missing = [row for row in wanted if row not in found]
        if missing and carried is not None:
            found |= self._score(carried, missing)
        elif missing:
            self._miss(feedback, "" if len(missing) == len(wanted) else f"row {missing[0]} of ")
        return [found[row] for row in wanted]

    def _score(self, carried: Rows, numbers: Sequence[int]) -> dict[int, ScoredRow]:
        detector = self.predictor.detector
        rows = detector.arrange(carried)
        verdict = detector.judge(replace(rows, values=rows.values[list(numbers)]))
        labels, scores = verdict.labels.tolist(), verdict.scores.tolist()
        return {
            number: ScoredRow(number, label, score, verdict.version, recorded=False)
            for number, label, score in zip(numbers, labels, scores, strict=True)
        }

    def _miss(self, feedback: Feedback, part: str = "") -> NoReturn:
        self.store.count_unmatched()
        raise NotFound(
            f"{part}prediction {feedback.puid[:50]!r} is not on record (any more), and the "
            "feedback carries no request to score again; send it along"
        )


def _wanted(feedback: Feedback) -> range:
    if feedback.row is None:
        return range(len(feedback.truths))
    return range(feedback.row, feedback.row + 1)


def _check_row(feedback: Feedback, recorded: Recorded | None) -> None:
    """Check that the one row that a reward is for is there, as far as the rows are known."""
    if feedback.row is not None and (recorded is not None or feedback.rows is not None):
        size = len(feedback.rows or ()) if recorded is None else int(recorded["row"][-1]) + 1
        _check_size(feedback, size)


def _check_size(feedback: Feedback, size: int) -> None:
    if feedback.row is None and len(feedback.truths) != size:
        raise BadInput(
            f"{count(len(feedback.truths), 'truth')} for {count(size, 'row')}; send one for each, "
            "or name a single row in request.meta.tags.row"
        )
    if feedback.row is not None and feedback.row >= size:
        raise BadInput(
            f"request.meta.tags.row is {feedback.row}, and the prediction has "
            f"{count(size, 'row')}, counted from 0"
        )


def _read(recorded: Recorded, wanted: range) -> dict[int, ScoredRow]:
    rows = recorded[(recorded["row"] >= wanted.start) & (recorded["row"] < wanted.stop)]
    columns = (rows[name].tolist() for name in ("row", "label", "score", "version"))
    return {
        row: ScoredRow(row, label, score, version.decode(), recorded=True)
        for row, label, score, version in zip(*columns, strict=True)
    }
