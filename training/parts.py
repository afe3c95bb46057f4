"""Read a table that may be larger than the memory, in one file or many, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import BadInput, nearest
from service.tables.batches import Batches, Choices, Place, open_batches
from service.tables.places import is_address
from service.tables.read import Table

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 131_072
"""The most rows of a batch: 1 MB for each column of numbers."""

Watch = Callable[[int, float], None]
"""Called after each batch with the rows so far, and about which share of the table they are."""


class Batch(NamedTuple):
    """Some rows of a table."""

    table: Table
    first: int
    """Where the first of them is in its file."""


@dataclass
class Parts:
    """The files of a table; the first one says which columns it has, and their order."""

    places: Sequence[str]
    choices: Choices = field(default_factory=Choices)
    names: list[str] = field(default_factory=list)
    """Known once the first batch was read."""
    _first: pa.Table | None = None

    def read(self, watch: Watch, names: Sequence[str] | None = None) -> Iterator[Batch]:
        """Yield all rows in order, with all columns or those with these names.

        Raises:
            BadInput: a file cannot be read, or has other columns than the first.
        """
        rows = 0
        for i, place in enumerate(self.places):
            with closing(open_batches(place, self.choices)) as batches:
                self._compare(batches)
                start = rows
                for batch in self._read(place, batches, names or self.names):
                    yield Batch(batch, rows - start)
                    rows += len(batch)
                    share = batches.share_read(rows - start)
                    watch(rows, (i + min(share, 1.0)) / len(self.places))
        if not rows:
            raise BadInput(f"{self._where()} has no rows")

    def _read(self, place: str, batches: Batches, names: Sequence[str]) -> Iterator[Table]:
        import pyarrow as pa  # noqa: PLC0415

        path: Place = place if is_address(place) else Path(place)
        columns = [batches.names.index(name) for name in names]
        for batch in batches.read(columns, ROWS, threads=True):
            if len(batch):
                table = pa.Table.from_arrays(batch.columns, names=list(names))
                yield Table(path, table, batches.decimal, batches.notes)

    def _compare(self, batches: Batches) -> None:
        """Compare the columns of a file with those of the first."""
        import pyarrow as pa  # noqa: PLC0415

        schema = pa.schema(zip(batches.names, batches.schema.types, strict=True))
        if self._first is None:
            self._first, self.names = schema.empty_table(), list(batches.names)
            # A decimal mark is not found out anew in each file.
            self.choices = replace(self.choices, decimal=batches.decimal or self.choices.decimal)
            return
        first = self.places[0]
        _compare_names(first, self.names, batches.place, batches.names)
        _compare_names(batches.place, batches.names, first, self.names)
        if bool(batches.decimal) != bool(self.choices.decimal):
            raise BadInput(
                f"one of {first} and {batches.place} is CSV, and the other is not; the files of a "
                "table are of one kind"
            )
        try:
            concatenate([self._first, schema.empty_table()])
        except BadInput as error:
            raise BadInput(f"{batches.place} does not fit {first}: {error}") from error

    def _where(self) -> str:
        return self.places[0] if len(self.places) == 1 else f"none of {len(self.places)} files"


def _compare_names(one: str, names: Sequence[str], other: str, others: Sequence[str]) -> None:
    """Refuse a column of one file that another file does not have."""
    for name in names:
        if name not in others:
            hint = nearest(name, [another for another in others if another not in names])
            raise BadInput(
                f"{other} has no column {name!r}{hint}, and {one} has; the files of a table have "
                "the same columns"
            )


class Pool:
    """A uniform sample of the rows of a table, all of them if there are at most `most`.

    Each row gets a random number, and those with the smallest ones stay, in their order. So the
    sample does not depend on how the rows come in batches.
    """

    def __init__(self, most: int, seed: int) -> None:
        self.seen = 0
        """How many rows there were."""
        self._most = most
        self._random = np.random.default_rng(seed)
        self._limit = 1.0
        self._tables: list[pa.Table] = []
        self._keys: list[NDArray[np.float64]] = []
        self._waiting = 0

    def add(self, table: Table) -> None:
        """Take the next rows."""
        self.seen += len(table)
        keys = self._random.random(len(table))
        chosen = np.flatnonzero(keys < self._limit)
        if len(chosen):
            self._tables.append(table.take(chosen).arrow)
            self._keys.append(keys[chosen])
            self._waiting += len(chosen)
        if self._waiting > 1.5 * self._most:
            self._choose()

    def rows(self) -> pa.Table:
        """Return the sample."""
        self._choose()
        return self._tables[0]

    def _choose(self) -> None:
        """Keep the rows with the smallest numbers."""
        table, keys = concatenate(self._tables), np.concatenate(self._keys)
        if len(keys) > self._most:
            chosen = np.sort(np.argpartition(keys, self._most - 1)[: self._most])
            table, keys = table.take(chosen).combine_chunks(), keys[chosen]
            self._limit = float(keys.max())
        self._tables, self._keys, self._waiting = [table], [keys], len(keys)


def concatenate(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all tables; BadInput if a column is of types that do not fit together."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise BadInput(str(error).removeprefix("Unable to merge: ")) from error
