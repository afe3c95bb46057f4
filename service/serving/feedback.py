"""Find the rows that feedback is about, and what the model answered for them."""

from collections.abc import Sequence
from typing import NoReturn

from ..errors import BadInput, NotFound, count
from ..rows import RawTable
from ..state.feedback.store import FeedbackStore
from ..state.record_format import Recorded
from ..truths import FeedbackSummary, ScoredRow, Statement
from .predictor import Predictor


class FeedbackMatcher:
    """Pairs feedback with the rows that it is about, and stores it.

    The label of a row comes from the first of these that has it: the record of predictions; earlier
    feedback about the same row; the model, which scores the request that the feedback carries. A
    label that the client sends is never used.
    """

    def __init__(self, predictor: Predictor, store: FeedbackStore) -> None:
        self.predictor, self.store = predictor, store

    def record(self, statement: Statement) -> FeedbackSummary:
        """Store what a message says; return the figures that include it.

        Raises:
            BadInput: the truths or the carried request do not fit the rows.
            NotFound: the prediction, or one of its rows, is unknown; this is counted apart.
            Unavailable: the storage fails; nothing of the message is stored.
        """
        recorded = self._find_recorded(statement)
        if recorded is not None:
            # A prediction's first rows leave the record first, so its last row gives the size.
            size = int(recorded["row"][-1]) + 1
            _check_carried(statement, size)
            _check_size(statement, size)
        elif statement.rows is not None:
            _check_size(statement, len(statement.rows))
        elif not (statement.truths or statement.is_new or self.store.knows(statement.puid)):
            self._refuse_unknown(statement)
        return self.store.add(statement, self._pair(statement, recorded))

    def take_back(self, puid: str, row: int) -> None:
        """Delete what was said about a row, as if it had never come.

        Raises:
            NotFound: nothing was said about it.
            Unavailable: the storage fails; nothing is changed.
        """
        if not self.store.take_back(puid, row):
            raise NotFound(f"row {row} of prediction {puid[:50]!r} has no label to take back")

    def _find_recorded(self, statement: Statement) -> Recorded | None:
        """Return the rows of the prediction that are on record; None if there are none."""
        if statement.is_new or self.predictor.records is None:
            return None
        recorded = self.predictor.records.find(statement.puid)
        return recorded if len(recorded) else None

    def _pair(self, statement: Statement, recorded: Recorded | None) -> list[ScoredRow]:
        """Return the row that each truth is about, with the label to compare the truth with."""
        first, carried = statement.row or 0, statement.rows
        indexes = range(first, first + len(statement.truths))
        found: dict[int, ScoredRow] = {}
        if recorded is not None:
            found = _read_rows(recorded, indexes)
        if len(found) < len(indexes):
            known = self.store.find(statement.puid, indexes[0], indexes[-1])
            if carried is not None:  # rows that were scored for earlier feedback are scored again
                known = {index: row for index, row in known.items() if row.recorded}
            found = known | found
        missing = [index for index in indexes if index not in found]
        if missing and carried is not None:
            found |= self._score(carried, missing)
        elif missing:
            part = "" if len(missing) == len(indexes) else f"row {missing[0]} of "
            self._refuse_unknown(statement, part)
        return [found[index] for index in indexes]

    def _score(self, carried: RawTable, indexes: Sequence[int]) -> dict[int, ScoredRow]:
        """Score some rows of the request that the feedback carries."""
        detector = self.predictor.detector
        try:
            rows = detector.columns.encode(carried)
        except BadInput as error:
            raise BadInput(f"the request that the feedback carries: {error}") from error
        verdict = detector.score(rows.at(list(indexes)))
        labels, scores = verdict.labels.tolist(), verdict.scores.tolist()
        return {
            index: ScoredRow(index, label, score, verdict.version, recorded=False)
            for index, label, score in zip(indexes, labels, scores, strict=True)
        }

    def _refuse_unknown(self, statement: Statement, part: str = "") -> NoReturn:
        self.store.count_unmatched()
        raise NotFound(
            f"{part}prediction {statement.puid[:50]!r} is not on record (any more), and the "
            "feedback carries no request to score again; send it along"
        )


def _check_carried(statement: Statement, size: int) -> None:
    """Check that the request that feedback carries may be that of a prediction of `size` rows."""
    if statement.rows is not None and len(statement.rows) != size:
        raise BadInput(
            f"the feedback carries a request with {count(len(statement.rows), 'row')}, and "
            f"prediction {statement.puid[:50]!r} has {size:,}; send the puid of that request's "
            "prediction, or leave the request out"
        )


def _check_size(statement: Statement, size: int) -> None:
    """Check that the truths, or the single row, fit a prediction with `size` rows."""
    truths = len(statement.truths)
    if statement.row is None and truths not in (0, size):
        raise BadInput(
            f"{count(truths, 'truth')} for {count(size, 'row')}; send one for each, "
            f"or name a single row in {statement.row_field}"
        )
    if statement.row is not None and statement.row >= size:
        raise BadInput(
            f"{statement.row_field} is {statement.row}, and the prediction has "
            f"{count(size, 'row')}, counted from 0"
        )


def _read_rows(recorded: Recorded, indexes: range) -> dict[int, ScoredRow]:
    """Return those of the recorded rows that have one of the indexes."""
    rows = recorded[(recorded["row"] >= indexes.start) & (recorded["row"] < indexes.stop)]
    return {
        index: ScoredRow(index, label, score, version.decode(), recorded=True)
        for index, label, score, version in rows[["row", "label", "score", "version"]].tolist()
    }
