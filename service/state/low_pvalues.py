"""Counts of scored rows with a low p-value, by level."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..rows import Floats
from .shared_counters import SharedCounters

FILE_NAME = "pvalues.bin"

LEVELS = (0.01, 0.001)
"""Rows with a p-value of at most this are counted: of rows like training's, this share."""

LARGEST = max(LEVELS)


class LowPValues:
    """The rows so far with a low p-value, shared by the threads and processes of a service."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open or create the file in `folder`; without one the counts are in shared memory."""
        layout = {"kind": "low p-values", "format": 1, "levels": list(LEVELS)}
        self._counters = SharedCounters(layout, len(LEVELS), folder and folder / FILE_NAME)

    def add(self, pvalues: Floats) -> None:
        """Count rows with these p-values, (n,)."""
        self._counters.add(
            (place, int(np.count_nonzero(pvalues <= level))) for place, level in enumerate(LEVELS)
        )

    def read(self) -> Mapping[float, int]:
        """Return the rows so far by level."""
        return dict(zip(LEVELS, self._counters.read(), strict=True))
