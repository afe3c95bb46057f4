"""Store the feedback of clients: the truths of rows, and rewards.

A row is identified by its prediction's puid and its index there. A later statement about a row
replaces the earlier one, which moves to a table of revisions; a repeated one changes nothing.
"""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import BadSetting, Unavailable
from ...truths import MILLIONTHS, Confusion, FeedbackSummary, ScoredRow, Statement
from ..feedback import changes, tables
from ..folder import InUse, StateFolder
from ..puids import recorded_name, storage_key
from .mark import DAY, LONGEST_JUMP, Mark
from .mark import FILE_NAME as MARK_NAME
from .migration import needs_migration
from .repair import repair, require_sound
from .sqlite import SQLiteDatabase
from .tables import Connection, Database

logger = logging.getLogger(__name__)

FILE_NAME = "feedback.db"

_HOUR = 3600.0  # seconds

# The most expired truths, and rewards, that each message deletes: more than one message adds.
_EXPIRED_AT_ONCE = 100
_DELETED_AT_ONCE = 1000  # the same, of those that are deleted at the start and every hour

_NO_ROW = 2**31 - 1  # the index of a row that is only tried

_key = partial(storage_key, longest=200)  # a longer puid is cut and ends with a hash of the whole


class LastTruth(NamedTuple):
    """A row that somebody has labelled."""

    puid: str
    """As it is stored: see `recorded_name`."""
    row_index: int
    truth: int
    """1 for an outlier."""

    @property
    def name(self) -> bytes:
        """The puid as the record of scored rows has it."""
        return recorded_name(self.puid)


class FeedbackStore:
    """The feedback of a service, shared by its threads and processes.

    Each method raises Unavailable when the storage fails; nothing is changed then.
    """

    def __init__(
        self, database: Database, window: int = 100, keep_days: int = 0, mark: Mark | None = None
    ) -> None:
        """Use the feedback in `database`; what is stored is noted in `mark`.

        `FeedbackSummary.recent` covers the last `window` rows. Feedback is deleted `keep_days` days
        after it first came; 0 keeps it forever.
        """
        self._database, self._window, self._keep_days = database, window, keep_days
        self._mark, self._doubted = mark, False

    def begin(self) -> None:
        """Delete expired feedback every hour, in a thread."""
        if self._keep_days:
            threading.Thread(target=self._watch, name="retention", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(_HOUR)
            with suppress(Unavailable):  # it is logged
                self.delete_expired()

    def close(self) -> None:
        """Close what this process has open; the next use opens it again."""
        self._database.close()

    def find(self, puid: str, first: int, last: int) -> dict[int, ScoredRow]:
        """Return the rows `first` to `last` of a prediction that have a truth, by their index."""
        with self._database.reading() as connection:
            found = changes.find_truths(connection, _key(puid), first, last)
        return {index: truth.row for index, truth in found.items()}

    def knows(self, puid: str) -> bool:
        """Tell whether there is any feedback about a prediction."""
        with self._database.reading() as connection:
            return connection.execute(tables.FIND_PUID, {"puid": _key(puid)}).fetchone() is not None

    def add(self, statement: Statement, rows: Sequence[ScoredRow] = ()) -> FeedbackSummary:
        """Store a message as a whole or not at all; return the figures that include it.

        `rows` has a row for each of the truths. A message without truths and reward is not counted.
        """
        if not rows and statement.reward is None:
            return self.read()
        now = time.time()
        about = {"puid": _key(statement.puid), "now": now}
        with self._database.writing() as connection:
            self._delete_expired(connection)
            added = Counter(accepted=1)
            if rows:
                added.update(changes.add_truths(connection, about, rows, statement.truths))
            if statement.reward is not None:
                row_index = tables.WHOLE if statement.row is None else statement.row
                added.update(changes.add_reward(connection, about, row_index, statement.reward))
            changes.add_to_totals(connection, added)
            summary = self._read(connection)
        if self._mark:
            self._mark.note(summary.accepted, now)
        return summary

    def count_unmatched(self) -> None:
        """Count one message about an unknown prediction."""
        with self._database.writing() as connection:
            changes.add_to_totals(connection, Counter(unmatched=1))

    def read(self) -> FeedbackSummary:
        """Return the figures of all feedback."""
        with self._database.reading() as connection:
            return self._read(connection)

    def count_versions(self) -> dict[str, int]:
        """Return how many of the labelled rows each model version scored, the latest first."""
        with self._database.reading() as connection:
            return dict(connection.execute(tables.COUNT_VERSIONS).fetchall())

    def labelled(self, version: str, most: int = 1_000_000) -> NDArray[np.float64]:
        """Return (score, truth, label), (n, 3), of the labelled rows that a model version scored.

        Of more than `most` rows, those labelled last.
        """
        with self._database.reading() as connection:
            found = connection.execute(tables.READ_LABELLED, {"version": version, "most": most})
            return np.fromiter(found, dtype=(np.float64, 3))

    def survey(self) -> tuple[FeedbackSummary | None, bool]:
        """Return the figures, None if they cannot be read, and whether the storage is up."""
        try:
            summary = self.read()
        except Unavailable:
            summary = None
        return summary, self.is_up()

    def is_up(self) -> bool:
        """Try whether the next feedback could be stored; the tables stay as they are."""
        about = {"puid": "", "now": 0.0}
        row = ScoredRow(_NO_ROW, 0, 0.0, "", recorded=True)
        with suppress(Unavailable), self._database.trying() as connection:
            added = changes.add_truths(connection, about, [row], [0])
            added.update(changes.add_reward(connection, about, _NO_ROW, 1))
            changes.add_to_totals(connection, added)
            changes.delete_chosen(connection, tables.OF_PUID, {"puid": ""})
            changes.add_to_totals(connection, Counter(accepted_reward=-1))
            return True
        return False

    def history(self) -> dict[str, tuple[Any, ...]]:
        """Return all feedback as columns, the oldest first.

        `predicted` is the label, 1 for an outlier. `current` is 1 for what counts and 0 for what
        was revised later. A reward of a whole prediction has no `row`.
        """
        with self._database.reading() as connection:
            found = connection.execute(tables.READ_HISTORY)
            names = [column[0] for column in found.description]
            columns = list(zip(*found, strict=True)) or [()] * len(names)
        return dict(zip(names, columns, strict=True))

    def last_truths(self, most: int) -> list[LastTruth]:
        """Return the truths of the rows labelled last, the latest first; at most `most`."""
        with self._database.reading() as connection:
            found = connection.execute(tables.LAST_TRUTHS, {"most": most}).fetchall()
        return [LastTruth(*line) for line in found]

    def find_truth(self, puid: str, row_index: int) -> int | None:
        """Return the truth of a row of a prediction; None if it has none."""
        with self._database.reading() as connection:
            found = changes.find_truths(connection, _key(puid), row_index, row_index)
        return found[row_index].truth if found else None

    def are_labelled(self, rows: Sequence[tuple[str, int]]) -> list[bool]:
        """Return which rows have a truth; each is a puid and its index in the prediction."""
        with self._database.reading() as connection:
            found = (
                connection.execute(tables.HAS_TRUTH, {"puid": _key(puid), "row_index": row_index})
                for puid, row_index in rows
            )
            return [one.fetchone() is not None for one in found]

    def take_back(self, puid: str, row_index: int) -> bool:
        """Delete the truth of one row, as if it had never come; return whether there was one."""
        values = {"puid": _key(puid), "row_index": row_index}
        with self._database.writing() as connection:
            return changes.delete_truth(connection, values)

    def delete(self, puid: str | None = None, before: float | None = None) -> int:
        """Delete the feedback about a puid, or what first came before a time (seconds since 1970).

        Return how many truths and rewards. What was deleted is overwritten in the file.
        """
        chosen = tables.BEFORE if puid is None else tables.OF_PUID
        values = {"before": before} if puid is None else {"puid": _key(puid)}
        with self._database.writing() as connection:
            deleted = changes.delete_chosen(connection, chosen, values)
        with suppress(Unavailable):
            self._database.erase_deleted()
        return deleted

    def delete_expired(self) -> None:
        """Delete all feedback that is older than the retention period, a piece at a time."""
        deleted = 1
        while deleted and self._keep_days:
            with self._database.writing() as connection:
                deleted = self._delete_expired(connection, _DELETED_AT_ONCE)
            if self._mark:
                self._mark.note(0, time.time())

    def _delete_expired(self, connection: Connection, most: int = _EXPIRED_AT_ONCE) -> int:
        """Delete expired truths and rewards, at most so many of each; return how many.

        Nothing is deleted while the clock says what cannot be: it may have been set wrong.
        """
        now = time.time()
        if not self._keep_days or self._doubts(connection, now):
            return 0
        before = now - self._keep_days * DAY
        chosen = {"before": before, "most": most}
        deleted = changes.delete_chosen(connection, tables.FIRST_BEFORE, chosen)
        if deleted:
            logger.info(
                "%d truths and rewards are deleted: they are older than %d days "
                "(ISOSERVE_FEEDBACK_DAYS)", deleted, self._keep_days,
            )  # fmt: skip
        return deleted

    def _doubts(self, connection: Connection, now: float) -> bool:
        """Return whether the clock is implausible; log it the first time."""
        latest = connection.execute(tables.FIND_LATEST).fetchone()[0] or 0.0
        known = self._mark.time if self._mark else 0.0
        last = known or latest
        doubted = now < latest - DAY or (last > 0 and now > last + LONGEST_JUMP)
        if doubted and not self._doubted:
            logger.warning(
                "the clock says %s, and the last feedback came %s: no old feedback is deleted; set "
                "the clock right, or delete feedback by hand with `feedback delete --before`; if "
                "the clock is right, stop the service and delete %s",
                _format(now), _format(last), MARK_NAME,
            )  # fmt: skip
        self._doubted = doubted
        return doubted

    def _read(self, connection: Connection) -> FeedbackSummary:
        totals: dict[str, Any] = changes.read_totals(connection)
        cells = {name: totals.pop(name) for name in tables.CELLS.values()}
        rewards = {name: totals.pop(name) / MILLIONTHS for name in ("reward", "accepted_reward")}
        lines = connection.execute(tables.COUNT_RECENT, {"window": self._window})
        recent = {tables.CELLS[label, truth]: rows for label, truth, rows in lines}
        models = tuple(version for (version,) in connection.execute(tables.FIND_VERSIONS))
        return FeedbackSummary(
            Confusion(**cells), Confusion(**recent), models=models, **totals, **rewards
        )


def begin_feedback(folder: Path, window: int = 100, keep_days: int = 0) -> FeedbackStore:
    """Open the feedback of a service in `folder`, or create it; quarantine a damaged file.

    Nothing stays open, because the workers are forked later. If the storage fails, as on a full
    disk, the service starts all the same: predictions do not need it.
    """
    database, mark = SQLiteDatabase(folder / FILE_NAME), Mark(folder)
    repair(database, mark)
    store = FeedbackStore(database, window, keep_days, mark)
    with suppress(Unavailable):  # it is logged
        with database.writing() as connection:
            connection.execute(tables.INDEX_VERSIONS)
        store.delete_expired()
    store.close()
    return store


def open_feedback(folder: Path, window: int = 100) -> FeedbackStore:
    """Open the feedback in `folder`; a service may be running.

    Raises:
        BadSetting: there is none, it is damaged, or a running service holds one of an older
            format.
    """
    path = folder / FILE_NAME
    if not os.path.lexists(path):
        raise BadSetting(f"{path} does not exist: no service has run with this state folder")
    database = SQLiteDatabase(path)
    if path.is_file() and needs_migration(path):
        try:
            held = StateFolder(folder, wait_seconds=0)
        except InUse as error:
            raise BadSetting(
                f"{path} has an older format and is used by a running service of an older version "
                f"(process {error.owner}); stop that first"
            ) from error
        require_sound(database)  # which migrates
        del held
    require_sound(database)
    return FeedbackStore(database, window)


def _format(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
