"""The feedback of clients, and the quality of the labels: confusion counts and rates."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import NamedTuple

from .rows import RawTable

MILLIONTHS = 1_000_000
"""Rewards are whole numbers of a millionth, so that their sum is exact."""

MOST_REWARD = 1_000_000
"""The largest magnitude of a reward."""


@dataclass(frozen=True)
class Statement:
    """What one message of feedback says about a prediction."""

    puid: str
    """The prediction's id."""
    is_new: bool = False
    """Whether the message came without an id, so that a new one was made."""
    row: int | None = None
    """The row that the message is about; None for the whole prediction."""
    truths: tuple[int, ...] = ()
    """0 or 1 for each row; empty when the message states no truth."""
    reward: int | None = None
    """In millionths."""
    rows: RawTable | None = None
    """The rows of the request that the message carries."""
    row_field: str = "row"
    """The field of the message that names `row`, for error sentences."""


class ScoredRow(NamedTuple):
    """A row of a prediction, with its label and score."""

    row_index: int
    """Its index in the prediction, from 0."""
    label: int
    """1 for an outlier."""
    score: float
    version: str
    """The model's version."""
    recorded: bool
    """Whether the label is the one answered; else the row was scored again for the feedback."""


@dataclass(frozen=True)
class Confusion:
    """Rows by label and truth; an outlier is the positive class."""

    true_negative: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_positive: int = 0

    @classmethod
    def count(cls, pairs: Counter[tuple[int, int]]) -> Confusion:
        """Count (label, truth) pairs."""
        return cls(pairs[0, 0], pairs[1, 0], pairs[0, 1], pairs[1, 1])

    @property
    def rows(self) -> int:
        """Return the number of all rows."""
        return self.true_negative + self.false_positive + self.outliers

    @property
    def outliers(self) -> int:
        """Return the number of rows that are outliers by their truth."""
        return self.true_positive + self.false_negative

    @property
    def flagged(self) -> int:
        """Return the number of rows that are outliers by their label."""
        return self.true_positive + self.false_positive

    def figures(self) -> dict[str, float]:
        """Return accuracy, precision, recall, f1 and f2, without those that are not known.

        Recall, f1 and f2 are not known while all these rows are flagged: nobody has looked for
        outliers among the others.

        >>> Confusion(true_negative=3, false_negative=1).figures()
        {'accuracy': 0.75, 'recall': 0.0, 'f1': 0.0, 'f2': 0.0}
        >>> Confusion(true_positive=3, false_positive=1).figures()
        {'accuracy': 0.75, 'precision': 0.75}
        """
        parts: dict[str, tuple[float, float]] = {
            "accuracy": (self.true_positive + self.true_negative, self.rows),
            "precision": (self.true_positive, self.flagged),
        }
        if self.flagged < self.rows:
            parts["recall"] = self.true_positive, self.outliers
            # F-beta weighs recall beta times as much as precision (van Rijsbergen, 1979).
            for name, beta in (("f1", 1.0), ("f2", 2.0)):
                below = beta**2 * self.outliers + self.flagged
                parts[name] = (1 + beta**2) * self.true_positive, below
        return {name: above / below for name, (above, below) in parts.items() if below}


@dataclass(frozen=True)
class FeedbackSummary:
    """The figures of all feedback stored so far."""

    total: Confusion = Confusion()
    """Over all labelled rows."""
    recent: Confusion = Confusion()
    """Over the window: the last labelled rows in the order of their first feedback."""
    rewarded: int = 0
    """Rewards other than 0, as revised; it falls when one is revised or deleted."""
    reward: float = 0.0
    """The sum of these rewards."""
    unmatched: int = 0
    """Messages about an unknown prediction."""
    accepted: int = 0
    """Messages stored, repeated ones too; unlike the figures above it never falls."""
    accepted_reward: float = 0.0
    """Sum of the positive rewards in these messages; it never falls."""
    models: tuple[str, ...] = ()
    """The versions of the models that scored the labelled rows; the figures are about all."""

    def gauges(self) -> dict[str, float]:
        """Return the figures by Seldon's names: `_tot` over all rows, `_roll` over the window.

        A figure that is not defined yet is left out.
        """
        gauges = {f"{name}_tot": value for name, value in self.total.figures().items()}
        gauges |= {f"{name}_roll": value for name, value in self.recent.figures().items()}
        gauges |= asdict(self.total)
        for suffix, counts in (("tot", self.total), ("roll", self.recent)):
            gauges[f"nb_outliers_{suffix}"] = counts.outliers
            gauges[f"nb_labels_{suffix}"] = counts.rows
        return gauges


class RunningConfusion:
    """Running confusion counts, in total and over the last `window` labelled rows."""

    def __init__(self, window: int = 100) -> None:
        self._total: Counter[tuple[int, int]] = Counter()
        self._recent: deque[tuple[int, int]] = deque(maxlen=window)

    def add(self, label: int, truth: int) -> None:
        """Count one row whose truth has become known."""
        self._total[label, truth] += 1
        self._recent.append((label, truth))

    def summary(self) -> FeedbackSummary:
        """Return the figures so far."""
        return FeedbackSummary(Confusion.count(self._total), Confusion.count(Counter(self._recent)))
