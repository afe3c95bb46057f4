"""Open a database of format 1; the file was made by the last version that wrote it."""

import logging
import os
import resource
import shutil
import signal
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from service.errors import BadSetting
from service.state.feedback import migration, sqlite
from service.state.feedback.store import FILE_NAME, begin_feedback, open_feedback
from service.state.folder import StateFolder
from service.truths import Confusion, FeedbackSummary, ScoredRow
from tests.support.examples import STRIDE
from tests.support.feedback import add_truth, query, recount

SAMPLE = Path(__file__).parents[3] / "data/state/feedback-format-1.db"

TOTAL = Confusion(true_negative=1, false_positive=2, false_negative=1, true_positive=2)

MODELS = ("v1", "v2")

# 0.1 and 0.3 and 1.0 and 0.7 as they were, 0.123457 rounded, -1,000,000 clamped.
SUMMARY = FeedbackSummary(
    TOTAL, TOTAL, rewarded=6, reward=-999_997.776543, unmatched=3, models=MODELS
)


@pytest.fixture
def path(tmp_path):
    shutil.copy(SAMPLE, tmp_path / FILE_NAME)
    return tmp_path / FILE_NAME


def contents(path):
    """Return the format, the schema and all rows of a database."""
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.create_function("shift", 3, lambda *_: None, deterministic=True)
        return version, list(connection.iterdump())


def test_every_figure_is_the_same_after_the_migration(tmp_path, path, caplog):
    with closing(begin_feedback(tmp_path)) as store:
        assert store.read() == SUMMARY
    assert caplog.messages == [
        "feedback is migrated from format 1 to format 3; 3 rewards were rounded to a millionth or "
        "reduced to a million"
    ]
    assert recount(path) == TOTAL
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_stored_feedback_is_found_after_the_migration(tmp_path, path):
    with closing(begin_feedback(tmp_path)) as store:
        assert store.find("p2", 0, 9) == {0: ScoredRow(0, 1, -0.2, "v2", recorded=True)}
        assert store.find("x" * 1000 + "a", 0, 0)[0].score == -0.5
        assert [store.knows(puid) for puid in ("fine", "gone")] == [True, False]
        assert add_truth(store, "new", 0, 0).total.true_negative == 2
        assert store.delete(puid="x" * 1000 + "a") == 2


def test_the_whole_history_is_kept(tmp_path, path):
    with closing(begin_feedback(tmp_path)) as store:
        table = store.history()
    names = ("puid", "row", "predicted", "truth", "reward", "recorded", "current")
    lines = list(zip(*(table[name] for name in names), strict=True))
    assert table["time"] == tuple(sorted(table["time"]))
    assert ("p0", 0, 1, 1, None, 1, 1) in lines[:4]
    revised = [line for line in lines if not line[-1]]
    assert revised == [
        ("p0", 1, 0, 1, None, 1, 0),
        ("p1", None, None, None, -2.5, None, 0),
        ("p2", 0, 0, 0, None, 0, 0),
        ("revised", None, None, None, 1_000_000.0, None, 0),
    ]
    rewards = {line[0][:7]: line[4] for line in lines if line[-1] and line[4] is not None}
    assert rewards == {
        **{"p0": 0.1, "p1": 1.0, "xxxxxxx": 0.7, "fine": 0.123457},
        **{"large": -1_000_000.0, "revised": 0.0},
    }
    assert len(lines) == 6 + 7 + 4


@pytest.mark.parametrize(
    ("reward", "millionths"),
    [
        *((0.1, 100_000), (-0.3, -300_000), (1e6, 10**12), (-1e6, -(10**12)), (0.0, 0)),
        *((999_999.999999, 999_999_999_999), (5e-7, 1), (4e-7, 0), (-5e-7, -1), (1e300, 10**12)),
        *((float("-inf"), -(10**12)), (0.1 + 0.2, 300_000), (1 / 3, 333_333)),
    ],
)
def test_rewards_are_rounded_to_whole_millionths(tmp_path, path, reward, millionths):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.create_function("shift", 3, lambda *_: "0", deterministic=True)
        before = connection.execute(migration.COUNT_CHANGED.replace("old_", "")).fetchone()[0]
        connection.execute("UPDATE rewards SET reward = ? WHERE puid = 'p1'", (reward,))
        after = connection.execute(migration.COUNT_CHANGED.replace("old_", "")).fetchone()[0]
    with closing(begin_feedback(tmp_path)):
        found = query(path, "SELECT reward FROM rewards WHERE puid = 'p1'")
    assert found == [(millionths,), (millionths,)]
    assert after - before == (2 if millionths / 1_000_000 != reward else 0)


def migrate_and_die(folder, step):
    """Open the feedback in a child that is killed before a step; return whether it was."""
    child = os.fork()
    if child == 0:
        steps = iter(range(step, -1, -1))

        def count(statement):
            if next(steps) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        connect = sqlite3.connect

        def connect_and_count(*arguments, **options):
            connection = connect(*arguments, **options)
            connection.set_trace_callback(count)
            return connection

        sqlite3.connect = connect_and_count
        with sqlite.SQLiteDatabase(folder / FILE_NAME).reading():
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.fixture
def memory(tmp_path):
    """Use a folder in memory if there is one: a killed process loses nothing on either."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as folder:
        yield Path(folder)


def test_a_migration_killed_at_any_statement_is_complete_or_undone(memory):
    before = contents(SAMPLE)
    steps = migrated = 0
    killed = True
    while killed:
        folder = memory / str(steps)
        folder.mkdir()
        shutil.copy(SAMPLE, folder / FILE_NAME)
        killed = migrate_and_die(folder, steps)
        if query(folder / FILE_NAME, "PRAGMA user_version") == [(3,)]:
            migrated += STRIDE
        else:
            assert contents(folder / FILE_NAME) == before
        with closing(begin_feedback(folder)) as store:
            assert store.read() == SUMMARY
        steps += STRIDE
    assert steps - migrated > 35  # the statements of the migration are among them


def test_a_migration_that_fails_on_a_full_disk_is_repeated_later(tmp_path, path):
    before = contents(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
    store = begin_feedback(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(path) == before
    with closing(store):
        assert store.read() == SUMMARY


def test_a_command_migrates_only_while_no_service_runs(tmp_path, path, caplog):
    caplog.set_level(logging.ERROR)
    before, service = contents(path), StateFolder(tmp_path)
    with pytest.raises(BadSetting, match="used by a running service of an older version"):
        open_feedback(tmp_path)
    assert contents(path) == before
    del service
    with closing(open_feedback(tmp_path)) as store:
        assert store.read() == SUMMARY
