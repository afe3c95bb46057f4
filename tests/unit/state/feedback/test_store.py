import os
import random
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from math import fsum

import pytest
from sklearn import metrics

from service.errors import BadSetting, Unavailable
from service.state.feedback.store import (
    DAY,
    FILE_NAME,
    FeedbackStore,
    ScoredRow,
    begin_feedback,
    open_feedback,
)
from service.truths import Confusion


@pytest.fixture
def store(tmp_path):
    with closing(begin_feedback(tmp_path)) as store:
        yield store


def row(label, number=0, recorded=True, version="v1", score=0.1):
    return ScoredRow(number, label, score, version, recorded)


def say(store, puid, label, truth, **about):
    return store.add(puid, [row(label, **about)], [truth])


def look(store, query):
    """Ask another connection, as a stranger would."""
    with closing(sqlite3.connect(store.path)) as connection:
        return connection.execute(query).fetchall()


def recount(store, last=-1):
    """Count the table, all of it or the rows judged last."""
    pairs = look(store, f"SELECT label, truth FROM truths ORDER BY place DESC LIMIT {last}")
    return Confusion.count(Counter(pairs))


@contextmanager
def locked(store):
    """Hold the lock that every writer needs."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full_disk(store):
    """Let no file of this process grow."""
    size = max(path.stat().st_size for path in store.path.parent.glob(f"{FILE_NAME}*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4096 * 4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_was_said_is_on_the_disk_and_read_back(store, tmp_path):
    say(store, "p", 1, 1)
    summary = say(store, "q", 1, 0)
    assert summary.total == summary.recent == Confusion(true_positive=1, false_positive=1)
    assert begin_feedback(tmp_path).read() == summary
    assert look(store, "PRAGMA journal_mode") == [("wal",)]
    assert (store.path.stat().st_mode & 0o777) == 0o600


def test_a_commit_waits_for_the_disk(store):
    store.read()
    assert store._reader._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_said_twice_is_counted_once(store):
    first = store.add("p", [row(0), row(1, 1)], [0, 1], reward=0.5)
    assert store.add("p", [row(0), row(1, 1)], [0, 1], reward=0.5) == first
    assert (first.total.rows, first.rewarded, first.reward) == (2, 1, 0.5)
    assert look(store, "SELECT count(*) FROM revisions") == [(0,)]


def test_said_otherwise_is_a_revision_that_keeps_its_place(tmp_path):
    store = begin_feedback(tmp_path, window=2)
    for number in range(3):
        say(store, f"p{number}", 0, 0)
    summary = say(store, "p0", 0, 1)
    assert summary.total == Confusion(true_negative=2, false_negative=1)
    assert summary.recent == Confusion(true_negative=2)
    assert say(store, "p2", 0, 1).recent == Confusion(true_negative=1, false_negative=1)
    assert look(store, "SELECT puid, truth FROM revisions ORDER BY puid") == [("p0", 0), ("p2", 0)]


def test_a_label_as_it_was_answered_is_never_replaced_by_one_scored_again(store):
    say(store, "p", 1, 0, version="old")
    assert say(store, "p", 0, 0, recorded=False).total == Confusion(false_positive=1)
    assert say(store, "p", 0, 1, recorded=False).total == Confusion(true_positive=1)
    assert store.find("p", 0, 9)[0].version == "old"
    assert say(store, "p", 0, 1, version="new").total == Confusion(false_negative=1)
    assert store.find("p", 0, 9)[0].version == "new"


def test_rewards_sum_up_exactly(store):
    rewards = [0.1] * 10 + [1e16, 1.0, -1e16, -0.25]
    for number, reward in enumerate(rewards):
        summary = store.add(f"p{number}", reward=reward)
    assert (summary.rewarded, summary.reward) == (14, fsum(rewards))
    summary = store.add("p0", reward=0.0)
    assert (summary.rewarded, summary.reward) == (13, fsum(rewards[1:]))
    assert store.add("p1", reward=0.1, row=0).rewarded == 14
    assert summary.total.rows == 0


def test_unmatched_feedback_is_counted_apart(store):
    store.count_unmatched()
    assert store.read().unmatched == 1
    assert store.read().total.rows == 0


def test_only_the_rows_asked_for_are_found(store):
    store.add("p", [row(n % 2, n) for n in range(5)], [0] * 5)
    assert sorted(store.find("p", 1, 3)) == [1, 2, 3]
    assert store.find("p", 1, 3)[3] == row(1, 3)
    assert store.find("q", 0, 9) == {}


def test_a_long_puid_is_kept_as_a_short_one(store):
    for end in "ab":
        say(store, "x" * 10**6 + end, 1, 1)
    assert store.read().total.rows == 2
    assert max(len(puid) for (puid,) in look(store, "SELECT puid FROM truths")) < 200
    assert store.delete(puid="x" * 10**6 + "a") == 1


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_equals_scikit_learns_on_the_stored_rows(tmp_path, seed):
    chance = random.Random(seed)
    store = begin_feedback(tmp_path, window=30)
    for _ in range(300):
        truth = chance.randrange(2)
        number = chance.randrange(90)
        gauges = say(store, f"p{number}", number % 3 == 0, truth).gauges()
    pairs = look(store, "SELECT label, truth FROM truths ORDER BY place")
    for suffix, part in (("tot", pairs), ("roll", pairs[-30:])):
        y_pred, y_true = zip(*part, strict=True)
        assert gauges[f"accuracy_{suffix}"] == metrics.accuracy_score(y_true, y_pred)
        assert gauges[f"precision_{suffix}"] == metrics.precision_score(y_true, y_pred)
        assert gauges[f"recall_{suffix}"] == metrics.recall_score(y_true, y_pred)
        assert gauges[f"f1_{suffix}"] == metrics.f1_score(y_true, y_pred)
        assert gauges[f"f2_{suffix}"] == metrics.fbeta_score(y_true, y_pred, beta=2)
    matrix = metrics.confusion_matrix(*zip(*[(t, p) for p, t in pairs], strict=True)).ravel()
    names = ["true_negative", "false_positive", "false_negative", "true_positive"]
    assert [gauges[name] for name in names] == matrix.tolist()


def test_threads_and_processes_count_every_row_once(tmp_path, store, monkeypatch):
    """Two processes of four threads each say the same 200 things, and revise half of them."""
    monkeypatch.setattr("service.state.feedback.store._PATIENCE", 30)  # the disk may be slow

    def work():
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: say(store, f"p{n}", n % 2, 0), range(200)))
            list(pool.map(lambda n: say(store, f"p{n}", n % 2, 1), range(0, 200, 4)))

    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    work()
    assert os.waitpid(child, 0)[1] == 0
    # One process may have said the first thing again after the other had revised it.
    for n in range(0, 200, 4):
        say(store, f"p{n}", n % 2, 1)
    assert store.read().total == recount(store) == Confusion(50, 100, 50, 0)
    assert store.read().recent == recount(store, 100)


def test_a_process_killed_in_a_transaction_leaves_no_trace(tmp_path, store):
    code = (
        "import os, sys; from pathlib import Path; from service.state.feedback.store import *\n"
        "store = FeedbackStore(Path(sys.argv[1]))\n"
        "with store._writing() as connection:\n"
        "    connection.execute('UPDATE confusion SET rows = 7')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    say(store, "p", 1, 1)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert say(store, "q", 1, 1).total == Confusion(true_positive=2)


def test_a_locked_storage_is_told_within_two_seconds_and_then_at_once(store, caplog):
    say(store, "p", 1, 1)
    with locked(store):
        began = time.monotonic()
        with pytest.raises(Unavailable, match="database is locked"):
            say(store, "q", 1, 1)
        assert time.monotonic() - began < 2
        began = time.monotonic()
        for _ in range(5):
            assert not store.is_up()
        assert time.monotonic() - began < 1
        assert store.read().total.rows == 1  # who only reads never waits
    assert say(store, "q", 1, 1).total.rows == 2
    assert store.is_up()
    told = [record.message for record in caplog.records]
    assert told == [
        "the storage of feedback fails: database is locked",
        "the storage of feedback works again",
    ]


def test_a_storage_that_cannot_even_be_read_is_told_in_time(store):
    say(store, "p", 1, 1)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        store.close()
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        for seconds in (2, 0.2):
            began = time.monotonic()
            assert store.survey() == (None, False)
            with pytest.raises(Unavailable, match="database is locked"):
                store.find("p", 0, 0)
            assert time.monotonic() - began < 2 * seconds
        other.execute("ROLLBACK")
    assert store.survey()[1]
    assert store.find("p", 0, 0) == {0: row(1)}


def test_many_threads_at_a_locked_storage_wait_for_one_patience_only(store):
    say(store, "p", 1, 1)
    with locked(store), ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        failed = list(pool.map(lambda n: not store.is_up(), range(8)))
        assert time.monotonic() - began < 2
    assert all(failed)


def test_a_full_disk_is_told_and_mends_itself(store):
    say(store, "p", 1, 1)
    with full_disk(store):
        assert not store.is_up()
        with pytest.raises(Unavailable):
            store.add("q", [row(0, n) for n in range(5000)], [0] * 5000)
        assert store.read().total.rows == 1
    assert store.is_up()
    assert say(store, "q", 1, 1).total == recount(store) == Confusion(true_positive=2)


def test_a_file_taken_away_is_begun_anew(store):
    for suffixes in (("", "-wal", "-shm"), ("",)):
        say(store, "p", 1, 1)
        store.read()
        for suffix in suffixes:
            store.path.with_name(store.path.name + suffix).unlink()
        assert say(store, "q", 1, 0).total == Confusion(false_positive=1)
        assert store.read().total == recount(store)


def test_a_folder_taken_away_is_told(store, tmp_path):
    say(store, "p", 1, 1)
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    with pytest.raises(Unavailable, match="the storage of feedback fails"):
        say(store, "q", 1, 1)
    assert not store.is_up()
    tmp_path.with_name("elsewhere").rename(tmp_path)
    assert say(store, "q", 1, 1).total.rows == 2


@pytest.mark.parametrize("damage", ["words", "middle", "stranger"])
def test_a_damaged_file_is_set_aside_at_the_start(tmp_path, damage, caplog):
    store = begin_feedback(tmp_path)
    for number in range(500):
        say(store, f"p{number}", 1, 1)
    store.close()
    if damage == "words":
        store.path.write_bytes(b"no database at all " * 500)
    elif damage == "middle":
        content = bytearray(store.path.read_bytes())
        content[8192:24576] = os.urandom(16384)
        store.path.write_bytes(content)
    else:
        with closing(sqlite3.connect(store.path)) as connection:
            connection.execute("PRAGMA user_version = 99")
    begun = begin_feedback(tmp_path)
    assert "is set aside as feedback.db.1" in caplog.text
    assert (tmp_path / "feedback.db.1").exists()
    assert say(begun, "p", 1, 1).total.rows == 1


def test_none_that_was_set_aside_is_ever_deleted(tmp_path):
    for number in range(5):
        (tmp_path / "feedback.db").write_text(f"no database at all {number}")
        begin_feedback(tmp_path)
    kept = sorted(tmp_path.glob("feedback.db.*"))
    assert [path.read_text()[-1] for path in kept] == ["0", "1", "2", "3", "4"]


def test_a_start_goes_on_when_the_storage_fails(tmp_path, caplog):
    begin_feedback(tmp_path)
    with locked(FeedbackStore(tmp_path)):
        store = begin_feedback(tmp_path)
        assert "the storage of feedback fails" in caplog.text
    assert say(store, "p", 1, 1).total.rows == 1
    assert not (tmp_path / "feedback.db.1").exists()


def test_deleting_takes_rows_rewards_and_history_out_of_every_figure(store):
    for puid in "pq":
        store.add(puid, [row(1), row(1, 1)], [1, 0], reward=1.0)
        store.add(puid, [row(1)], [0], reward=2.0)
    assert store.delete(puid="p") == 3
    summary = store.read()
    assert summary.total == summary.recent == Confusion(false_positive=2)
    assert (summary.rewarded, summary.reward) == (1, 2.0)
    assert {puid for (puid,) in look(store, "SELECT puid FROM revisions")} == {"q"}
    assert store.delete(before=time.time() + 1) == 3
    assert store.read().total.rows == 0


def test_what_is_deleted_is_overwritten(store):
    say(store, "a-secret-name", 1, 1)
    store.delete(puid="a-secret-name")
    content = b"".join(path.read_bytes() for path in store.path.parent.glob(f"{FILE_NAME}*"))
    assert b"a-secret-name" not in content


def test_old_feedback_is_forgotten_when_it_should_be(tmp_path, monkeypatch):
    now = time.time()
    store = begin_feedback(tmp_path, keep_days=30)
    for days in (40, 31, 29):
        with monkeypatch.context() as patch:
            patch.setattr(
                "service.state.feedback.store.time.time", lambda days=days: now - days * DAY
            )
            store.add(f"p{days}", [row(1)], [1], reward=0.5)
    assert store.read().total.rows == 3  # at its own time, none was too old
    summary = say(store, "new", 0, 0)
    assert summary.total == recount(store) == Confusion(true_negative=1, true_positive=1)
    assert (summary.rewarded, summary.reward) == (1, 0.5)
    store.close()
    assert begin_feedback(tmp_path, keep_days=7).read().total.rows == 1
    assert begin_feedback(tmp_path).read().total.rows == 1


def test_before_the_first_feedback_there_are_columns_without_lines(store):
    assert store.statements()["puid"] == ()


def test_all_that_was_said_can_be_read(store):
    store.add("p", [row(1, score=-0.5)], [0], reward=1.0)
    store.add("p", [row(1, score=-0.5)], [1])
    table = store.statements()
    said = zip(*(table[name] for name in ("row", "truth", "reward", "current")), strict=True)
    assert sorted(said, key=str) == [(0, 0, None, 0), (0, 1, None, 1), (None, None, 1.0, 1)]
    assert set(table["score"]) == {-0.5, None}
    assert "place" not in table


def test_there_must_be_feedback_to_open(tmp_path):
    with pytest.raises(BadSetting, match="does not exist"):
        open_feedback(tmp_path)
    begin_feedback(tmp_path)
    assert open_feedback(tmp_path).read().total.rows == 0


def test_a_reader_sees_one_state_while_others_write(store):
    """All rows are judged in pairs, so at no moment may there be an odd number."""
    end = threading.Event()

    def write():
        for number in range(300):
            store.add(f"p{number}", [row(1), row(0, 1)], [1, 0])
        end.set()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(write)
        while not end.is_set():
            total = store.read().total
            assert total.true_positive == total.true_negative
