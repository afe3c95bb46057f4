"""The tables of feedback, their statements in portable SQL, and the interface of a database.

`truths` and `rewards` hold the current values, one row for each row of a prediction. Replaced
values are in the two tables of revisions. `totals` is one row; the store updates it in the
transaction that changes the others, so it equals a recount of them even after a crash.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol
from zlib import crc32

from ...truths import MILLIONTHS

Values = Mapping[str, Any]
"""The parameters of a statement: `:name` in its text is the value under that name."""


class Connection(Protocol):
    """Runs statements of standard SQL with named parameters, as Python's DB-API has it."""

    def execute(self, statement: str, values: Values = ..., /) -> Any:
        """Run a statement; return its cursor, an iterator over the rows."""

    def executemany(self, statement: str, values: Iterable[Values], /) -> Any:
        """Run a statement once for each set of parameters."""


class Database(Protocol):
    """Transactions, for the threads of this process. Each method but `close` raises Unavailable."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Give a transaction that sees one state of the tables and waits for no writer."""

    def writing(self) -> AbstractContextManager[Connection]:
        """Give a transaction that is committed, or undone after an error; one at a time.

        No other process writes meanwhile, so what the transaction reads stays true until its end.
        """

    def trying(self) -> AbstractContextManager[Connection]:
        """Give a transaction like `writing` that leaves the tables as they were.

        It writes to the disk only if the storage failed before, to see whether it works again.
        """

    def erase_deleted(self) -> None:
        """Overwrite what was deleted, as far as the database has kept a copy."""

    def close(self) -> None:
        """Close what this process has open; the next transaction opens it again."""


VERSION = 3
"""The format of these tables. Format 1 had triggers, and rewards that were floats; format 2 had no
check sums."""

WHOLE = -1
"""The row index of a reward for a whole prediction."""

CELLS = {
    (0, 0): "true_negative",
    (1, 0): "false_positive",
    (0, 1): "false_negative",
    (1, 1): "true_positive",
}
"""The column of `totals` that counts the rows with a (label, truth)."""

TOTALS = (*CELLS.values(), "rewarded", "reward", "unmatched", "accepted", "accepted_reward")
"""The columns of `totals`: those of `FeedbackSummary`, with rewards in millionths."""

REVISIONS = {"truths": "truth_revisions", "rewards": "reward_revisions"}
"""Each table, and the table of its replaced values."""

KEPT = ("puid", "row_index")
TIMES = ("created_at", "updated_at")
TRUTH_FIELDS = (*KEPT, "label", "truth", "score", "version", "recorded", *TIMES)
REWARD_FIELDS = (*KEPT, "reward", *TIMES)

FIELDS = {
    "truths": TRUTH_FIELDS,
    "truth_revisions": TRUTH_FIELDS,
    "rewards": REWARD_FIELDS,
    "reward_revisions": REWARD_FIELDS,
    "totals": TOTALS,
}
"""The columns of each table that its check sum covers, in this order."""

_ROW = """
        id {key},                           -- ascending in the order of the first feedback
        puid TEXT NOT NULL,                 -- of the prediction, or the key of a long one
        row_index INTEGER NOT NULL,         -- in the prediction, from 0; -1: all of it"""

_TRUTH = f"""{_ROW}
        label SMALLINT NOT NULL,            -- the service's answer: 1 for an outlier
        truth SMALLINT NOT NULL,            -- 1 for an outlier
        score DOUBLE PRECISION NOT NULL,
        version TEXT NOT NULL,              -- of the model
        recorded SMALLINT NOT NULL,         -- 1: label as answered; 0: scored again for feedback"""

_REWARD = f"""{_ROW}
        reward BIGINT NOT NULL,             -- in millionths"""

_END = """
        created_at DOUBLE PRECISION NOT NULL,  -- first feedback, seconds since 1970, UTC
        updated_at DOUBLE PRECISION NOT NULL,  -- last change
        -- of all columns but the id
        check_sum BIGINT NOT NULL DEFAULT 0"""

_UNIQUE = ",\n        UNIQUE (puid, row_index)"

_SCHEMA = (
    f"CREATE TABLE truths ({_TRUTH}{_END}{_UNIQUE})",
    f"CREATE TABLE rewards ({_REWARD}{_END}{_UNIQUE})",
    f"CREATE TABLE truth_revisions ({_TRUTH}{_END})",
    f"CREATE TABLE reward_revisions ({_REWARD}{_END})",
    "CREATE INDEX truth_revisions_of_row ON truth_revisions (puid, row_index)",
    "CREATE INDEX reward_revisions_of_row ON reward_revisions (puid, row_index)",
    f"CREATE TABLE totals ({', '.join(f'{name} BIGINT NOT NULL' for name in TOTALS)}, "
    "check_sum BIGINT NOT NULL DEFAULT 0)",
    "CREATE TABLE schema_version (version INTEGER NOT NULL)",
    f"INSERT INTO schema_version VALUES ({VERSION})",  # noqa: S608 - a number of ours
)


def create_tables(connection: Connection, key: str) -> None:
    """Create the tables; `key` is the type of a primary key that numbers new rows by itself."""
    for statement in _SCHEMA:
        connection.execute(statement.format(key=key))
    connection.execute(INSERT_TOTALS, sealed("totals", dict.fromkeys(TOTALS, 0)))


def check_sum(values: Sequence[Any]) -> int:
    """Return the check sum of a row's FIELDS."""
    return crc32(repr(tuple(values)).encode())


def sealed(table: str, values: Values) -> dict[str, Any]:
    """Return the values of a row of a table with its check sum."""
    return {**values, "check_sum": check_sum([values[name] for name in FIELDS[table]])}


def _select(table: str, more: str = "") -> str:
    return f"SELECT {', '.join((*FIELDS[table], 'check_sum'))}{more} FROM {table}"  # noqa: S608


def _insert(table: str) -> str:
    names = (*FIELDS[table], "check_sum")
    values = ", ".join(f":{name}" for name in names)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"  # noqa: S608


def _keep(table: str) -> str:
    names = ", ".join((*FIELDS[table], "check_sum"))
    return (
        f"INSERT INTO {REVISIONS[table]} ({names}) SELECT {names} FROM {table} "  # noqa: S608
        "WHERE puid = :puid AND row_index = :row_index"
    )


def _update(table: str) -> str:
    changed = [name for name in (*FIELDS[table], "check_sum") if name not in (*KEPT, "created_at")]
    values = ", ".join(f"{name} = :{name}" for name in changed)
    return f"UPDATE {table} SET {values} WHERE puid = :puid AND row_index = :row_index"  # noqa: S608


READ = {table: _select(table, ", id" if table != "totals" else "") for table in FIELDS}
"""Read a whole table: its FIELDS, the check sum, and the id where it has one."""

INSERT = {table: _insert(table) for table in FIELDS}

FIND_TRUTHS = f"{_select('truths')} WHERE puid = :puid AND row_index BETWEEN :first AND :last"
INSERT_TRUTH, KEEP_TRUTH, UPDATE_TRUTH = INSERT["truths"], _keep("truths"), _update("truths")

FIND_REWARD = f"{_select('rewards')} WHERE puid = :puid AND row_index = :row_index"
INSERT_REWARD, KEEP_REWARD, UPDATE_REWARD = INSERT["rewards"], _keep("rewards"), _update("rewards")

FIND_PUID = """
    SELECT 1 FROM truths WHERE puid = :puid UNION ALL
    SELECT 1 FROM rewards WHERE puid = :puid LIMIT 1"""

COUNT_VERSIONS = "SELECT version, count(*) FROM truths GROUP BY version ORDER BY max(id) DESC"

INDEX_VERSIONS = "CREATE INDEX IF NOT EXISTS truths_of_version ON truths (version)"

# One step down the index for each version, not one for each row.
FIND_VERSIONS = """
    WITH RECURSIVE found (version) AS (
        SELECT min(version) FROM truths
        UNION ALL
        SELECT (SELECT min(version) FROM truths WHERE truths.version > found.version)
        FROM found WHERE found.version IS NOT NULL)
    SELECT version FROM found WHERE version IS NOT NULL"""

READ_TOTALS = f"SELECT {', '.join(TOTALS)} FROM totals"  # noqa: S608 - names of ours

READ_LABELLED = (
    "SELECT score, truth, label FROM truths WHERE version = :version ORDER BY id DESC LIMIT :most"
)

READ_TOTALS = _select("totals")
INSERT_TOTALS = INSERT["totals"]

_SUMS = ", ".join(f"{name} = :{name}" for name in (*TOTALS, "check_sum"))

SET_TOTALS = f"UPDATE totals SET {_SUMS}"  # noqa: S608 - names of ours

COUNT_RECENT = """
    SELECT label, truth, count(*) FROM
        (SELECT label, truth FROM truths ORDER BY id DESC LIMIT :window) AS recent
    GROUP BY label, truth"""

HAS_TRUTH = "SELECT 1 FROM truths WHERE puid = :puid AND row_index = :row_index"

LAST_TRUTHS = "SELECT puid, row_index, truth FROM truths ORDER BY id DESC LIMIT :most"

FIND_LATEST = """
    SELECT max(updated_at) FROM (
        SELECT updated_at FROM truths WHERE id = (SELECT max(id) FROM truths)
        UNION ALL SELECT updated_at FROM rewards WHERE id = (SELECT max(id) FROM rewards)
    ) AS latest"""

# The conditions that choose rows of `truths` or `rewards`.
ALL = "1 = 1"
OF_PUID = "puid = :puid"
OF_ROW = "puid = :puid AND row_index = :row_index"
BEFORE = "created_at < :before"
FIRST_BEFORE = "created_at < :before AND id IN (SELECT id FROM {table} ORDER BY id LIMIT :most)"

COUNT_TRUTHS = "SELECT label, truth, count(*) FROM truths WHERE {chosen} GROUP BY label, truth"

SUM_REWARDS = """
    SELECT count(*), coalesce(sum(CASE WHEN reward = 0 THEN 0 ELSE 1 END), 0),
        coalesce(sum(reward), 0)
    FROM rewards WHERE {chosen}"""

DELETE_REVISIONS = """
    DELETE FROM {revisions} WHERE (puid, row_index) IN
        (SELECT puid, row_index FROM {table} WHERE {chosen})"""

DELETE = "DELETE FROM {table} WHERE {chosen}"

# The first two parts have a value in every column between them, which gives each column its type.
READ_HISTORY = f"""
    SELECT time, puid, row_index AS row, label AS predicted, truth,
        reward / CAST({MILLIONTHS} AS DOUBLE PRECISION) AS reward,
        score, model_version, recorded, current
    FROM (
        SELECT updated_at AS time, puid, row_index, label, truth, NULL AS reward, score,
            version AS model_version, recorded, 1 AS current, id FROM truths
        UNION ALL SELECT updated_at, puid, NULLIF(row_index, -1), NULL, NULL, reward, NULL,
            NULL, NULL, 1, id FROM rewards
        UNION ALL SELECT updated_at, puid, row_index, label, truth, NULL, score, version,
            recorded, 0, id FROM truth_revisions
        UNION ALL SELECT updated_at, puid, NULLIF(row_index, -1), NULL, NULL, reward, NULL,
            NULL, NULL, 0, id FROM reward_revisions
    ) AS history
    ORDER BY time, id, current"""  # noqa: S608 - a number of ours
