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
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, getrlimit
from typing import BinaryIO

from ...errors import Unavailable
from ...files import NotRegular
from ..files import Damaged
from ..folder import measure_space
from ..shared import reset_in_children
from .migration import prepare, transaction

logger = logging.getLogger(__name__)

# Seconds that one transaction may wait for others to finish: an answer is due within two.
_TIMEOUT = 0.6
_TIMEOUT_FAILING = 0.05  # while the storage fails

# More than one feedback writes; if this fits on the disk, so does the next feedback.
_ROOM = 32 * 1024

WAL = "-wal"
ENDINGS = (WAL, "-shm")
"""Of the files that SQLite keeps beside the database."""

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

    @contextmanager
    def trying(self) -> Iterator[sqlite3.Connection]:
        """Give a transaction like `writing` that leaves the tables as they were.

        It writes to the disk only if the storage failed before, to see whether it works again.
        """
        _require_room(self.path)
        failed = self._writer.failing
        with self._writer.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT" if failed else "ROLLBACK")

    def erase_deleted(self) -> None:
        """Empty the write-ahead log, which may still hold deleted rows."""
        with self._writer.use() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class _Session:
    """A connection that the threads of one process use in turn, opened when it is needed."""

    def __init__(self, path: Path, opening: threading.Lock) -> None:
        self._path, self._opening = path, opening
        self._turn = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)
        self.failing = False

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; an error undoes the open transaction.

        Raises:
            Unavailable: the storage fails, or other threads used it for too long.
        """
        timeout = _TIMEOUT_FAILING if self.failing else _TIMEOUT
        end = time.monotonic() + timeout
        if not self._turn.acquire(timeout=timeout):
            raise Unavailable("the storage of feedback is busy; try again")
        try:
            yield self._open(max(end - time.monotonic(), _TIMEOUT_FAILING))
            if self.failing:
                logger.warning("the storage of feedback works again")
            self.failing = False
        except (sqlite3.Error, OSError) as error:
            self._drop()
            if not self.failing:
                logger.warning("the storage of feedback fails: %s", error)
            self.failing = True
            reason = getattr(error, "strerror", None) or error  # without a path
            raise Unavailable(f"the storage of feedback fails ({reason}); try again") from error
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
    would release SQLite's locks; so only SQLite opens it.
    """
    require_regular(path)
    if not path.exists():
        _create(path)
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", timeout=timeout, isolation_level=None,
        check_same_thread=False, uri=True,
    )  # fmt: skip
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def copy_database(path: Path, folder: Path) -> BinaryIO:
    """Return a file in `folder` with one state of a database; others may write meanwhile.

    The file has no name any more, so nothing is left of it, whatever happens.

    Raises:
        Damaged: the database is damaged; the text says how.
        OSError: the copy cannot be written.
    """
    require_regular(path)
    name = folder / f"{path.name}.copy-{os.getpid()}"
    copy = os.fdopen(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600), "rb")
    try:
        source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_TIMEOUT)
        with closing(source), closing(sqlite3.connect(name)) as target:
            target.execute("PRAGMA journal_mode = OFF")
            name.unlink()
            found = source.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise Damaged(f"it is damaged ({found})")
            source.backup(target)
            os.fsync(copy.fileno())
    except sqlite3.Error as error:
        copy.close()
        raise Damaged(f"it cannot be copied ({error})") from error
    except BaseException:
        copy.close()
        raise
    finally:
        name.unlink(missing_ok=True)
    return copy


def _create(path: Path) -> None:
    """Create an empty database with today's tables, whole or not at all.

    Another process may do the same at this time; then the first one counts.
    """
    unfinished = path.with_name(f"{path.name}.new-{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    try:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            prepare(connection)
        for ending in ENDINGS:  # left by a database that was deleted
            Path(f"{path}{ending}").unlink(missing_ok=True)
        with suppress(FileExistsError):
            path.hardlink_to(unfinished)
    finally:
        for ending in ("", "-journal", *ENDINGS):
            Path(f"{unfinished}{ending}").unlink(missing_ok=True)


def require_regular(path: Path) -> None:
    """Raise NotRegular if a pipe, device or folder stands in the place of one of the files."""
    for ending in ("", *ENDINGS):
        one = Path(f"{path}{ending}")
        if os.path.lexists(one) and not one.is_file():
            raise NotRegular(one)


def _require_room(path: Path) -> None:
    """Raise Unavailable if the next feedback would not fit on the disk."""
    space, wal = measure_space(path.parent), Path(f"{path}{WAL}")
    limit = getrlimit(RLIMIT_FSIZE)[0]
    size = wal.stat().st_size if wal.exists() else 0
    if (space and space[1] < _ROOM) or (limit != RLIM_INFINITY and size + _ROOM > limit):
        raise Unavailable("the storage of feedback is full; try again")
