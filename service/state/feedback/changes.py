"""Apply one message or one deletion to the tables of feedback and to the totals."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...errors import Unavailable
from ...truths import ScoredRow
from ..feedback import tables
from .tables import Connection, Values


class Truth(NamedTuple):
    """A row of the table of truths."""

    row: ScoredRow
    truth: int
    created_at: float


def read_sealed(table: str, line: Sequence[Any]) -> dict[str, Any]:
    """Return the values of a row as a statement of `tables` selected it.

    Unavailable if its check sum is wrong.
    """
    names = tables.FIELDS[table]
    values, check_sum = line[: len(names)], line[len(names)]
    if tables.check_sum(values) != check_sum:
        raise Unavailable("stored feedback is damaged; restart the service, which keeps the rest")
    return dict(zip(names, values, strict=True))


def find_truths(connection: Connection, key: str, first: int, last: int) -> dict[int, Truth]:
    """Return the truths of the rows of a prediction that have one, by the rows' index."""
    found = connection.execute(tables.FIND_TRUTHS, {"puid": key, "first": first, "last": last})
    truths = {}
    for line in found:
        values = read_sealed("truths", line)
        row = ScoredRow(*(values[name] for name in ScoredRow._fields))
        row = row._replace(recorded=bool(row.recorded))
        truths[row.row_index] = Truth(row, values["truth"], values["created_at"])
    return truths


def add_truths(
    connection: Connection, about: Values, rows: Sequence[ScoredRow], truths: Sequence[int]
) -> Counter[str]:
    """Store a truth for each row; return by how much the totals change.

    `rows` are in ascending order. A truth that changes nothing is not stored again.
    """
    stored = find_truths(connection, about["puid"], rows[0].row_index, rows[-1].row_index)
    new: list[Values] = []
    revised: list[Values] = []
    changes: Counter[str] = Counter()
    for row, truth in zip(rows, truths, strict=True):
        before = stored.get(row.row_index)
        # The label that was answered is better than one that is scored again later.
        after = before.row if before and before.row.recorded > row.recorded else row
        values = {**_times(about), **after._asdict(), "puid": about["puid"], "truth": truth}
        values |= {"score": float(after.score), "recorded": int(after.recorded)}
        if before is None:
            new.append(tables.sealed("truths", values))
        elif (after.label, truth) != (before.row.label, before.truth):
            values["created_at"] = before.created_at
            revised.append(tables.sealed("truths", values))
            changes[tables.CELLS[before.row.label, before.truth]] -= 1
        else:
            continue
        changes[tables.CELLS[after.label, truth]] += 1
    connection.executemany(tables.INSERT_TRUTH, new)
    connection.executemany(tables.KEEP_TRUTH, revised)
    connection.executemany(tables.UPDATE_TRUTH, revised)
    return changes


def add_reward(connection: Connection, about: Values, row_index: int, reward: int) -> Counter[str]:
    """Store a reward; return by how much the totals change."""
    values = {**_times(about), "puid": about["puid"], "row_index": row_index, "reward": reward}
    line = connection.execute(tables.FIND_REWARD, values).fetchone()
    stored = read_sealed("rewards", line) if line else {"reward": 0}
    old = stored["reward"]
    values["created_at"] = stored.get("created_at", values["created_at"])
    values = tables.sealed("rewards", values)
    if line is None:
        connection.execute(tables.INSERT_REWARD, values)
    elif reward != old:
        connection.execute(tables.KEEP_REWARD, values)
        connection.execute(tables.UPDATE_REWARD, values)
    rewarded = (reward != 0) - (old != 0)
    return Counter(rewarded=rewarded, reward=reward - old, accepted_reward=max(reward, 0))


def _times(about: Values) -> dict[str, Any]:
    return dict.fromkeys(tables.TIMES, float(about["now"]))


def delete_chosen(connection: Connection, chosen: str, values: Values) -> int:
    """Delete the truths and rewards that a condition chooses, and their revisions; count them."""
    counted = recount(connection, chosen, values)
    deleted = sum(counted[name] for name in (*tables.CELLS.values(), "rewards"))
    if deleted:
        for table, revisions in tables.REVISIONS.items():
            names = {"table": table, "revisions": revisions, "chosen": chosen.format(table=table)}
            connection.execute(tables.DELETE_REVISIONS.format(**names), values)
            connection.execute(tables.DELETE.format(**names), values)
        add_to_totals(connection, Counter({name: -number for name, number in counted.items()}))
    return deleted


def delete_truth(connection: Connection, values: Values) -> bool:
    """Delete the truth of one row, and its revisions; return whether there was one."""
    found = find_truths(connection, values["puid"], values["row_index"], values["row_index"])
    for truth in found.values():
        names = {"table": "truths", "revisions": "truth_revisions", "chosen": tables.OF_ROW}
        connection.execute(tables.DELETE_REVISIONS.format(**names), values)
        connection.execute(tables.DELETE.format(**names), values)
        add_to_totals(connection, Counter({tables.CELLS[truth.row.label, truth.truth]: -1}))
    return bool(found)


def recount(connection: Connection, chosen: str, values: Values) -> Counter[str]:
    """Return what the chosen truths and rewards add to the totals, and the number of `rewards`."""
    truths, rewards = (chosen.format(table=table) for table in tables.REVISIONS)
    cells = connection.execute(tables.COUNT_TRUTHS.format(chosen=truths), values)
    sums = connection.execute(tables.SUM_REWARDS.format(chosen=rewards), values).fetchone()
    counted = Counter(rewards=sums[0], rewarded=sums[1], reward=sums[2])
    counted.update({tables.CELLS[label, truth]: rows for label, truth, rows in cells})
    return counted


def read_totals(connection: Connection) -> dict[str, int]:
    """Return the totals; Unavailable if they are damaged."""
    return read_sealed("totals", connection.execute(tables.READ_TOTALS).fetchone() or (None,) * 99)


def add_to_totals(connection: Connection, changes: Counter[str]) -> None:
    """Add each change to the total of the same name."""
    totals = {name: total + changes[name] for name, total in read_totals(connection).items()}
    connection.execute(tables.SET_TOTALS, tables.sealed("totals", totals))
