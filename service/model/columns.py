"""Turn the raw table of a request into the numbers that a model takes.

This is the one place that knows which columns a model has and what their cells mean. Today every
column holds numbers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..cells import are_positional, short
from ..errors import BadInput, count, nearest
from ..rows import RawTable, Rows, label_column


@dataclass(frozen=True)
class Columns:
    """The columns of a model, in the order of its training table."""

    names: tuple[str, ...]
    by_name: bool = True
    """Whether named columns may come in any order; else names are ignored."""
    takes_missing: bool = False
    """Whether values may be missing."""

    def encode(self, table: RawTable) -> Rows:
        """Return the rows of a table as numbers, their columns in the model's order.

        Columns are matched by name when both sides have names, else by position. Empty names, and
        names such as `t:0`, are Seldon's way to say "by position".

        Raises:
            BadInput: a cell is no number; missing, extra or doubled names; the wrong number of
                columns; or a missing value in a model that takes none.
        """
        rows = table.numbers()
        if rows.missing and not self.takes_missing:
            raise BadInput(f"{_first_missing(rows)}; this model takes none")
        names, width = rows.names, rows.values.shape[1]
        if self.by_name and names:
            if names == self.names and len(names) == width:
                return rows
            if len(names) != width:
                raise BadInput(f"{count(len(names), 'name')} for {count(width, 'column')}")
            if not are_positional(names):
                return self._reorder(rows)
        if width != len(self.names):
            raise BadInput(f"rows have {count(width, 'column')}; {self._expected()}")
        return Rows(rows.values, self.names, rows.missing)

    def _reorder(self, rows: Rows) -> Rows:
        self._check_names(rows.names)
        index = {name: j for j, name in enumerate(rows.names)}
        order = [index[name] for name in self.names]
        return Rows(np.ascontiguousarray(rows.values[:, order]), self.names, rows.missing)

    def _check_names(self, names: tuple[str, ...]) -> None:
        if doubled := [name for name, times in Counter(names).items() if times > 1]:
            raise BadInput(f"column {short(doubled[0])} is named twice")
        sent, known = set(names), set(self.names)
        missing = [name for name in self.names if name not in sent]
        extra = [name for name in names if name not in known]
        if missing:
            hint = nearest(missing[0], extra)
            raise BadInput(f"column {missing[0]!r} is missing{hint}; {self._expected()}")
        if extra:
            hint = nearest(extra[0], self.names)
            raise BadInput(f"column {short(extra[0])} is unknown{hint}; {self._expected()}")

    def _expected(self) -> str:
        shown = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
        return f"this model expects {len(self.names)}: {shown}"


def _first_missing(rows: Rows) -> str:
    """Say where the first missing value is."""
    i, j = np.argwhere(np.isnan(rows.values))[0].tolist()
    return f"row {i}, column {label_column(j, rows.names)}: a missing value (null, NaN or empty)"
