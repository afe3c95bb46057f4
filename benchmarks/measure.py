"""Timing of two functions alternately, so that other load on the machine affects both."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# The end of a program. What `getrusage` says includes the process that has started it.
_PRINT_PEAK = """
lines = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def peak_memory(program: str, *arguments: str, **variables: str) -> float:
    """Run a Python program in a process of its own; return the most memory that it had, in MB.

    Raises:
        RuntimeError: it has failed, with what it said.
    """
    command = [sys.executable, "-c", program + _PRINT_PEAK, *arguments]
    environment = os.environ | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(done.stdout.rsplit(maxsplit=1)[-1]) * 1024 / 1e6


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is than theirs, in one run."""

    what: str
    other: str
    """What ours is compared with."""
    ours: list[float]
    """Seconds per call, one value for each round."""
    theirs: list[float]
    target: float | None = None
    """The smallest ratio that is good enough."""

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
    """A result without a comparison, such as megabytes."""

    what: str
    value: str


@dataclass(frozen=True)
class AtMost:
    """A number that must not be above its target."""

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
    """A comparison that was not possible, and why."""

    what: str
    reason: str


Result = Ratio | Figure | AtMost | Absent
Family = Callable[[bool], Iterator[Result]]
"""The function `run(short)` of a module, which yields its results."""


def in_turns(
    rounds: int, ours: Callable[[], object], theirs: Callable[[], object], calls: int = 1
) -> tuple[list[float], list[float]]:
    """Time alternately one call of theirs and the median of `calls` calls of ours."""
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
