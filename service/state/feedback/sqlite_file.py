"""Open the SQLite file that holds feedback: create its tables, migrate or refuse what is there."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import migration
from .tables import VERSION, create_tables

logger = logging.getLogger(__name__)

_APPLICATION = 0x69736F66  # marks the file as isoserve's

ENDINGS = ("-wal", "-shm")  # of the files that SQLite keeps beside the database

_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "secure_delete = ON",
    "temp_store = MEMORY",
)

_KEY = "INTEGER PRIMARY KEY"  # SQLite numbers the rows of such a column by itself


class UnknownFormat(sqlite3.DatabaseError):
    """A database that this version of isoserve does not know."""


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """Open the database, create or migrate it if need be; one thread at a time.

    While another connection of this process is open, closing a file of our own on the same database
    would release SQLite's locks; so only a file that is new is ever opened here.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        for ending in ENDINGS:  # left by a database that somebody deleted
            Path(f"{path}{ending}").unlink(missing_ok=True)
    connection = sqlite3.connect(
        path, timeout=timeout, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty file, or migrate an older format, in one transaction."""
    if _identify(connection) == (_APPLICATION, VERSION):
        return
    changed = None
    with transaction(connection, "BEGIN IMMEDIATE"):
        found = _identify(connection)
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            connection.execute("CREATE TABLE trial (id INTEGER PRIMARY KEY, content BLOB)")
            create_tables(connection, _KEY)
        elif found == (_APPLICATION, migration.VERSION):
            changed = migration.migrate(connection, _KEY)
        elif found != (_APPLICATION, VERSION):
            raise UnknownFormat(_refusal(*found))
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    if changed is not None:
        logger.warning(
            "feedback is migrated from format %d to format %d; %d rewards were rounded to a "
            "millionth or reduced to a million",
            migration.VERSION,
            VERSION,
            changed,
        )


def _refusal(application: int, version: int) -> str:
    if application != _APPLICATION:
        return "it is not a feedback database of isoserve"
    return f"it has format {version}; this version of isoserve knows formats up to {VERSION}"


def is_of_older_format(connection: sqlite3.Connection) -> bool:
    """Tell whether `connect` would migrate the file."""
    return _identify(connection) == (_APPLICATION, migration.VERSION)


def _identify(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the application and the format that the file's header names."""
    return (
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("PRAGMA user_version").fetchone()[0],
    )


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Commit at the end. After an error the caller closes the connection, which undoes all."""
    connection.execute(begin)
    yield
    connection.execute("COMMIT")
