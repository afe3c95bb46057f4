"""Apply one message or one deletion to the tables of feedback and to the totals."""

from collections import Counter
from collections.abc import Sequence

from ...truths import ScoredRow
from ..feedback import tables
from .tables import Connection, Values


def find_truths(
    connection: Connection, key: str, first: int, last: int
) -> dict[int, tuple[ScoredRow, int]]:
    """Return (row, truth) by index, for the rows of a prediction that have a truth."""
    found = connection.execute(tables.FIND_TRUTHS, {"puid": key, "first": first, "last": last})
    return {
        index: (ScoredRow(index, label, score, version, bool(recorded)), truth)
        for index, label, score, version, recorded, truth in found
    }


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
        before, old_truth = stored.get(row.row_index, (None, 0))
        # The label that was answered is better than one that is scored again later.
        after = before if before and before.recorded > row.recorded else row
        values = {**about, **after._asdict(), "recorded": int(after.recorded), "truth": truth}
        if before is None:
            new.append(values)
        elif (after.label, truth) != (before.label, old_truth):
            revised.append(values)
            changes[tables.CELLS[before.label, old_truth]] -= 1
        else:
            continue
        changes[tables.CELLS[after.label, truth]] += 1
    connection.executemany(tables.INSERT_TRUTH, new)
    connection.executemany(tables.KEEP_TRUTH, revised)
    connection.executemany(tables.UPDATE_TRUTH, revised)
    return changes


def add_reward(connection: Connection, values: Values) -> Counter[str]:
    """Store a reward; return by how much the totals change."""
    new, stored = values["reward"], connection.execute(tables.FIND_REWARD, values).fetchone()
    old = stored[0] if stored else 0
    if stored is None:
        connection.execute(tables.INSERT_REWARD, values)
    elif new != old:
        connection.execute(tables.KEEP_REWARD, values)
        connection.execute(tables.UPDATE_REWARD, values)
    rewarded = (new != 0) - (old != 0)
    return Counter(rewarded=rewarded, reward=new - old, accepted_reward=max(new, 0))


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


def recount(connection: Connection, chosen: str, values: Values) -> Counter[str]:
    """Return what the chosen truths and rewards add to the totals, and the number of `rewards`."""
    truths, rewards = (chosen.format(table=table) for table in tables.REVISIONS)
    cells = connection.execute(tables.COUNT_TRUTHS.format(chosen=truths), values)
    sums = connection.execute(tables.SUM_REWARDS.format(chosen=rewards), values).fetchone()
    counted = Counter(rewards=sums[0], rewarded=sums[1], reward=sums[2])
    counted.update({tables.CELLS[label, truth]: rows for label, truth, rows in cells})
    return counted


def add_to_totals(connection: Connection, changes: Counter[str]) -> None:
    """Add each change to the total of the same name."""
    connection.execute(tables.ADD_TO_TOTALS, {name: changes[name] for name in tables.TOTALS})
