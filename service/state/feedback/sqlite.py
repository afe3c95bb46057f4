"""The SQLite database that holds feedback.

The file is in WAL mode with full synchronisation: a commit that has returned is on the disk, and
readers never wait for a writer in any process. Each process opens it after the fork, once to write
and once to read; its threads take turns. An older format is migrated when the file is opened.

When the storage fails (a full disk, a lock that another program holds) the caller gets Unavailable:
the first time after a short wait and from then on at once, so that feedback keeps no threads from
other work. The next transaction that succeeds ends this; nothing has to be restarted.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ...errors import Unavailable
from ..folder import quarantine
from ..shared import reset_in_children
from .database import Connection
from .sqlite_file import ENDINGS, UnknownFormat, connect, is_of_older_format, transaction

logger = logging.getLogger(__name__)

# Seconds that one transaction may wait for others to finish: an answer is due within two.
_TIMEOUT = 0.6
_TIMEOUT_FAILING = 0.05  # while the storage fails

# About what one feedback writes; if this fits on the disk, so does the next feedback.
_PROBE_BYTES = 32 * 1024


class SQLiteDatabase:
    """A `Database` in one file, shared by the threads and processes of a service."""

    def __init__(self, path: Path) -> None:
        """Use the file at `path`; nothing is opened or created before the first transaction."""
        self.path = path
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Start with no connection open."""
        opening = threading.Lock()
        self._writer, self._reader = _Session(self.path, opening), _Session(self.path, opening)

    def close(self) -> None:
        """Close both connections; the next transaction opens them again."""
        self._writer.close()
        self._reader.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a transaction that sees one state of the tables and waits for no writer.

        Raises:
            Unavailable: the storage fails.
        """
        with self._reader.use() as connection, transaction(connection, "BEGIN"):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a transaction that is committed at the end, or undone; one at a time.

        Raises:
            Unavailable: the storage fails; nothing is changed.
        """
        with self._writer.use() as connection, transaction(connection, "BEGIN IMMEDIATE"):
            yield connection

    def probe(self, connection: Connection) -> None:
        """Write about as many bytes as one feedback does."""
        connection.execute(
            "REPLACE INTO trial VALUES (1, zeroblob(:bytes))", {"bytes": _PROBE_BYTES}
        )

    def erase_deleted(self) -> None:
        """Empty the write-ahead log, which may still hold deleted rows.

        Raises:
            Unavailable: the storage fails.
        """
        with self._writer.use() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def quarantine_if_unusable(self) -> None:
        """Rename a file that is damaged or of an unknown format; a new one takes its place."""
        reason = self._fault()
        self.close()
        if reason is not None:
            quarantine(self.path, reason, beside=ENDINGS)

    def _fault(self) -> str | None:
        """Say why the file can never be used; None if it can, or if that cannot be told now."""
        try:
            with self.reading() as connection:
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                return None if found == "ok" else f"it is damaged ({found})"
        except Unavailable as error:
            cause = error.__cause__
            if isinstance(cause, UnknownFormat):
                return str(cause)
            code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
            damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            return f"it is damaged ({cause})" if damaged else None

    def needs_migration(self) -> bool:
        """Tell whether the file has an older format; it is not changed."""
        with suppress(sqlite3.Error), closing(sqlite3.connect(self.path)) as connection:
            return is_of_older_format(connection)
        return False


class _Session:
    """A connection that the threads of one process use in turn, opened when it is needed."""

    def __init__(self, path: Path, opening: threading.Lock) -> None:
        self._path, self._opening = path, opening
        self._turn = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)
        self._failing = False

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; wait for it, and for other processes, but not for long.

        A transaction still open at an error is undone.

        Raises:
            Unavailable: the storage fails, and how.
        """
        timeout = _TIMEOUT_FAILING if self._failing else _TIMEOUT
        end = time.monotonic() + timeout
        if not self._turn.acquire(timeout=timeout):
            raise Unavailable("the storage of feedback is busy; try again")
        try:
            yield self._open(max(end - time.monotonic(), _TIMEOUT_FAILING))
            self._note(failing=False)
        except (sqlite3.Error, OSError) as error:
            self._drop()
            self._note(failing=True, reason=str(error))
            raise Unavailable(f"the storage of feedback fails ({error}); try again") from error
        except BaseException:
            self._drop()
            raise
        finally:
            self._turn.release()

    def _note(self, failing: bool, reason: str = "") -> None:
        """Log when the storage starts to fail, and when it works again."""
        if failing and not self._failing:
            logger.warning("the storage of feedback fails: %s", reason)
        if self._failing and not failing:
            logger.warning("the storage of feedback works again")
        self._failing = failing

    def close(self) -> None:
        """Close the connection when no thread uses it any more."""
        with self._turn:
            self._drop()

    def __del__(self) -> None:
        self._drop()

    def _open(self, timeout: float) -> sqlite3.Connection:
        if self._connection is not None and _file_identity(self._path) != self._file:
            self._drop()  # the file was deleted or replaced; nobody would read what we write
        if self._connection is None:
            with self._opening:
                self._connection = connect(self._path, timeout)
            self._file = _file_identity(self._path)
        self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * timeout)}")
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def _file_identity(path: Path) -> tuple[int, int]:
    """Return numbers that differ for two files of one name; zeros when there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_dev, status.st_ino
