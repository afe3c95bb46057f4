"""What an operator chooses to flag rows by: a threshold, or a share of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold of the score, which belongs to one model, or a share, which suits any."""

    threshold: float | None = None
    share: float | None = None
    """The share (0 to 1) of rows like training's to flag; None if the threshold counts."""

    def to_json(self) -> Any:
        """Return a number for a threshold, an object for a share."""
        return self.threshold if self.share is None else {"share": self.share}

    @classmethod
    def from_json(cls, value: Any) -> ThresholdChoice:
        """Read what `to_json` returns."""
        if isinstance(value, dict):
            return cls(share=float(value["share"]))
        return cls(float(value))

    def __str__(self) -> str:
        return f"{self.threshold}" if self.share is None else f"share {self.share:g}"


SCIKIT_LEARNS = ThresholdChoice(0.0)
"""scikit-learn's own threshold."""
