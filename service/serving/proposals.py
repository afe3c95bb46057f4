"""Choose a threshold: what each would flag, find and cost, and which one keeps a promise.

`Evidence` is what is known about the scores of a model. `Evidence.step` says what one threshold
would do, `ladder` what those for usual shares would, and `propose` finds one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..model.card import Card
from ..model.pvalues import PValues, kept_ranks, no_share
from ..rows import Floats

SHARES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""The shares of rows whose thresholds make the ladder."""

_Z = 1.959963984540054  # 95 %

_FEW = 10
"""Fewer flagged rows than these say little about a share."""


class Interval(NamedTuple):
    """A share (0 to 1) that was observed, and the bounds of its interval of 95 %."""

    share: float
    low: float
    high: float

    @classmethod
    def of(cls, part: int, whole: int) -> Interval | None:
        """Return Wilson's score interval (Wilson, JASA 1927) of `part` in `whole`; None of 0.

        >>> Interval.of(9, 10)
        Interval(share=0.9, low=0.5958499732047615, high=0.9821237869049271)
        """
        if not whole:
            return None
        share, ratio = part / whole, _Z**2 / whole
        middle = (share + ratio / 2) / (1 + ratio)
        half = math.sqrt(share * (1 - share) * ratio + ratio**2 / 4) / (1 + ratio)
        return cls(share, max(0.0, middle - half), min(1.0, middle + half))


class Cost(NamedTuple):
    """What a false alarm and a missed outlier cost, in any one unit."""

    fp: float
    fn: float


@dataclass(frozen=True, eq=False)
class Labels:
    """Rows whose truth is known, in the order of their scores: all, or those at some ranks."""

    scores: Floats
    """(k,) ascending"""
    ranks: NDArray[np.int64]
    """(k,) How many labelled rows score at most as low; the last is `rows`."""
    found: NDArray[np.int64]
    """(k,) How many of these are outliers; the last is all of them."""
    source: str
    """What is labelled, for people: 'rows with feedback', ..."""
    all_flagged: bool = False
    """Whether only flagged rows have a truth, so that nothing is known of missed outliers."""

    @classmethod
    def of(
        cls, scores: Floats, truths: NDArray[np.int64], source: str, all_flagged: bool = False
    ) -> Labels:
        """Sort labelled rows; `truths` is (n,), 1 for an outlier."""
        order = np.argsort(scores, kind="stable")
        ranks, found = np.arange(1, len(scores) + 1), np.cumsum(truths[order])
        return cls(np.asarray(scores)[order], ranks, found, source, all_flagged)

    @classmethod
    def of_card(cls, card: Card | None) -> Labels | None:
        """Return the labels of the training table that a card keeps, if it does."""
        kept = card and card.labels
        if not kept:
            return None
        source = "held-out rows" if kept.held_out else "training rows"
        scores, found = np.array(kept.scores), np.array(kept.found)
        return cls(scores, kept_ranks(kept.rows), found, source)

    @property
    def rows(self) -> int:
        """How many rows are labelled."""
        return int(self.ranks[-1])

    @property
    def outliers(self) -> int:
        """How many of them are outliers."""
        return int(self.found[-1])

    def below(self, threshold: float) -> tuple[int, int]:
        """Return how many labelled rows a threshold flags, and how many of these are outliers."""
        i = int(np.searchsorted(self.scores, threshold, side="left")) - 1
        return (0, 0) if i < 0 else (int(self.ranks[i]), int(self.found[i]))

    def cuts(self) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
        """Return all thresholds that flag different rows; how many each flags and finds."""
        ends = np.append(self.scores[1:] > self.scores[:-1], True)  # equal scores go together
        scores = self.scores[ends]
        between = np.append((scores[:-1] + scores[1:]) / 2, np.nextafter(scores[-1], np.inf))
        flagged, found = (np.insert(part[ends], 0, 0) for part in (self.ranks, self.found))
        return np.insert(between, 0, scores[0]), flagged, found


@dataclass(frozen=True)
class Step:
    """What one threshold does. None is what nothing is known about."""

    threshold: float
    promised: float | None
    """The share (0 to 1) of rows like training's that it flags, at most: by the p-values."""
    recorded: float | None
    """The share of the recorded rows that it flags."""
    per_day: float | None
    """Flagged rows a day, at the recorded rate."""
    precision: Interval | None
    recall: Interval | None
    cost: float | None
    """For each 1,000 labelled rows."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about the scores of a model."""

    pvalues: PValues | None = None
    recorded: Floats = field(default_factory=lambda: np.empty(0))
    """(n,) Scores of the rows that this model scored last, ascending."""
    rate: float | None = None
    """Rows a day."""
    labels: Labels | None = None
    without: str = ""
    """Why there are no p-values."""

    def step(self, threshold: float, cost: Cost | None = None) -> Step:
        """Say what a threshold would do."""
        promised = recorded = per_day = None
        if self.pvalues is not None:
            promised = float(self.pvalues.shares(np.array([threshold]))[0])
        if len(self.recorded):
            flagged = int(np.searchsorted(self.recorded, threshold, side="left"))
            recorded = flagged / len(self.recorded)
        share = promised if recorded is None else recorded
        if share is not None and self.rate is not None:
            per_day = share * self.rate
        return Step(threshold, promised, recorded, per_day, *self._measure(threshold, cost))

    def ladder(self, cost: Cost | None = None, shares: tuple[float, ...] = SHARES) -> list[Step]:
        """Return a step for each of some shares, the lowest threshold first.

        BadInput if nothing is known about the scores.
        """
        if self.pvalues is not None:
            shares = tuple(share for share in shares if share >= self.pvalues.smallest)
        return [self.step(one, cost) for one in sorted({self._at(share) for share in shares})]

    def at_share(self, share: float) -> Step:
        """Return the highest threshold that flags at most a share of rows like training's."""
        if self.pvalues is None:
            raise BadInput(no_share(self.without))
        return self.step(self.pvalues.threshold(share))

    def at_budget(self, per_day: float) -> Step:
        """Return the highest threshold that flags at most so many rows a day.

        It counts recorded rows; where too few would be flagged to count, p-values stand in.
        """
        if not per_day > 0:
            raise BadInput(f"a budget is above 0 rows a day, not {per_day:g}")
        if not self.rate:
            raise BadInput(
                "the rows a day are not known, because too few are recorded: say them, as "
                "--rate 50000/day"
            )
        share = min(per_day / self.rate, 1 - 1e-9)
        flagged = int(share * len(self.recorded))
        if flagged < _FEW and self.pvalues is not None and share >= self.pvalues.smallest:
            return self.at_share(share)
        if not len(self.recorded):
            return self.at_share(share)
        return self.step(float(self.recorded[flagged]))

    def at_cost(self, cost: Cost) -> Step:
        """Return the threshold that costs the least on the labelled rows."""
        labels = self._need_recall("cost")
        thresholds, flagged, found = labels.cuts()
        costs = cost.fp * (flagged - found) + cost.fn * (labels.outliers - found)
        return self.step(float(thresholds[costs.argmin()]), cost)

    def at_recall(self, recall: float) -> Step:
        """Return the lowest threshold that finds this share of the labelled outliers."""
        if not 0 < recall <= 1:
            raise BadInput(f"a recall is above 0 and at most 1, not {recall:g}")
        labels = self._need_recall("recall")
        thresholds, _, found = labels.cuts()
        needed = math.ceil(recall * labels.outliers - 1e-9)
        return self.step(float(thresholds[np.searchsorted(found, needed)]))

    def _at(self, share: float) -> float:
        """Return the threshold that flags a share, by the best source that there is."""
        if self.pvalues is not None:
            return self.pvalues.threshold(share)
        if len(self.recorded):
            return float(self.recorded[int(share * len(self.recorded))])
        if self.labels is not None:
            ranks = self.labels.ranks
            return float(self.labels.scores[np.searchsorted(ranks, share * ranks[-1])])
        raise BadInput(
            "nothing is known about the scores of this model: its card has no p-values, no rows "
            "are recorded, and no labels are known"
        )

    def _measure(
        self, threshold: float, cost: Cost | None
    ) -> tuple[Interval | None, Interval | None, float | None]:
        """Return precision, recall and cost on the labelled rows, as far as they are known."""
        labels = self.labels
        if labels is None:
            return None, None, None
        flagged, found = labels.below(threshold)
        if labels.all_flagged:  # above the highest of them, flagged rows have no truth
            known = threshold <= np.nextafter(labels.scores[-1], np.inf)
            return (Interval.of(found, flagged) if known else None), None, None
        missed = labels.outliers - found
        total = None
        if cost is not None:
            total = 1000 * (cost.fp * (flagged - found) + cost.fn * missed) / labels.rows
        return Interval.of(found, flagged), Interval.of(found, labels.outliers), total

    def _need_recall(self, what: str) -> Labels:
        """Return the labels; BadInput if they say nothing about missed outliers."""
        if self.labels is None:
            raise BadInput(f"{what} needs labels: train with --label, or send feedback")
        if self.labels.all_flagged:
            raise BadInput(
                f"{what} needs labels of rows that were not flagged; only flagged ones have a "
                "truth: send the truth of some others, chosen at random"
            )
        if not self.labels.outliers:
            raise BadInput(f"{what} needs labelled outliers; there are none")
        return self.labels


def measure_rate(times: Floats) -> float | None:
    """Return the rows a day at which rows were recorded; None for fewer than two, or an instant.

    `times` are (n,) seconds.
    """
    if len(times) < _FEW:
        return None
    seconds = float(times.max() - times.min())
    return (len(times) - 1) * 86_400 / seconds if seconds > 0 else None
