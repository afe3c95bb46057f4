"""Results of the stress tests."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """The result of a section: how many inputs were tried, how many held, and the faults."""

    title: str
    tried: int = 0
    held: int = 0
    found: Counter = field(default_factory=Counter)
    """What was observed, and how often."""
    worst: float = 0.0
    """The longest time of one input, in seconds."""
    faults: list = field(default_factory=list)
    missing: str = ""
    """The program that is not installed, so that nothing could be tried."""

    @property
    def verdict(self):
        """Return the verdict; a section without inputs has not held."""
        if self.faults:
            return "BROKEN"
        return "held" if self.tried else f"not tried: no {self.missing or 'tries'}"

    def note(self, name, fault, seconds=0.0, found=None):
        """Count one input; `fault` is empty if it held."""
        self.tried += 1
        self.worst = max(self.worst, seconds)
        if found:
            self.found[found] += 1
        if fault:
            self.faults.append(f"{name}: {fault}")
        else:
            self.held += 1
