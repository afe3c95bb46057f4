"""Turn the raw table of a request into the numbers that a model takes.

Only this module matches columns and decides what their cells mean; `encoding` has the encoders.
docs/internals/columns.md describes both.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from operator import le
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..cells import parse_text, read_positions, short
from ..errors import BadInput, count, nearest
from ..rows import Floats, RawTable, Rows, label_column, record_type
from .card import Card, Column
from .encoding import CellFault, Encoder, NumberEncoder, make_encoder, pad, store

_Cells = Sequence[Sequence[Any]]
"""The cells of a table, column by column."""
_Places = Sequence[int]
"""For each column of the model, its place among the columns that came."""
_Ids = list[str] | None


class Columns:
    """The columns of a model, in the order of its training table."""

    def __init__(  # noqa: PLR0913, PLR0917 -- what a card says
        self,
        columns: Sequence[Column],
        by_name: bool = True,
        left_out: Sequence[str] = (),
        id: str = "",
        decimal: str = ".",
        named: bool = True,
    ) -> None:
        """Use the columns of a card.

        `by_name`: columns are found by name, in any order; else names are ignored. `left_out` are
        names that may come along, `id` the one of them that is returned. `decimal` is the decimal
        mark of the training file. `named`: the names are the table's own, else f0, f1, ...
        """
        self.names = tuple(column.name for column in columns)
        self._by_name, self._named, self._decimal = by_name, named, decimal
        self._left_out, self._id = frozenset(left_out), id
        self._encoders = [make_encoder(column) for column in columns]
        ends = np.cumsum([len(encoder.features) for encoder in self._encoders]).tolist()
        self._spans = list(zip([0, *ends], ends, strict=False))
        self.features = tuple(name for encoder in self._encoders for name in encoder.features)
        """The names of the encoded matrix's columns."""
        n_texts = sum(encoder.is_text for encoder in self._encoders)
        self._all_numbers = not n_texts
        self._places = self._place_cells()
        self._low = [encoder.low for encoder in self._encoders]
        self._high = [encoder.high for encoder in self._encoders]
        self._lows, self._highs = np.array(self._low), np.array(self._high)
        with_id = n_texts + bool(id)
        self._record = record_type(len(self.names) - n_texts, with_id) if with_id else None

    @classmethod
    def from_card(cls, card: Card, by_name: bool = True) -> Columns:
        """Return the columns of a model with a card."""
        left_out = [column.name for column in card.left_out]
        return cls(card.columns, by_name, left_out, card.id or "", card.decimal)

    @classmethod
    def of_numbers(
        cls,
        names: Sequence[str],
        by_name: bool = True,
        named: bool = True,
        takes_missing: bool = False,
    ) -> Columns:
        """Return columns of numbers of which nothing else is known."""
        columns = [Column(name, "number", "float", int(takes_missing)) for name in names]
        return cls(columns, by_name, named=named)

    @property
    def recorded(self) -> dict[str, bool]:
        """The names of the cells in a recorded row, and whether each is text; the id is last."""
        recorded = {name: e.is_text for name, e in zip(self.names, self._encoders, strict=True)}
        return recorded | ({self._id: True} if self._id else {})

    def encode(self, table: RawTable) -> Rows:
        """Return the rows of a table as numbers, their columns in the model's order.

        Columns are matched by name. Names such as `t:0` or `0` that the model does not have are
        positions. Tables without names have the model's order; so have all tables of a model
        without names, unless they name f0, f1, ...

        Raises:
            BadInput: a cell is not what its column takes; a name is missing, unknown or repeated;
                the number of columns is wrong; or the first line of a CSV is no line of names.
        """
        if not self._all_numbers or (table.is_csv and self._decimal != "."):
            return self._encode_cells(table)
        values = table.floats()
        if values is None:
            return self._encode_cells(table)
        order, id_at = self._match(table, values.shape[1])
        if id_at is not None:
            return self._encode_cells(table)
        if order is not None:
            values = np.ascontiguousarray(values[:, order])
        if len(values) == 1:
            row = values[0].tolist()
            if all(map(le, self._low, row)) and all(map(le, row, self._high)):
                return Rows(values, self.names, texts=self._record_numbers(values))
        elif ((values >= self._lows) & (values <= self._highs)).all():
            return Rows(values, self.names, texts=self._record_numbers(values))
        return self._check_numbers(values, table, order)

    def find(self, names: Sequence[str]) -> list[int]:
        """Return the place of each column among the columns of a file, which may hold others, too.

        Names and positions are matched as `encode` does.

        Raises:
            BadInput: a name is missing or repeated, or the file has columns of other names only.
        """
        names = tuple(name.strip() for name in names)
        order = self._find_order(names, takes_others=True) if self._by_name else None
        if order is None and len(names) != len(self.names):
            raise BadInput(f"the table has {count(len(names), 'column')}; {self._expected()}")
        return list(range(len(names))) if order is None else order

    @property
    def encoders(self) -> list[tuple[Encoder, slice]]:
        """The encoder of each column, and its features' places in the encoded matrix."""
        return [(e, slice(*span)) for e, span in zip(self._encoders, self._spans, strict=True)]

    @property
    def decimal(self) -> str:
        """The decimal mark of the training file."""
        return self._decimal

    def add_up(self, shares: Floats) -> Floats:
        """Return the contributions of columns, (n_rows, n_columns), from those of features."""
        if len(self.features) == len(self.names):
            return shares
        return np.add.reduceat(shares, [start for start, _ in self._spans], axis=1)

    def cells(self, rows: Rows) -> list[list[Any]]:
        """Return the client's own cells, row by row; None where one is missing."""
        return [[self._cell(row, j) for j in range(len(self.names))] for row in rows.cells]

    def _cell(self, row: Any, j: int) -> Any:
        if self._record is None:
            number = float(row[j])
        elif self._encoders[j].is_text:
            return row["texts"][self._places[j]].decode(errors="replace") or None
        else:
            number = float(row["values"][self._places[j]])
        return None if math.isnan(number) else number

    def _check_numbers(self, values: Floats, table: RawTable, order: Sequence[int] | None) -> Rows:
        """Return rows of numbers of which some are missing or out of range."""
        odd, faults = [], []
        for j, encoder in enumerate(self._encoders):
            try:
                found = cast(NumberEncoder, encoder).check(values[:, j])
            except CellFault as fault:
                faults.append((fault.row, j if order is None else order[j], fault.text))
            else:
                odd += [(j, kind, number) for kind, number in found.items() if number]
        self._refuse_first(faults, table)
        return Rows(values, self.names, _any_missing(odd), self._record_numbers(values), odd)

    def _record_numbers(self, values: Floats) -> NDArray[np.void] | None:
        """Return rows of numbers as they are recorded, without ids; None if that is `values`."""
        if self._record is None:
            return None
        record = np.zeros(len(values), self._record)
        record["values"] = values
        return record

    def _encode_cells(self, table: RawTable) -> Rows:
        """Encode a table column by column."""
        columns = table.columns()
        order, id_at = self._match(table, len(columns))
        places = range(len(columns)) if order is None else order
        ids = None if id_at is None else self._read_ids(columns[id_at], id_at, table)
        if len(columns[0]) == 1:
            return self._encode_row(columns, places, ids, table)
        return self._encode_rows(columns, places, ids, table)

    def _encode_row(self, columns: _Cells, places: _Places, ids: _Ids, table: RawTable) -> Rows:
        decimal = self._decimal if table.is_csv else ""
        features: list[float] = []
        numbers: list[float] = []
        texts: list[bytes] = []
        odd = []
        for encoder, place in zip(self._encoders, places, strict=True):
            try:
                found, cell, kind = encoder.one(columns[place][0], decimal)
            except CellFault as fault:
                self._refuse_first([(0, place, fault.text)], table)
            features += found
            (texts if encoder.is_text else numbers).append(cell)
            if kind >= 0:
                odd.append((len(numbers) + len(texts) - 1, kind, 1))
        values = np.frombuffer(array("d", features)).reshape(1, -1)
        record = self._record_row(numbers, texts, ids)
        return Rows(values, self.names, _any_missing(odd), record, odd, ids)

    def _record_row(
        self, numbers: list[float], texts: list[bytes], ids: list[str] | None
    ) -> NDArray[np.void] | None:
        if self._record is None:
            return None
        if self._id:
            texts.append(pad(store(ids[0])) if ids else pad(b""))
        return np.frombuffer(array("d", numbers).tobytes() + b"".join(texts), self._record)

    def _encode_rows(self, columns: _Cells, places: _Places, ids: _Ids, table: RawTable) -> Rows:
        n, decimal = len(columns[0]), self._decimal if table.is_csv else ""
        values = np.zeros((n, len(self.features)))
        record = None if self._record is None else np.zeros(n, self._record)
        odd, faults = [], []
        for j, (encoder, place) in enumerate(zip(self._encoders, places, strict=True)):
            start, end = self._spans[j]
            try:
                stored, found = encoder.many(columns[place], decimal, values[:, start:end])
            except CellFault as fault:
                faults.append((fault.row, place, fault.text))
                continue
            odd += [(j, kind, number) for kind, number in found.items() if number]
            if record is not None:
                record["texts" if encoder.is_text else "values"][:, self._places[j]] = stored
        self._refuse_first(faults, table)
        if record is not None and ids:
            record["texts"][:, -1] = [store(id) for id in ids]
        return Rows(values, self.names, _any_missing(odd), record, odd, ids)

    def _read_ids(self, cells: Sequence[Any], place: int, table: RawTable) -> list[str]:
        try:
            return [parse_text(cell) for cell in cells]
        except TypeError as error:
            where = label_column(place, table.names)
            raise BadInput(f"column {where} is the id of each row: {error}") from error

    def _refuse_first(self, faults: Sequence[tuple[int, int, str]], table: RawTable) -> None:
        """Raise BadInput for the first of some faults: (row, column of the table, why)."""
        if faults:
            i, j, text = min(faults)
            by_position = not any(table.names) and self._by_name and self._named
            names = self.names if by_position else table.names
            raise BadInput(f"row {i}, column {label_column(j, names)}: {text}")

    def _place_cells(self) -> list[int]:
        """Return the place of each column among the numbers, or among the texts, of a record."""
        used = Counter[bool]()
        places = []
        for encoder in self._encoders:
            places.append(used[encoder.is_text])
            used[encoder.is_text] += 1
        return places

    def _match(self, table: RawTable, width: int) -> tuple[list[int] | None, int | None]:
        """Return the place of each column in a table, None if all are in place, and the id's."""
        names = table.names
        if names == self.names and width == len(names):
            return None, None
        names = tuple(name.strip() for name in names)
        if table.is_headless and set(names).isdisjoint(self.names):
            raise BadInput(
                "the first line is taken for the names of the columns, and it holds none "
                f"({short(', '.join(names))}); send a line of names before the rows"
            )
        if self._by_name and names:
            if len(names) != width:
                raise BadInput(f"{count(len(names), 'name')} for {count(width, 'column')}")
            if (order := self._find_order(names)) is not None:
                return order, names.index(self._id) if self._id in names else None
        if width != len(self.names):
            raise BadInput(f"rows have {count(width, 'column')}; {self._expected()}")
        return None, None

    def _find_order(self, names: tuple[str, ...], takes_others: bool = False) -> list[int] | None:
        """Return where each column of the model is in a table; None if the names do not say."""
        is_own = not set(names).isdisjoint(self.names)
        positions = None if is_own else read_positions(names)
        if positions is not None:
            return self._order_positions(names, positions)
        if is_own or (self._named and any(names)):
            self._check_names(names, takes_others)
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

    def _check_names(self, names: tuple[str, ...], takes_others: bool) -> None:
        _check_repeated(names)
        sent, known = set(names), {*self.names, *self._left_out}
        missing = [name for name in self.names if name not in sent]
        extra = [name for name in names if name not in known]
        if missing:
            hint = nearest(missing[0], extra)
            raise BadInput(f"column {missing[0]!r} is missing{hint}; {self._expected()}")
        if extra and not takes_others:
            hint = nearest(extra[0], self.names)
            raise BadInput(f"column {short(extra[0])} is unknown{hint}; {self._expected()}")

    def _expected(self) -> str:
        listed = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
        return f"this model expects {len(self.names)}: {listed}"


def _check_repeated(names: tuple[str, ...]) -> None:
    times = Counter(names)
    if repeated := [name for name in names if times[name] > 1]:
        raise BadInput(f"column {short(repeated[0])} is named twice")


def _any_missing(odd: Sequence[tuple[int, int, int]]) -> bool:
    return any(kind == 2 for _, kind, _ in odd)
