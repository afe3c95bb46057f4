"""Times, taken in turns so that whatever else the machine does falls on all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is than another's, from one run."""

    what: str
    other: str
    """What ours is measured against."""
    ours: list[float]
    """Seconds a call, one for each round."""
    theirs: list[float]
    target: float | None = None
    """The least ratio we hold ourselves to."""

    @property
    def value(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(self._ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The lower and upper quartile of the rounds' ratios."""
        lower, _, upper = statistics.quantiles(self._ratios, n=4, method="inclusive")
        return lower, upper

    @property
    def met(self) -> bool:
        """Whether the target is met, or there is none."""
        return self.target is None or self.value >= self.target

    @property
    def _ratios(self) -> list[float]:
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]


@dataclass(frozen=True)
class Figure:
    """A number that stands for itself, such as megabytes."""

    what: str
    value: str


@dataclass(frozen=True)
class AtMost:
    """A number that is better the smaller it is."""

    what: str
    value: float
    target: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.value <= self.target


@dataclass(frozen=True)
class Absent:
    """A comparison that could not be made, and why."""

    what: str
    reason: str


Result = Ratio | Figure | AtMost | Absent
Family = Callable[[bool], Iterator[Result]]
"""A module's `run(short)`: it yields its results one by one."""


def in_turns(
    rounds: int, ours: Callable[[], object], theirs: Callable[[], object], calls: int = 1
) -> tuple[list[float], list[float]]:
    """Time both in turns: a call of theirs, then `calls` of ours, of which the median counts."""
    times: tuple[list[float], list[float]] = [], []
    ours()
    theirs()
    for _ in range(rounds):
        times[1].append(seconds(theirs))
        times[0].append(statistics.median(seconds(ours) for _ in range(calls)))
    return times


def seconds(function: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
