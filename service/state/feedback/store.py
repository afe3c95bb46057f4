"""What clients say of predictions, kept for good: the truth of rows, and rewards. All SQL is here.

A row is known by its prediction's puid and its number there. What is said of it again takes the
place of what was said before, which moves to the table `revisions`; what is said twice changes
nothing. Triggers keep the totals: they belong to the same transaction as the rows, so they equal a
recount of the table at every moment, whoever was killed and wherever.

The database is SQLite's in WAL mode with full synchronisation: a commit that has returned is on the
disk. Each process opens it after the fork, once to write and once to read; its threads take turns.
Readers never wait for a writer, in whatever process.

A storage that fails (a full disk, a lock that somebody holds) is told as Unavailable: the first
time after a moment's patience and from then on at once, so that feedback keeps no threads from
other work. The next one that can be stored is stored: nothing has to be restarted.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import BadSetting, Unavailable
from ...truths import Confusion, FeedbackSummary
from ..folder import quarantine
from ..shared import reset_in_children

logger = logging.getLogger(__name__)

FILE_NAME = "feedback.db"

DAY = 86_400.0
"""Seconds."""

# Seconds that one feedback may wait for others to finish: its answer is due within two.
_PATIENCE = 0.6
_NO_PATIENCE = 0.05  # while the storage fails

# Rows that each feedback may have to forget for the retention's sake: more than one brings.
_FORGET_AT_ONCE = 100

# About what one feedback writes; if this fits on the disk, so does the next feedback.
_TRIAL_BYTES = 32 * 1024

# A longer puid is kept as its beginning and a hash of the whole.
_PUID_CHARACTERS = 200

_TABLES = ("truths", "rewards")  # what can be said of a prediction

_WHOLE = -1  # the row of a reward for all rows of a prediction

_APPLICATION, _FORMAT = 0x69736F66, 1  # what a file says that it is

_BESIDE = ("-wal", "-shm")  # what SQLite keeps in files of their own

_CHOICES = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "secure_delete = ON",
    "temp_store = MEMORY",
    "trusted_schema = ON",  # the triggers call a function of ours
)

_SCHEMA = (
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_FORMAT}",
    """CREATE TABLE truths (
        place INTEGER PRIMARY KEY,     -- in the order of the first feedback
        puid TEXT NOT NULL,
        row INTEGER NOT NULL,          -- its number in the prediction, from 0
        label INTEGER NOT NULL,        -- what was answered: 1 for an outlier
        truth INTEGER NOT NULL,        -- what it was
        score REAL NOT NULL,
        version TEXT NOT NULL,         -- of the model
        recorded INTEGER NOT NULL,     -- 1: as it was answered; 0: scored again for the feedback
        began REAL NOT NULL,           -- the first feedback, seconds since 1970, UTC
        time REAL NOT NULL,            -- the last one
        UNIQUE (puid, row)
    )""",
    """CREATE TABLE rewards (
        place INTEGER PRIMARY KEY,
        puid TEXT NOT NULL,
        row INTEGER NOT NULL,          -- -1: the whole prediction
        reward REAL NOT NULL,
        began REAL NOT NULL,
        time REAL NOT NULL,
        UNIQUE (puid, row)
    )""",
    """CREATE TABLE revisions (
        puid TEXT NOT NULL,
        row INTEGER NOT NULL,
        label INTEGER, truth INTEGER, score REAL, version TEXT, recorded INTEGER,
        reward REAL,                   -- of a reward; the five before are those of a truth
        time REAL NOT NULL
    )""",
    "CREATE INDEX revised ON revisions (puid, row)",
    """CREATE TABLE confusion (
        label INTEGER, truth INTEGER, rows INTEGER NOT NULL, PRIMARY KEY (label, truth)
    ) WITHOUT ROWID""",
    "INSERT INTO confusion VALUES (0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)",
    """CREATE TABLE totals (
        rewarded INTEGER NOT NULL,     -- rewards other than 0
        reward TEXT NOT NULL,          -- their sum, a fraction: no sum of floats is exact
        unmatched INTEGER NOT NULL     -- feedback about no known prediction
    )""",
    "INSERT INTO totals VALUES (0, '0', 0)",
    "CREATE TABLE trial (id INTEGER PRIMARY KEY, content BLOB)",
    """CREATE TRIGGER judge AFTER INSERT ON truths BEGIN
        UPDATE confusion SET rows = rows + 1 WHERE label = new.label AND truth = new.truth;
    END""",
    """CREATE TRIGGER revise AFTER UPDATE ON truths BEGIN
        UPDATE confusion SET rows = rows - 1 WHERE label = old.label AND truth = old.truth;
        UPDATE confusion SET rows = rows + 1 WHERE label = new.label AND truth = new.truth;
        INSERT INTO revisions VALUES (old.puid, old.row, old.label, old.truth, old.score,
            old.version, old.recorded, NULL, old.time);
    END""",
    """CREATE TRIGGER forget AFTER DELETE ON truths BEGIN
        UPDATE confusion SET rows = rows - 1 WHERE label = old.label AND truth = old.truth;
        DELETE FROM revisions WHERE puid = old.puid AND row = old.row AND reward IS NULL;
    END""",
    """CREATE TRIGGER reward AFTER INSERT ON rewards BEGIN
        UPDATE totals SET rewarded = rewarded + (new.reward <> 0),
            reward = shift(reward, 0, new.reward);
    END""",
    """CREATE TRIGGER revise_reward AFTER UPDATE ON rewards BEGIN
        UPDATE totals SET rewarded = rewarded - (old.reward <> 0) + (new.reward <> 0),
            reward = shift(reward, old.reward, new.reward);
        INSERT INTO revisions VALUES (old.puid, old.row, NULL, NULL, NULL, NULL, NULL,
            old.reward, old.time);
    END""",
    """CREATE TRIGGER forget_reward AFTER DELETE ON rewards BEGIN
        UPDATE totals SET rewarded = rewarded - (old.reward <> 0),
            reward = shift(reward, old.reward, 0);
        DELETE FROM revisions WHERE puid = old.puid AND row = old.row AND reward IS NOT NULL;
    END""",
)

# A label that was recorded as it was answered is better than one that is scored again later.
_JUDGE = """
    INSERT INTO truths (row, label, score, version, recorded, truth, puid, began, time)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (puid, row) DO UPDATE SET
        truth = excluded.truth, time = excluded.time,
        label = CASE WHEN excluded.recorded >= recorded THEN excluded.label ELSE label END,
        score = CASE WHEN excluded.recorded >= recorded THEN excluded.score ELSE score END,
        version = CASE WHEN excluded.recorded >= recorded THEN excluded.version ELSE version END,
        recorded = recorded OR excluded.recorded
    WHERE truth <> excluded.truth
        OR (excluded.recorded >= recorded AND label <> excluded.label)"""

_REWARD = """
    INSERT INTO rewards (puid, row, reward, began, time) VALUES (:puid, :row, :reward, :now, :now)
    ON CONFLICT (puid, row) DO UPDATE SET reward = excluded.reward, time = excluded.time
    WHERE reward <> excluded.reward"""

_KNOWN = """
    SELECT 1 FROM truths WHERE puid = :puid UNION ALL
    SELECT 1 FROM rewards WHERE puid = :puid LIMIT 1"""

_RECENT = """
    SELECT label, truth, count(*) FROM
        (SELECT label, truth FROM truths ORDER BY place DESC LIMIT ?)
    GROUP BY label, truth"""

_EXPIRED = """
    DELETE FROM {table} WHERE began < ?
    AND place IN (SELECT place FROM {table} ORDER BY place LIMIT ?)"""

_STATEMENTS = """
    SELECT time, puid, row, label, truth, NULL AS reward, score, version AS model_version,
        recorded, 1 AS current, place FROM truths
    UNION ALL SELECT time, puid, NULLIF(row, -1), NULL, NULL, reward, NULL, NULL,
        NULL, 1, place FROM rewards
    UNION ALL SELECT time, puid, NULLIF(row, -1), label, truth, reward, score, version,
        recorded, 0, rowid FROM revisions
    ORDER BY time, place"""


class ScoredRow(NamedTuple):
    """A row of a prediction and what the model said of it."""

    row: int
    """Its number in the prediction, from 0."""
    label: int
    """1 for an outlier."""
    score: float
    version: str
    """Of the model."""
    recorded: bool
    """Whether this is what was answered; else the row was scored again."""


class FeedbackStore:
    """The feedback of a service, shared by its threads and processes."""

    def __init__(self, folder: Path, window: int = 100, keep_days: int = 0) -> None:
        """Use the feedback in `folder`; nothing is opened before it is needed.

        `FeedbackSummary.recent` covers the last `window` rows. Feedback is deleted `keep_days` days
        after it first came; 0 keeps it for ever.
        """
        self.path = folder / FILE_NAME
        self._window, self._keep_days = window, keep_days
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Have nothing open."""
        opening = threading.Lock()
        self._writer, self._reader = _Session(self.path, opening), _Session(self.path, opening)

    def close(self) -> None:
        """Close what this process has open; the next use opens it again."""
        self._writer.close()
        self._reader.close()

    def find(self, puid: str, first: int, last: int) -> dict[int, ScoredRow]:
        """Return the rows `first` to `last` of a prediction, as far as feedback has come for them.

        Raises:
            Unavailable: the storage fails.
        """
        with self._reading() as connection:
            found = connection.execute(
                "SELECT row, label, score, version, recorded FROM truths "
                "WHERE puid = ? AND row BETWEEN ? AND ?",
                (_storage_key(puid), first, last),
            )
            return {row[0]: ScoredRow(*row) for row in found}

    def knows(self, puid: str) -> bool:
        """Return whether any feedback has come about a prediction.

        Raises:
            Unavailable: the storage fails.
        """
        with self._reading() as connection:
            return connection.execute(_KNOWN, {"puid": _storage_key(puid)}).fetchone() is not None

    def add(
        self,
        puid: str,
        rows: Sequence[ScoredRow] = (),
        truths: Sequence[int] = (),
        reward: float | None = None,
        row: int | None = None,
    ) -> FeedbackSummary:
        """Store what one message says; return what is known then, the message included.

        `truths` has a 0 or 1 for each of `rows`. `reward` is that of `row`, or without one of the
        whole prediction.

        Raises:
            Unavailable: the storage fails; nothing of the message is stored.
        """
        name, now = _storage_key(puid), time.time()
        judged = [(*one, truth, name, now, now) for one, truth in zip(rows, truths, strict=True)]
        if not rows and reward is None:
            return self.read()
        with self._writing() as connection:
            self._forget_expired(connection)
            connection.executemany(_JUDGE, judged)
            if reward is not None:
                place = _WHOLE if row is None else row
                rewarded = {"puid": name, "row": place, "reward": reward, "now": now}
                connection.execute(_REWARD, rewarded)
            return self._read(connection)

    def count_unmatched(self) -> None:
        """Count one feedback about a prediction that nobody knows.

        Raises:
            Unavailable: the storage fails.
        """
        with self._writing() as connection:
            connection.execute("UPDATE totals SET unmatched = unmatched + 1")

    def read(self) -> FeedbackSummary:
        """Return what feedback has told so far.

        Raises:
            Unavailable: the storage fails.
        """
        with self._reading() as connection:
            return self._read(connection)

    def survey(self) -> tuple[FeedbackSummary | None, bool]:
        """Return what is known, None if it cannot be read, and whether the storage is up."""
        try:
            summary = self.read()
        except Unavailable:
            summary = None
        return summary, self.is_up()

    def is_up(self) -> bool:
        """Try whether the next feedback could be stored."""
        with suppress(Unavailable), self._writing() as connection:
            self._forget_expired(connection)
            connection.execute("REPLACE INTO trial VALUES (1, zeroblob(?))", (_TRIAL_BYTES,))
            return True
        return False

    def statements(self) -> dict[str, tuple[Any, ...]]:
        """Return all that was said, column by column, the oldest first.

        `current` is 1 for what counts and 0 for what was revised later. A reward of a whole
        prediction has no `row`.

        Raises:
            Unavailable: the storage fails.
        """
        with self._reading() as connection:
            found = connection.execute(_STATEMENTS)
            names = [column[0] for column in found.description]
            columns = list(zip(*found, strict=True)) or [()] * len(names)
        table = dict(zip(names, columns, strict=True))
        del table["place"]
        return table

    def delete(self, puid: str | None = None, before: float | None = None) -> int:
        """Delete the feedback about a puid, or what first came before a time (seconds since 1970).

        Return how many truths and rewards. What was deleted is overwritten in the file.

        Raises:
            Unavailable: the storage fails; nothing is deleted.
        """
        where, value = (
            ("puid = ?", _storage_key(puid)) if puid is not None else ("began < ?", before)
        )
        with self._writing() as connection:
            queries = [f"DELETE FROM {table} WHERE {where}" for table in _TABLES]  # noqa: S608
            deleted = sum(connection.execute(query, (value,)).rowcount for query in queries)
        with suppress(Unavailable), self._writer.use() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return deleted

    def fault(self) -> str | None:
        """Say why the file can never be used; None where it can, or where that cannot be told."""
        try:
            with self._reading() as connection:
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                return None if found == "ok" else f"it is damaged ({found})"
        except Unavailable as error:
            cause = error.__cause__
            if isinstance(cause, _OtherFile):
                return str(cause)
            code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
            damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            return f"it is damaged ({cause})" if damaged else None

    def forget_expired(self) -> None:
        """Forget all that the retention does not keep.

        Raises:
            Unavailable: the storage fails.
        """
        with self._writing() as connection:
            self._forget_expired(connection, at_once=-1)

    def _forget_expired(
        self, connection: sqlite3.Connection, at_once: int = _FORGET_AT_ONCE
    ) -> None:
        if self._keep_days:
            limit = time.time() - self._keep_days * DAY
            for table in _TABLES:
                connection.execute(_EXPIRED.format(table=table), (limit, at_once))

    def _read(self, connection: sqlite3.Connection) -> FeedbackSummary:
        total = connection.execute("SELECT label, truth, rows FROM confusion")
        recent = connection.execute(_RECENT, (self._window,))
        rewarded, reward, unmatched = connection.execute(
            "SELECT rewarded, reward, unmatched FROM totals"
        ).fetchone()
        return FeedbackSummary(
            total=_confusion(total),
            recent=_confusion(recent),
            rewarded=rewarded,
            reward=float(Fraction(reward)),
            unmatched=unmatched,
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Give a transaction that writes: committed at the end, or undone."""
        with self._writer.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Give a transaction that sees one state of the tables."""
        with self._reader.use() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")


class _OtherFile(sqlite3.DatabaseError):
    """A database, but not of this version of isoserve."""


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

        A transaction still open at the end is undone.

        Raises:
            Unavailable: the storage fails, and how.
        """
        patience = _NO_PATIENCE if self._failing else _PATIENCE
        end = time.monotonic() + patience
        if not self._turn.acquire(timeout=patience):
            raise Unavailable("the storage of feedback is busy; try again")
        try:
            yield self._open(max(end - time.monotonic(), _NO_PATIENCE))
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
        """Log that the storage begins to fail, or has ceased to."""
        if failing and not self._failing:
            logger.warning("the storage of feedback fails: %s", reason)
        if self._failing and not failing:
            logger.warning("the storage of feedback works again")
        self._failing = failing

    def close(self) -> None:
        """Close the connection when nobody uses it any more."""
        with self._turn:
            self._drop()

    def __del__(self) -> None:
        self._drop()

    def _open(self, patience: float) -> sqlite3.Connection:
        if self._connection is not None and _identity(self._path) != self._file:
            self._drop()  # the file was taken away; writing into it would reach nobody
        if self._connection is None:
            with self._opening:
                self._connection = _connect(self._path, patience)
            self._file = _identity(self._path)
        self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * patience)}")
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    """Open the database, and make it if there is none; one thread at a time.

    While another connection of this process is open, closing a file of our own on the same database
    would release SQLite's locks; so only a file that is new is ever opened here.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        for suffix in _BESIDE:  # of a file that somebody deleted
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    connection = sqlite3.connect(
        path, timeout=patience, isolation_level=None, check_same_thread=False
    )
    try:
        connection.create_function("shift", 3, _shift, deterministic=True)
        for choice in _CHOICES:
            connection.execute(f"PRAGMA {choice}")
        _make_tables(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    if _says(connection) == (_APPLICATION, _FORMAT):
        return
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        for statement in _SCHEMA:
            connection.execute(statement)
    connection.execute("COMMIT")
    if _says(connection) != (_APPLICATION, _FORMAT):
        raise _OtherFile("it is of another version")


def _says(connection: sqlite3.Connection) -> tuple[int, int]:
    return (
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("PRAGMA user_version").fetchone()[0],
    )


def begin_feedback(folder: Path, window: int = 100, keep_days: int = 0) -> FeedbackStore:
    """Open the feedback of a service in `folder`, or begin it; a damaged file is set aside.

    Nothing stays open, for the workers are forked later. A storage that fails, as on a full disk,
    does not end the start: predictions need none.
    """
    store = FeedbackStore(folder, window, keep_days)
    reason = store.fault()
    store.close()
    if reason is not None:
        quarantine(store.path, reason, beside=_BESIDE)
    with suppress(Unavailable):  # which is logged
        store.forget_expired()
    store.close()
    return store


def open_feedback(folder: Path, window: int = 100) -> FeedbackStore:
    """Open the feedback in `folder`; a service may be running.

    Raises:
        BadSetting: there is none.
    """
    path = folder / FILE_NAME
    if not path.exists():
        raise BadSetting(f"{path} does not exist: no service has run with this state folder")
    return FeedbackStore(folder, window)


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another under the same name; zeros when there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_dev, status.st_ino


def _confusion(lines: Iterable[tuple[int, int, int]]) -> Confusion:
    return Confusion.count(Counter({(label, truth): rows for label, truth, rows in lines}))


def _shift(total: str, old: float, new: float) -> str:
    """Take a number out of an exact sum and another in."""
    return str(Fraction(total) - Fraction(old) + Fraction(new))


def _storage_key(puid: str) -> str:
    """Return a puid as it is stored: itself, or the beginning and a hash of a long one."""
    if len(puid) <= _PUID_CHARACTERS:
        return puid
    digest = blake2b(puid.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{puid[:100]}~{digest}"
