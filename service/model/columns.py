"""Turn the raw table of a request into the numbers that a model takes.

Only this module matches columns and decides what their cells mean. Every column holds numbers.
"""

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
    """Whether columns are found by name, in any order; else names are ignored."""
    takes_missing: bool = False
    """Whether values may be missing."""

    def encode(self, table: RawTable) -> Rows:
        """Return the rows of a table as numbers, their columns in the model's order.

        Columns are matched by name when both sides have names, else by position. Names that are
        empty or such as `t:0` are Seldon's placeholders and count as no names.

        Raises:
            BadInput: a cell is not a number; a name is missing, extra or repeated; the number of
                columns is wrong; or a value is missing and the model takes none.
        """
        rows = table.numbers()
        if rows.missing and not self.takes_missing:
            i, j = np.argwhere(np.isnan(rows.values))[0].tolist()
            where = f"row {i}, column {label_column(j, rows.names)}"
            fault = "a missing value (null, NaN or empty); this model takes none"
            raise BadInput(f"{where}: {fault}")
        names, width = rows.names, rows.values.shape[1]
        if self.by_name and names:
            if len(names) != width:
                raise BadInput(f"{count(len(names), 'name')} for {count(width, 'column')}")
            if names == self.names:
                return rows
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
        times, expected = Counter(names), set(self.names)
        if repeated := [name for name in names if times[name] > 1]:
            raise BadInput(f"column {short(repeated[0])} is named twice")
        missing = [name for name in self.names if name not in times]
        extra = [name for name in names if name not in expected]
        if missing:
            hint = nearest(missing[0], extra)
            raise BadInput(f"column {missing[0]!r} is missing{hint}; {self._expected()}")
        if extra:
            hint = nearest(extra[0], self.names)
            raise BadInput(f"column {short(extra[0])} is unknown{hint}; {self._expected()}")

    def _expected(self) -> str:
        listed = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
        return f"this model expects {len(self.names)}: {listed}"
