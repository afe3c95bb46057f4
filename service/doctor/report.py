"""What a look at an installation has found: a line for each subject."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from ..errors import explain

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One line: how bad it is, what it is about, and what to do."""

    level: Level
    subject: str
    text: str


@dataclass
class Report:
    """The findings so far."""

    tell: Callable[[Finding], None] = lambda finding: None
    """Called with each finding."""
    findings: list[Finding] = field(default_factory=list)

    def add(self, level: Level, subject: str, text: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(level, subject, text))
        self.tell(self.findings[-1])

    def count(self, level: Level) -> int:
        """Return how many findings there are of a level."""
        return sum(finding.level == level for finding in self.findings)

    @contextmanager
    def about(self, subject: str, replace: tuple[str, str] = ("", "")) -> Iterator[list[str]]:
        """Turn what the block logs and raises into findings; else it is ok.

        The block may append to the list what is said if all is well. `replace` is a text in the
        sentences and what stands there instead.
        """
        said: list[str] = []
        try:
            with _collecting() as warnings:
                yield said
        except Exception as error:
            self.add("fault", subject, explain(error).replace(*replace))
        else:
            if not warnings:
                self.add("ok", subject, "; ".join(said))
        for warning in warnings:
            self.add("warning", subject, warning.replace(*replace))


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _collecting() -> Iterator[list[str]]:
    """Collect the warnings that the service logs, instead of showing them."""
    collector, logger = _Collector(), logging.getLogger("service")
    logger.addHandler(collector)
    before = logger.level, logger.propagate
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield collector.lines
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]
        logger.removeHandler(collector)
