"""Gather what the card, the record and the feedback say about the scores of a model."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from ..errors import Unavailable
from ..state.feedback.store import FeedbackStore
from ..state.records import Records
from .detector import Detector
from .thresholds import Evidence, Labels, measure_rate

FEEDBACK = "rows with feedback"
"""The source of labels that came as feedback."""

_MOST = 1_000_000  # labelled rows

_MANY = 50
"""Feedback on fewer rows is used only if the training table had no labels."""


def gather(
    detector: Detector,
    records: Records | None = None,
    feedback: FeedbackStore | None = None,
    rate: float | None = None,
) -> Evidence:
    """Return what is known; `rate` is the rows a day, by default as recorded."""
    times, scores = records.scores(detector.model.version) if records else (np.empty(0),) * 2
    return Evidence(
        detector.pvalues,
        np.sort(scores),
        measure_rate(times) if rate is None else rate,
        choose_labels(detector, feedback),
        detector.without_pvalues,
    )


def read_feedback(
    detector: Detector, feedback: FeedbackStore | None, most: int = _MOST
) -> Labels | None:
    """Return the rows of this model that have feedback, the last `most`; None if there are none."""
    found = np.empty((0, 3))
    if feedback is not None:
        with suppress(Unavailable):  # it is logged
            found = feedback.labelled(detector.model.version, most)
    if not len(found):
        return None
    scores, truths, flagged = found.T
    return Labels.of(scores, truths.astype(np.int64), FEEDBACK, bool(flagged.all()))


def choose_labels(
    detector: Detector, feedback: FeedbackStore | None, most: int = _MOST
) -> Labels | None:
    """Return the labels that say more: feedback, if it is plenty and knows missed outliers."""
    sent, trained = read_feedback(detector, feedback, most), Labels.of_card(detector.model.card)
    if sent is None or trained is None:
        return sent or trained
    return sent if sent.rows >= _MANY and sent.outliers and not sent.all_flagged else trained
