"""Prove a feedback database at the start; keep what is sound of a damaged one."""

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ...errors import BadSetting, Unavailable
from ...files import NotRegular
from ..files import next_quarantine, quarantine
from . import tables
from .changes import add_to_totals, read_totals, recount
from .mark import Mark
from .migration import UnknownFormat
from .sqlite import ENDINGS, WAL, SQLiteDatabase, require_regular

logger = logging.getLogger(__name__)

# What passes by itself, or when the disk has room again: the database is not damaged.
_PASSES = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM,
}  # fmt: skip


def repair(database: SQLiteDatabase, mark: Mark) -> None:
    """Quarantine a damaged database, begin a new one with its sound rows, and log what is missing.

    Only while no other process uses it. If it cannot be read now, as on a full disk, it stays.
    """
    path, wal = database.path, Path(f"{database.path}{WAL}")
    copy = _copy_log(wal)
    fault = find_fault(database)
    database.close()
    if fault:
        rows = [] if "isoserve" in fault else list(_read_sound(path))  # of another program
        quarantine(path, fault, beside=ENDINGS)
        with suppress(Unavailable):
            kept = _refill(database, rows, mark.accepted)
            logger.warning("%s: %d rows of the quarantined one are sound and kept", path, kept)
    with suppress(Unavailable):
        with database.reading() as connection:
            found = read_totals(connection)["accepted"]
        if missing := 0 if fault else mark.accepted - found:
            _report_missing(path, missing, copy, wal)
        mark.note(found, time.time(), reset=True)
    copy.unlink(missing_ok=True)


def find_fault(database: SQLiteDatabase) -> str:
    """Return why a database is damaged or of another format; empty if nothing is known of it."""
    path = database.path
    try:
        require_regular(path)
        if not path.exists():
            left = Path(f"{path}{WAL}")
            return f"it is gone, and {left.name} is left" if left.exists() else ""
        return _examine(database) if path.stat().st_size else "it is empty"
    except NotRegular as error:
        return f"{Path(error.filename).name}: {error.strerror}"
    except (Unavailable, ValueError, OSError) as error:
        cause = error.__cause__ if isinstance(error, Unavailable) else error
        if isinstance(cause, UnknownFormat):
            return str(cause)
        code = getattr(cause, "sqlite_errorcode", None)
        passes = isinstance(cause, OSError) or (code is not None and code & 0xFF in _PASSES)
        return "" if passes or cause is None else f"it is damaged ({cause})"


def _examine(database: SQLiteDatabase) -> str:
    with database.reading() as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        return f"it is damaged ({found})" if found != "ok" else _find_wrong(connection)


def _find_wrong(connection: Any) -> str:
    """Return what the check sums or the totals say against the rows."""
    for table in tables.FIELDS:
        fields = len(tables.FIELDS[table])
        wrong = sum(
            tables.check_sum(line[:fields]) != line[fields]
            for line in connection.execute(tables.READ[table])
        )
        if wrong:
            return f"it is damaged ({wrong} rows of {table} have a wrong check sum)"
    counted, totals = recount(connection, tables.ALL, {}), read_totals(connection)
    del counted["rewards"]
    if any(totals[name] != number for name, number in counted.items()):
        return "it is damaged (its totals are not those of its rows)"
    return ""


def _read_sound(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the table and the values of each sound row, as far as it can be read."""
    with suppress(sqlite3.Error, OSError, NotRegular):
        require_regular(path)
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as old:
            for table in tables.FIELDS:
                yield from _read_table(old, table)


def _read_table(old: sqlite3.Connection, table: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sound rows of a table: from its beginning, and then those after a damaged page."""
    names, seen, later = (*tables.FIELDS[table], "check_sum"), set(), []
    orders = (" ORDER BY id", " ORDER BY id DESC") if table != "totals" else ("",)
    for order in orders:
        try:
            for line in old.execute(tables.READ[table] + order):
                number = line[len(names)] if len(line) > len(names) else 0
                if number in seen:
                    break
                seen.add(number)
                if tables.check_sum(line[: len(names) - 1]) == line[len(names) - 1]:
                    later.append((table, dict(zip(names, line, strict=False))))
            else:
                break
        except (sqlite3.Error, ValueError):
            if order == orders[0]:
                yield from later
                later = []
    yield from later if order == orders[0] else reversed(later)


def _refill(database: SQLiteDatabase, rows: list[tuple[str, dict[str, Any]]], accepted: int) -> int:
    """Insert sound rows into a new database; return how many. `accepted` messages are counted."""
    kept, former = 0, Counter(accepted=accepted)
    with database.writing() as connection:
        for table, values in rows:
            if table == "totals":
                names = ("accepted", "unmatched", "accepted_reward")
                former = Counter({name: values[name] for name in names})
                continue
            with suppress(sqlite3.IntegrityError):  # the same row twice
                connection.execute(tables.INSERT[table], values)
                kept += 1
        counted = recount(connection, tables.ALL, {})
        del counted["rewards"]
        counted.update(former)
        add_to_totals(connection, counted)
    return kept


def _copy_log(wal: Path) -> Path:
    """Copy SQLite's log, which it deletes when the database is closed; return the copy's path."""
    copy = wal.with_name(f"{wal.name}.new")
    with suppress(OSError):
        copy.unlink(missing_ok=True)
        if wal.is_file() and wal.stat().st_size:
            copy.write_bytes(wal.read_bytes())
    return copy


def _report_missing(path: Path, missing: int, copy: Path, wal: Path) -> None:
    """Log that acknowledged messages are missing, and keep the log that should contain them."""
    kept = next_quarantine(wal)
    where = ""
    if copy.exists():
        copy.rename(kept)
        where = f"; what SQLite's log contained is quarantined as {kept.name}"
    if missing > 0:
        logger.warning(
            "%s: %d acknowledged messages of feedback are missing: its end is lost, or it is an "
            "older copy%s", path, missing, where,
        )  # fmt: skip


def require_sound(database: SQLiteDatabase) -> None:
    """Raise BadSetting if a database is damaged: a command shows nothing that may be wrong."""
    if fault := find_fault(database):
        raise BadSetting(
            f"{database.path}: {fault}; start the service, which keeps what is sound of it"
        )
