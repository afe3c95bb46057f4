"""Create the tables in a new SQLite file, migrate an older format, or refuse an unknown one.

Format 1, which only SQLite had, kept its totals by triggers and rewards as floats of any size. A
reward that does not fit today's rule (whole millionths, at most a million) is rounded to the
nearest millionth and brought within the limits. Format 2 had no check sums.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ...truths import MILLIONTHS, MOST_REWARD
from .changes import add_to_totals, recount
from .tables import ALL, FIELDS, REVISIONS, VERSION, check_sum, create_tables

logger = logging.getLogger(__name__)

_APPLICATION = 0x69736F66  # marks the file as isoserve's
_NO_SUMS = 2

_KEY = "INTEGER PRIMARY KEY"  # SQLite numbers the rows of such a column by itself

_OLD_TRIGGERS = ("judge", "revise", "forget", "reward", "revise_reward", "forget_reward")
_OLD_TABLES = ("truths", "rewards", "revisions", "totals")

# SQLite's round() is exact enough: a product of at most 10^12 is off by less than a thousandth.
_REWARD = (
    f"CAST(round(max(-{MOST_REWARD}, min({MOST_REWARD}, reward)) * {MILLIONTHS}.0) AS INTEGER)"
)

COUNT_CHANGED = f"""
    SELECT count(*) FROM (
        SELECT reward FROM old_rewards UNION ALL
        SELECT reward FROM old_revisions WHERE reward IS NOT NULL)
    WHERE reward <> {_REWARD} / {MILLIONTHS}.0"""  # noqa: S608 - numbers of ours

_COPY = (
    """INSERT INTO truths
            (id, puid, row_index, label, truth, score, version, recorded, created_at, updated_at)
        SELECT place, puid, row, label, truth, score, version, recorded, began, time
        FROM old_truths""",
    f"""INSERT INTO rewards (id, puid, row_index, reward, created_at, updated_at)
        SELECT place, puid, row, {_REWARD}, began, time FROM old_rewards""",  # noqa: S608 - numbers of ours
    """INSERT INTO truth_revisions
            (puid, row_index, label, truth, score, version, recorded, created_at, updated_at)
        SELECT puid, row, label, truth, score, version, recorded, time, time
        FROM old_revisions WHERE reward IS NULL ORDER BY rowid""",
    f"""INSERT INTO reward_revisions (puid, row_index, reward, created_at, updated_at)
        SELECT puid, row, {_REWARD}, time, time
        FROM old_revisions WHERE reward IS NOT NULL ORDER BY rowid""",  # noqa: S608
)


class UnknownFormat(sqlite3.DatabaseError):
    """A database that this version of isoserve does not know."""


def prepare(connection: sqlite3.Connection) -> None:
    """Give the file today's tables, in one transaction; UnknownFormat if that cannot be done."""
    if _identify(connection) == (_APPLICATION, VERSION):
        return
    changed = 0
    with transaction(connection, "BEGIN IMMEDIATE"):
        application, version = _identify(connection)
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            create_tables(connection, _KEY)
        elif application != _APPLICATION:
            raise UnknownFormat("it is not a feedback database of isoserve")
        elif version == 1:
            changed = _migrate_floats(connection)
        elif version == _NO_SUMS:
            _migrate_unproven(connection)
        elif version != VERSION:
            raise UnknownFormat(
                f"it has format {version}; this version of isoserve knows formats up to {VERSION}"
            )
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    if version not in (0, VERSION):
        text = f"feedback is migrated from format {version} to format {VERSION}"
        if version == 1:
            text += f"; {changed} rewards were rounded to a millionth or reduced to a million"
        logger.warning(text)


def _migrate_floats(connection: sqlite3.Connection) -> int:
    """Replace the tables of format 1 with today's; return how many rewards had to be changed.

    Accepted messages and rewards are counted from here on, because the old tables do not say how
    many there were.
    """
    for trigger in _OLD_TRIGGERS:
        connection.execute(f"DROP TRIGGER {trigger}")
    for table in _OLD_TABLES:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    create_tables(connection, _KEY)
    for statement in _COPY:
        connection.execute(statement)
    unmatched = connection.execute("SELECT unmatched FROM old_totals").fetchone()[0]
    totals = recount(connection, ALL, {})  # `+` would drop what is negative
    totals.update(unmatched=unmatched)
    add_to_totals(connection, totals)
    changed: int = connection.execute(COUNT_CHANGED).fetchone()[0]
    for table in _OLD_TABLES:
        connection.execute(f"DROP TABLE old_{table}")
    for table in ("confusion", "trial"):
        connection.execute(f"DROP TABLE {table}")
    _add_sums(connection, *(table for table in FIELDS if table != "totals"))
    return changed


def _migrate_unproven(connection: sqlite3.Connection) -> None:
    """Add what format 3 has to the tables of format 2."""
    for table in REVISIONS.values():
        connection.execute(
            f"ALTER TABLE {table} ADD created_at DOUBLE PRECISION NOT NULL DEFAULT 0"
        )
        connection.execute(f"UPDATE {table} SET created_at = updated_at")  # noqa: S608
    for table in FIELDS:
        connection.execute(f"ALTER TABLE {table} ADD check_sum BIGINT NOT NULL DEFAULT 0")
    connection.execute("DROP TABLE trial")
    connection.execute(f"UPDATE schema_version SET version = {VERSION}")  # noqa: S608
    _add_sums(connection, *FIELDS)


def _add_sums(connection: sqlite3.Connection, *names: str) -> None:
    """Store the check sum of every row."""
    connection.create_function("check_sum", -1, lambda *values: check_sum(values))
    for table in names:
        values = ", ".join(FIELDS[table])
        connection.execute(f"UPDATE {table} SET check_sum = check_sum({values})")  # noqa: S608


def needs_migration(path: Path) -> bool:
    """Tell whether a file has an older format; it is not changed."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
        application, version = _identify(connection)
        return application == _APPLICATION and 0 < version < VERSION
    return False


def _identify(connection: sqlite3.Connection) -> tuple[int, ...]:
    """Return the application and the format that the file's header names."""
    names = ("application_id", "user_version")
    return tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Commit at the end. After an error the caller closes the connection, which undoes all."""
    connection.execute(begin)
    yield
    connection.execute("COMMIT")
