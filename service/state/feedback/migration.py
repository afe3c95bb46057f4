"""Migrate a feedback database of format 1 to the tables of today.

Format 1, which only SQLite had, kept its totals by triggers and rewards as floats of any size. A
reward that does not fit today's rule (whole millionths, at most a million) is rounded to the
nearest millionth and brought within the limits.
"""

from __future__ import annotations

import sqlite3

from ...truths import MILLIONTHS, MOST_REWARD
from .tables import create_tables

VERSION = 1
"""The format that can be migrated."""
_TRIGGERS = ("judge", "revise", "forget", "reward", "revise_reward", "forget_reward")

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
            (puid, row_index, label, truth, score, version, recorded, updated_at)
        SELECT puid, row, label, truth, score, version, recorded, time
        FROM old_revisions WHERE reward IS NULL ORDER BY rowid""",
    f"""INSERT INTO reward_revisions (puid, row_index, reward, updated_at)
        SELECT puid, row, {_REWARD}, time
        FROM old_revisions WHERE reward IS NOT NULL ORDER BY rowid""",  # noqa: S608
    """UPDATE totals SET
        true_negative = (SELECT count(*) FROM truths WHERE label = 0 AND truth = 0),
        false_positive = (SELECT count(*) FROM truths WHERE label = 1 AND truth = 0),
        false_negative = (SELECT count(*) FROM truths WHERE label = 0 AND truth = 1),
        true_positive = (SELECT count(*) FROM truths WHERE label = 1 AND truth = 1),
        rewarded = (SELECT count(*) FROM rewards WHERE reward <> 0),
        reward = (SELECT coalesce(sum(reward), 0) FROM rewards),
        unmatched = (SELECT unmatched FROM old_totals)""",
)


def migrate(connection: sqlite3.Connection, key: str) -> int:
    """Replace the tables of format 1 by those of today, inside the caller's transaction.

    Return how many rewards had to be changed. Accepted messages and rewards are counted from here
    on, because the old tables do not tell how many there were.
    """
    for trigger in _TRIGGERS:
        connection.execute(f"DROP TRIGGER {trigger}")
    for table in _OLD_TABLES:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    create_tables(connection, key)
    for statement in _COPY:
        connection.execute(statement)
    changed: int = connection.execute(COUNT_CHANGED).fetchone()[0]
    for table in _OLD_TABLES:
        connection.execute(f"DROP TABLE old_{table}")
    connection.execute("DROP TABLE confusion")
    return changed
