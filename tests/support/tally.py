"""What came of a section of the stress tests."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What came of a section: how much was tried, how much held, and why the rest did not."""

    title: str
    tried: int = 0
    held: int = 0
    found: Counter = field(default_factory=Counter)
    """What was observed, and how often."""
    worst: float = 0.0
    """The longest that one try took, in seconds."""
    faults: list = field(default_factory=list)
    missing: str = ""
    """What is not installed here, so that nothing could be tried."""

    @property
    def verdict(self):
        """Return what the table says: what was not tried has not held."""
        if self.faults:
            return "BROKEN"
        return "held" if self.tried else f"not tried: no {self.missing or 'tries'}"

    def note(self, name, fault, seconds=0.0, found=None):
        """Count one try; `fault` is empty if it held."""
        self.tried += 1
        self.worst = max(self.worst, seconds)
        if found:
            self.found[found] += 1
        if fault:
            self.faults.append(f"{name}: {fault}")
        else:
            self.held += 1
