import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from service.errors import Unavailable
from service.state.feedback import sqlite
from service.state.feedback.store import FILE_NAME, begin_feedback
from service.state.files import quarantined
from service.truths import Confusion, Statement
from tests.support.feedback import add_truth, query, recount, row


@contextmanager
def locked(path):
    """Hold the lock that every writer needs."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full_disk(path):
    """Limit the size of this process's files to that of SQLite's log."""
    size = path.with_name(f"{FILE_NAME}-wal").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4096 * 4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_file_is_in_wal_mode_and_readable_by_its_owner_only(store, path):
    add_truth(store, "p", 1, 1)
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert (path.stat().st_mode & 0o777) == 0o600


def test_commits_are_synced_to_the_disk(store):
    with store._database.writing() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_threads_and_processes_count_every_row_once(store, path, monkeypatch):
    """Two processes of four threads each send the same 200 truths, and revise a quarter."""
    monkeypatch.setattr(sqlite, "_TIMEOUT", 30)  # the disk may be slow

    def work():
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: add_truth(store, f"p{n}", n % 2, 0), range(200)))
            list(pool.map(lambda n: add_truth(store, f"p{n}", n % 2, 1), range(0, 200, 4)))

    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    work()
    assert os.waitpid(child, 0)[1] == 0
    # One process may have sent the first truth again after the other had revised it.
    for n in range(0, 200, 4):
        add_truth(store, f"p{n}", n % 2, 1)
    assert store.read().total == recount(path) == Confusion(50, 100, 50, 0)
    assert store.read().recent == recount(path, 100)


def test_a_transaction_of_a_killed_process_is_rolled_back(tmp_path, store):
    code = (
        "import os, sys; from pathlib import Path; from service.state.feedback.store import *\n"
        "store = open_feedback(Path(sys.argv[1]))\n"
        "with store._database.writing() as connection:\n"
        "    connection.execute('UPDATE totals SET true_positive = 7')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    add_truth(store, "p", 1, 1)
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert add_truth(store, "q", 1, 1).total == Confusion(true_positive=2)


def test_a_locked_database_is_reported_within_two_seconds_and_then_at_once(store, path, caplog):
    add_truth(store, "p", 1, 1)
    with locked(path):
        began = time.monotonic()
        with pytest.raises(Unavailable, match="database is locked"):
            add_truth(store, "q", 1, 1)
        assert time.monotonic() - began < 2
        began = time.monotonic()
        for _ in range(5):
            assert not store.is_up()
        assert time.monotonic() - began < 1
        assert store.read().total.rows == 1  # readers never wait
    assert add_truth(store, "q", 1, 1).total.rows == 2
    assert store.is_up()
    logged = [record.message for record in caplog.records]
    assert logged == [
        "the storage of feedback fails: database is locked",
        "the storage of feedback works again",
    ]


def test_a_database_locked_for_readers_is_reported_within_two_seconds(store, path):
    add_truth(store, "p", 1, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
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


def test_many_threads_at_a_locked_database_wait_for_one_timeout_only(store, path):
    add_truth(store, "p", 1, 1)
    with locked(path), ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        failed = list(pool.map(lambda n: not store.is_up(), range(8)))
        assert time.monotonic() - began < 2
    assert all(failed)


def test_a_full_disk_is_reported_until_there_is_space_again(store, path):
    add_truth(store, "p", 1, 1)
    with full_disk(path):
        assert not store.is_up()
        with pytest.raises(Unavailable):
            store.add(Statement("q", truths=(0,) * 5000), [row(0, n) for n in range(5000)])
    assert store.read().total.rows == 1
    assert store.is_up()
    assert add_truth(store, "q", 1, 1).total == recount(path) == Confusion(true_positive=2)


def test_a_deleted_file_is_created_again(store, path):
    for suffixes in (("", "-wal", "-shm"), ("",)):
        add_truth(store, "p", 1, 1)
        store.read()
        for suffix in suffixes:
            path.with_name(path.name + suffix).unlink()
        assert add_truth(store, "q", 1, 0).total == Confusion(false_positive=1)
        assert store.read().total == recount(path)


def test_a_missing_folder_is_reported(store, tmp_path):
    add_truth(store, "p", 1, 1)
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    with pytest.raises(Unavailable, match="the storage of feedback fails"):
        add_truth(store, "q", 1, 1)
    assert not store.is_up()
    tmp_path.with_name("elsewhere").rename(tmp_path)
    assert add_truth(store, "q", 1, 1).total.rows == 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("words", "it is damaged (file is not a database)"),
        ("middle", "it is damaged"),
        ("newer", "it has format 99; this version of isoserve knows formats up to 3"),
        ("foreign", "it is not a feedback database of isoserve"),
    ],
)
def test_an_unusable_file_is_quarantined_at_the_start(tmp_path, path, damage, reason, caplog):
    store = begin_feedback(tmp_path)
    store.add(Statement("p", truths=(1,) * 1000), [row(1, n) for n in range(1000)])
    store.close()
    if damage == "words":
        path.write_bytes(b"no database at all " * 500)
    elif damage == "middle":
        content = bytearray(path.read_bytes())
        content[8192:24576] = os.urandom(16384)
        path.write_bytes(content)
    else:
        query(path, f"PRAGMA {'user_version' if damage == 'newer' else 'application_id'} = 99")
    begun = begin_feedback(tmp_path)
    (kept,) = quarantined(path)
    assert f"is quarantined as {kept.name}: {reason}" in caplog.text
    kept = {"words": 0, "middle": 1000, "newer": 0, "foreign": 0}[damage]
    assert begun.read().total.rows == kept
    assert add_truth(begun, "q", 1, 1).total.rows == kept + 1


def test_a_quarantined_file_is_never_deleted(tmp_path):
    for number in range(5):
        (tmp_path / "feedback.db").write_text(f"no database at all {number}")
        begin_feedback(tmp_path)
    kept = quarantined(tmp_path / "feedback.db")
    assert [path.read_text()[-1] for path in kept] == ["0", "1", "2", "3", "4"]


def test_the_service_starts_without_a_usable_database(tmp_path, path, caplog):
    begin_feedback(tmp_path)
    with locked(path):
        store = begin_feedback(tmp_path, keep_days=30)
        assert "the storage of feedback fails" in caplog.text
    assert add_truth(store, "p", 1, 1).total.rows == 1
    assert quarantined(path) == []


def test_deleted_data_is_overwritten(store, path):
    add_truth(store, "a-secret-name", 1, 1)
    store.delete(puid="a-secret-name")
    content = b"".join(file.read_bytes() for file in path.parent.glob(f"{FILE_NAME}*"))
    assert b"a-secret-name" not in content


def test_a_reader_sees_a_consistent_state_while_others_write(store):
    """All truths come in pairs, so at no moment may there be an odd number."""
    end = threading.Event()

    def write():
        try:
            for number in range(300):
                store.add(Statement(f"p{number}", truths=(1, 0)), [row(1), row(0, 1)])
        finally:
            end.set()

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        while not end.is_set():
            total = store.read().total
            assert total.true_positive == total.true_negative
        written.result()


def test_the_file_states_its_format_in_user_version_and_schema(store, path):
    store.read()
    assert query(path, "PRAGMA user_version") == query(path, "SELECT version FROM schema_version")


def filled(folder, messages):
    """Store messages of one truth and one reward, and close the database."""
    store = begin_feedback(folder)
    for number in range(messages):
        store.add(Statement(f"p{number}", truths=(1,), reward=1_000_000), [row(1)])
    store.close()


@pytest.mark.parametrize("table", ["truths", "rewards", "totals"])
def test_what_was_changed_in_a_table_is_left_out_and_the_rest_is_kept(
    tmp_path, path, table, caplog
):
    filled(tmp_path, 10)
    change = {
        "truths": "UPDATE truths SET truth = 0 WHERE id = 5",
        "rewards": "UPDATE rewards SET reward = 7 WHERE id = 5",
        "totals": "UPDATE totals SET true_positive = 99",
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(change[table])
    summary = begin_feedback(tmp_path).read()
    assert summary.total == recount(path)
    assert summary.total.rows == (9 if table == "truths" else 10)
    assert summary.reward == (9 if table == "rewards" else 10)
    assert summary.accepted == 10
    (kept,) = quarantined(path)
    assert f"is quarantined as {kept.name}: it is damaged" in caplog.text


@pytest.mark.parametrize("loss", ["older copy", "0 bytes", "gone"])
def test_acknowledged_feedback_that_is_lost_is_missed_aloud(tmp_path, path, loss, caplog):
    filled(tmp_path, 3)
    older = path.read_bytes()
    filled(tmp_path, 5)
    if loss == "gone":
        path.unlink()
    else:
        path.write_bytes(older if loss == "older copy" else b"")
    begin_feedback(tmp_path)
    said = (
        "is quarantined as"
        if loss == "0 bytes"
        else "acknowledged messages of feedback are missing"
    )
    assert said in caplog.text
    caplog.clear()
    begin_feedback(tmp_path)
    assert caplog.text == ""  # it is told once
