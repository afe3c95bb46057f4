"""What a database must do to hold feedback, so that another can stand beside SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

Values = Mapping[str, Any]
"""The parameters of a statement: `:name` in its text is the value under that name."""


class Result(Protocol):
    """What a statement returned."""

    @property
    def description(self) -> Any:
        """One tuple for each column; it begins with the column's name."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Runs statements of standard SQL with named parameters."""

    def execute(self, statement: str, values: Values = ..., /) -> Result:
        """Run a statement."""

    def executemany(self, statement: str, values: Iterable[Values], /) -> Result:
        """Run a statement once for each set of parameters."""


class Database(Protocol):
    """Transactions, for the threads of this process. Each method but `close` raises Unavailable."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Give a transaction that sees one state of the tables and waits for no writer."""

    def writing(self) -> AbstractContextManager[Connection]:
        """Give a transaction that is committed at the end, or undone; one at a time.

        No other process writes meanwhile, so what the transaction reads stays true until its end.
        """

    def probe(self, connection: Connection) -> None:
        """Try, inside a transaction that writes, whether there is room for the next feedback."""

    def erase_deleted(self) -> None:
        """Overwrite what was deleted, as far as the database has kept a copy."""

    def close(self) -> None:
        """Close what this process has open; the next transaction opens it again."""
