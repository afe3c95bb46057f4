"""Turn the raw table of a request into the numbers that a model takes.

Only this module matches columns and decides what their cells mean. Every column holds numbers.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..cells import read_positions, short
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
    named: bool = True
    """Whether the names are the training table's own; else they are f0, f1, ..."""

    def encode(self, table: RawTable) -> Rows:
        """Return the rows of a table as numbers, their columns in the model's order.

        Columns are matched by name. Names such as `t:0` or `0` that the model does not have are
        positions. Tables without names have the model's order; so have all tables of a model
        without names, unless they name f0, f1, ...

        Raises:
            BadInput: a cell is not a number; a name is missing, extra or repeated; the number of
                names or columns is wrong; a value is missing and the model takes none; or the
                first line of a CSV is no line of names.
        """
        rows = table.numbers()
        self._check_missing(rows)
        width = rows.values.shape[1]
        if rows.names == self.names and width == len(self.names):
            return rows
        if table.is_headless and self._names.isdisjoint(rows.names):
            raise BadInput(
                "the first line is taken for the names of the columns, and it holds none "
                f"({short(', '.join(rows.names))}); send a line of names before the rows"
            )
        order = self._find_order(rows.names, width) if self.by_name and rows.names else None
        if width != len(self.names):
            raise BadInput(f"rows have {count(width, 'column')}; {self._expected()}")
        values = rows.values if order is None else np.ascontiguousarray(rows.values[:, order])
        return Rows(values, self.names, rows.missing)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.names)

    def _check_missing(self, rows: Rows) -> None:
        if rows.missing and not self.takes_missing:
            i, j = np.argwhere(np.isnan(rows.values))[0].tolist()
            where = f"row {i}, column {label_column(j, rows.names)}"
            fault = "a missing value (null, NaN or empty); this model takes none"
            raise BadInput(f"{where}: {fault}")

    def _find_order(self, names: tuple[str, ...], width: int) -> list[int] | None:
        """Return where each column of the model is in a table; None if the names do not say."""
        if len(names) != width:
            raise BadInput(f"{count(len(names), 'name')} for {count(width, 'column')}")
        is_own = not self._names.isdisjoint(names)
        positions = None if is_own else read_positions(names)
        if positions is not None:
            return self._order_positions(names, positions)
        if is_own or (self.named and any(names)):
            self._check_names(names)
            index = {name: j for j, name in enumerate(names)}
            return [index[name] for name in self.names]
        if any(names):
            _check_repeated(names)
        return None

    def _order_positions(self, names: tuple[str, ...], positions: list[int]) -> list[int] | None:
        in_order = list(range(len(self.names)))
        if positions == in_order or len(names) != len(self.names):  # refused by its width
            return None
        index = {position: j for j, position in enumerate(positions)}
        if sorted(positions) != in_order:
            raise BadInput(
                f"columns {short(', '.join(names))} are named by position, which is each of "
                f"0 to {len(names) - 1} once; {self._expected()}"
            )
        return [index[position] for position in in_order]

    def _check_names(self, names: tuple[str, ...]) -> None:
        _check_repeated(names)
        sent = set(names)
        missing = [name for name in self.names if name not in sent]
        extra = [name for name in names if name not in self._names]
        if missing:
            hint = nearest(missing[0], extra)
            raise BadInput(f"column {missing[0]!r} is missing{hint}; {self._expected()}")
        if extra:
            hint = nearest(extra[0], self.names)
            raise BadInput(f"column {short(extra[0])} is unknown{hint}; {self._expected()}")

    def _expected(self) -> str:
        listed = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
        return f"this model expects {len(self.names)}: {listed}"


def _check_repeated(names: tuple[str, ...]) -> None:
    times = Counter(names)
    if repeated := [name for name in names if times[name] > 1]:
        raise BadInput(f"column {short(repeated[0])} is named twice")
