"""Gather what the card, the record and the feedback say about the scores of a model."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from ..errors import Unavailable
from ..model.card import Card
from ..model.pvalues import PValues, explain_lack
from ..state.feedback.store import FeedbackStore
from ..state.records import Records
from .proposals import Evidence, Labels, measure_rate

FEEDBACK = "rows with feedback"
"""The source of labels that came as feedback."""

_MOST = 1_000_000  # labelled rows

_MANY = 50
"""Feedback on fewer rows is used only if the training table had no labels."""


def gather(
    card: Card | None,
    version: str,
    records: Records | None = None,
    feedback: FeedbackStore | None = None,
    rate: float | None = None,
) -> Evidence:
    """Return what is known of a version of a model; `rate`: rows a day, by default as recorded."""
    times, scores = records.scores(version) if records else (np.empty(0),) * 2
    return Evidence(
        PValues.of_card(card),
        np.sort(scores),
        measure_rate(times) if rate is None else rate,
        choose_labels(card, version, feedback),
        explain_lack(card),
    )


def read_feedback(version: str, feedback: FeedbackStore | None, most: int = _MOST) -> Labels | None:
    """Return the last rows of a version that have feedback, up to `most`; None if none has."""
    found = np.empty((0, 3))
    if feedback is not None:
        with suppress(Unavailable):  # it is logged
            found = feedback.labelled(version, most)
    if not len(found):
        return None
    scores, truths, flagged = found.T
    return Labels.of(scores, truths.astype(np.int64), FEEDBACK, bool(flagged.all()))


def choose_labels(
    card: Card | None, version: str, feedback: FeedbackStore | None, most: int = _MOST
) -> Labels | None:
    """Return the labels that say more: feedback, if it is plenty and knows missed outliers."""
    sent, trained = read_feedback(version, feedback, most), Labels.of_card(card)
    if sent is None or trained is None:
        return sent or trained
    return sent if sent.rows >= _MANY and sent.outliers and not sent.all_flagged else trained
