"""How good the labels were, from feedback: confusion counts and what follows from them."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass

# F-beta weighs recall beta times as much as precision (van Rijsbergen, 1979).
_BETAS = {"f1": 1.0, "f2": 2.0}


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
        """All rows."""
        return self.true_negative + self.false_positive + self.outliers

    @property
    def outliers(self) -> int:
        """Rows that truly are outliers."""
        return self.true_positive + self.false_negative

    def figures(self) -> dict[str, float]:
        """Return accuracy, precision, recall, f1 and f2; what is not defined yet is left out.

        >>> Confusion(true_negative=3, false_negative=1).figures()
        {'accuracy': 0.75, 'recall': 0.0, 'f1': 0.0, 'f2': 0.0}
        """
        hits, alarms = self.true_positive, self.true_positive + self.false_positive
        parts: dict[str, tuple[float, float]] = {
            "accuracy": (hits + self.true_negative, self.rows),
            "precision": (hits, alarms),
            "recall": (hits, self.outliers),
        }
        for name, beta in _BETAS.items():
            parts[name] = ((1 + beta**2) * hits, beta**2 * self.outliers + alarms)
        return {name: above / below for name, (above, below) in parts.items() if below}


@dataclass(frozen=True)
class FeedbackSummary:
    """What feedback has told so far."""

    total: Confusion = Confusion()
    recent: Confusion = Confusion()
    """Of the window: the rows that were judged last, in the order of their first feedback."""
    rewarded: int = 0
    """Rewards other than 0."""
    reward: float = 0.0
    """Their sum."""
    unmatched: int = 0
    """Feedback about no known prediction."""

    def gauges(self) -> dict[str, float]:
        """Return Seldon's names for the figures: `_tot` over all rows, `_roll` over the window.

        What is not defined yet is left out.
        """
        total, recent = self.total, self.recent
        gauges = {f"{name}_tot": value for name, value in total.figures().items()}
        gauges |= {f"{name}_roll": value for name, value in recent.figures().items()}
        gauges |= asdict(total)
        for suffix, counts in (("tot", total), ("roll", recent)):
            gauges[f"nb_outliers_{suffix}"] = counts.outliers
            gauges[f"nb_labels_{suffix}"] = counts.rows
        return gauges


class RunningConfusion:
    """Running confusion counts, in total and over the last `window` labelled rows."""

    def __init__(self, window: int = 100) -> None:
        self._total: Counter[tuple[int, int]] = Counter()
        self._recent: Counter[tuple[int, int]] = Counter()
        self._order: deque[tuple[int, int]] = deque()
        self._window = window

    def add(self, label: int, truth: int) -> None:
        """Count one row whose truth is now known."""
        pair = (label, truth)
        self._total[pair] += 1
        self._recent[pair] += 1
        self._order.append(pair)
        if len(self._order) > self._window:
            self._recent[self._order.popleft()] -= 1

    def summary(self) -> FeedbackSummary:
        """Return what is known now."""
        return FeedbackSummary(Confusion.count(self._total), Confusion.count(self._recent))
