"""The SQLite database that holds feedback.

The file is in WAL mode with full synchronisation: a commit that has returned is on the disk, and
readers never wait for a writer in any process. Each process opens it after the fork, once to write
and once to read; its threads take turns.

When the storage fails (a full disk, a lock that another program holds) the caller gets Unavailable:
the first time after a short wait and from then on at once, so that feedback does not block threads.
The next transaction that succeeds ends this; nothing has to be restarted.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import Unavailable
from ..folder import quarantine
from ..shared import reset_in_children
from .migration import UnknownFormat, prepare, transaction
from .tables import Connection

logger = logging.getLogger(__name__)

# Seconds that one transaction may wait for others to finish: an answer is due within two.
_TIMEOUT = 0.6
_TIMEOUT_FAILING = 0.05  # while the storage fails

# About what one feedback writes; if this fits on the disk, so does the next feedback.
_PROBE_BYTES = 32 * 1024

_ENDINGS = ("-wal", "-shm")  # of the files that SQLite keeps beside the database

_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "secure_delete = ON",
    "temp_store = MEMORY",
)


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
        """Give a transaction that waits for no writer."""
        with self._reader.use() as connection, transaction(connection, "BEGIN"):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a transaction that keeps other writers out."""
        with self._writer.use() as connection, transaction(connection, "BEGIN IMMEDIATE"):
            yield connection

    def probe(self, connection: Connection) -> None:
        """Write about as many bytes as one feedback does."""
        connection.execute(
            "REPLACE INTO trial VALUES (1, zeroblob(:bytes))", {"bytes": _PROBE_BYTES}
        )

    def erase_deleted(self) -> None:
        """Empty the write-ahead log, which may still hold deleted rows."""
        with self._writer.use() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def quarantine_if_unusable(self) -> None:
        """Rename a file that is damaged or of an unknown format; a new one takes its place."""
        reason = None  # also if it cannot be checked now
        try:
            with self.reading() as connection:
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    reason = f"it is damaged ({found})"
        except Unavailable as error:
            cause = error.__cause__
            code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
            if isinstance(cause, UnknownFormat):
                reason = str(cause)
            elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                reason = f"it is damaged ({cause})"
        self.close()
        if reason is not None:
            quarantine(self.path, reason, beside=_ENDINGS)


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
        """Give the connection; an error undoes the open transaction.

        Raises:
            Unavailable: the storage fails, or other threads used it for too long.
        """
        timeout = _TIMEOUT_FAILING if self._failing else _TIMEOUT
        end = time.monotonic() + timeout
        if not self._turn.acquire(timeout=timeout):
            raise Unavailable("the storage of feedback is busy; try again")
        try:
            yield self._open(max(end - time.monotonic(), _TIMEOUT_FAILING))
            if self._failing:
                logger.warning("the storage of feedback works again")
            self._failing = False
        except (sqlite3.Error, OSError) as error:
            self._drop()
            if not self._failing:
                logger.warning("the storage of feedback fails: %s", error)
            self._failing = True
            raise Unavailable(f"the storage of feedback fails ({error}); try again") from error
        except BaseException:
            self._drop()
            raise
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close the connection when no thread uses it any more."""
        with self._turn:
            self._drop()

    def __del__(self) -> None:
        self._drop()

    def _open(self, timeout: float) -> sqlite3.Connection:
        if self._connection is not None and _file_identity(self._path) != self._file:
            self._drop()  # the file was deleted or replaced, so our writes would be lost
        if self._connection is None:
            with self._opening:
                self._connection = _connect(self._path, timeout)
            self._file = _file_identity(self._path)
        self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * timeout)}")
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def _file_identity(path: Path) -> tuple[int, int]:
    """Return numbers that change when the file is replaced; zeros if there is none."""
    with suppress(FileNotFoundError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return 0, 0


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    """Open the database, create or migrate it if necessary; one thread at a time.

    While another connection of this process is open, closing a file of our own on the same database
    would release SQLite's locks; so only a file that is new is ever opened here.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        for ending in _ENDINGS:  # left by a database that was deleted
            Path(f"{path}{ending}").unlink(missing_ok=True)
    connection = sqlite3.connect(
        path, timeout=timeout, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection
