"""Counts of odd cells, by column: out of training's range, of an unknown value, or missing."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..rows import ODD
from .shared_counters import SharedCounters

FILE_NAME = "cells.bin"

_KINDS = len(ODD)


class OddCells:
    """The odd cells so far, shared by the threads and processes of a service."""

    def __init__(self, columns: Sequence[str], folder: Path | None = None) -> None:
        """Open or create the file in `folder`; without one the counts are in shared memory."""
        self._columns = tuple(columns)
        layout = {
            "kind": "odd cells",
            "format": 1,
            "columns": list(self._columns),
            "odd": list(ODD),
        }
        self._counters = SharedCounters(
            layout, _KINDS * len(columns), folder and folder / FILE_NAME
        )

    def add(self, odd: Iterable[tuple[int, int, int]]) -> None:
        """Count cells: (column, index in ODD, how many) each."""
        self._counters.add((_KINDS * column + kind, number) for column, kind, number in odd)

    def read(self) -> Mapping[tuple[str, str], int]:
        """Return the counts so far by (column, kind)."""
        keys = ((column, kind) for column in self._columns for kind in ODD)
        return dict(zip(keys, self._counters.read(), strict=True))
