"""Back up and restore state; every figure must be the same afterwards."""

import io
import os
import shutil
import signal
import sqlite3
import tarfile
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.errors import BadInput, BadSetting
from service.rows import Verdict
from service.state import backup, counts
from service.state.audit import AuditLog
from service.state.backup import pack_state, restore_backup, write_backup
from service.state.counts import Counts
from service.state.feedback.store import begin_feedback, open_feedback
from service.state.folder import LOCK_NAME, RESTORING, StateFolder
from service.state.generations import Generations
from service.state.low_pvalues import LowPValues
from service.state.odd_cells import OddCells
from service.state.records import as_table, begin_records, open_records
from service.threshold_choice import ThresholdChoice
from service.truths import ScoredRow, Statement
from tests.support.children import in_child

COLUMNS = ["a", "b"]


@pytest.fixture
def folder(tmp_path):
    """A state folder in which something of everything has happened."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    verdict = Verdict(np.array([0.1, -0.1]), 0.0, "abc")
    records, totals = begin_records(folder, COLUMNS, 100), Counts(folder, COLUMNS)
    for number in range(3):
        records.append(f"p{number}", np.full((2, 2), float(number)), verdict)
        totals.add(verdict)
    totals.observe("/predict", "2xx", 0.001)
    OddCells(COLUMNS, folder).add([(1, 0, 5)])
    LowPValues(folder).add(np.array([0.005]))
    generations, audit = Generations(folder), AuditLog(folder)
    with audit.recording("me", ("threshold", 0.0, 0.5)):
        audit.choose(ThresholdChoice(0.5), "0" * 64, ThresholdChoice(0.0))
    generations.count("threshold")
    store = begin_feedback(folder)
    store.add(Statement("p1", truths=(1,)), [ScoredRow(0, 0, 0.1, "abc", True)])
    store.add(Statement("p1", reward=0.5))
    store.close()
    return folder


def figures(folder):
    """Return all that a state folder says."""
    table = as_table(open_records(folder))
    with closing(open_feedback(folder)) as store:
        summary, history = store.read(), store.history()
    return (
        Counts(folder, COLUMNS).read(),
        {name: list(column) for name, column in table.items()},
        (summary, {name: list(column) for name, column in history.items()}),
        OddCells(COLUMNS, folder).read(),
        LowPValues(folder).read(),
        Generations(folder).changes(),
        AuditLog(folder).chosen("0" * 64, ThresholdChoice(0.0)),
        (folder / "audit.jsonl").read_bytes(),
    )


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def pack(folder, scratch):
    return b"".join(pack_state(folder, scratch, {}))


def restore(content, folder):
    return restore_backup(io.BytesIO(content), folder)


def test_a_restored_folder_has_equal_figures(folder, tmp_path, caplog):
    service = StateFolder(folder)
    manifest = write_backup(folder, tmp_path / "state.tar.gz")
    with (tmp_path / "state.tar.gz").open("rb") as stream:
        assert restore_backup(stream, tmp_path / "new") == manifest
    del service
    assert figures(tmp_path / "new") == figures(folder)
    assert set(manifest["files"]) == set(backup.NAMES)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    assert caplog.messages == []


def test_a_backup_is_a_tar_file_that_others_read(folder, tmp_path):
    write_backup(folder, tmp_path / "state.tar.gz")
    with tarfile.open(tmp_path / "state.tar.gz") as tar:
        assert tar.getnames() == [*backup.NAMES, "manifest.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "state.tar.gz"]


def test_backups_while_others_write_are_sound_and_agree_with_themselves(folder, tmp_path, caplog):
    stop, verdict = threading.Event(), Verdict(np.array([0.1, -0.1, 0.3]), 0.0, "abc")

    def write():
        records, totals = begin_records(folder, COLUMNS, 100), Counts(folder, COLUMNS)
        store, number = begin_feedback(folder), 0
        while os.getppid() == parent and number < 50_000:
            puid = f"w{number % 50}"
            totals.add(verdict)  # in the service's order: counted, recorded, then labelled
            records.append(puid, np.ones((3, 2)), verdict)
            if number % 10 == 0:
                store.add(Statement(puid, truths=(1,)), [ScoredRow(0, 0, 0.1, "abc", True)])
            number += 1

    parent = os.getpid()
    writer = in_child(write)
    try:
        for number in range(5):
            new = tmp_path / f"new{number}"
            restore(pack(folder, tmp_path), new)
            caplog.clear()
            samples, rows = Counts(new, COLUMNS).read().totals.samples, open_records(new).read()
            begin_records(new, COLUMNS, 100)
            with closing(begin_feedback(new)) as store:
                store.read()
            assert samples >= len(rows)
            assert caplog.messages == []
    finally:
        stop.set()
        os.kill(writer, signal.SIGKILL)
        exit_code(writer)


def test_a_number_that_is_being_changed_is_read_again(folder, tmp_path, monkeypatch):
    readings, read = [], backup.read_mapped

    def torn(path):
        layout, body = read(path)
        readings.append(path.name)
        if readings.count(counts.FILE_NAME) < 3 and path.name == counts.FILE_NAME:
            body = body.replace(b"\x06", b"\x07")  # six samples
        return layout, body

    monkeypatch.setattr(backup, "read_mapped", torn)
    restore(pack(folder, tmp_path), tmp_path / "new")
    assert readings.count(counts.FILE_NAME) == 3
    assert Counts(tmp_path / "new", COLUMNS).read().totals.samples == 6


@pytest.mark.parametrize(
    ("name", "selector"),
    [
        ("counts.bin", 8 * counts._SLOTS),
        ("cells.bin", 0),
        ("pvalues.bin", 0),
        ("swaps.bin", 0),
        ("feedback.bin", 0),
    ],
)
def test_damaged_numbers_are_not_backed_up(folder, tmp_path, name, selector, monkeypatch):
    monkeypatch.setattr(backup, "_TRIES", 2)
    content = bytearray((folder / name).read_bytes())
    content[4096 + selector] ^= 2
    (folder / name).write_bytes(content)
    with pytest.raises(BadSetting, match=rf"{name}: .*damaged; start the service, which keeps"):
        write_backup(folder, tmp_path / "state.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_damaged_feedback_is_not_backed_up(folder, tmp_path):
    path = folder / "feedback.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    path.write_bytes(path.read_bytes()[:4096] + b"x" * 8192)
    with pytest.raises(BadSetting, match=r"feedback\.db: it (is damaged|cannot be copied) \("):
        write_backup(folder, tmp_path / "state.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_folder_without_state_is_not_backed_up(tmp_path):
    with pytest.raises(BadSetting, match="has no state: no service has run with it"):
        write_backup(tmp_path, tmp_path / "state.tar.gz")


def test_a_folder_with_state_is_not_overwritten(folder, tmp_path):
    content, before = pack(folder, tmp_path), figures(folder)
    with pytest.raises(BadSetting, match=r"is not empty \(audit\.jsonl, .*\); name an empty"):
        restore(content, folder)
    assert figures(folder) == before
    service = StateFolder(tmp_path / "other")
    with pytest.raises(BadSetting, match="is used by a running service"):
        restore(content, tmp_path / "other")
    del service


def test_damaged_backups_are_refused_and_leave_nothing(folder, tmp_path):
    content = pack(folder, tmp_path)
    damaged = [b"", b"not a backup", content[:100], content[: len(content) // 2], content[:-2000]]
    for at in range(20, len(content) - 1000, len(content) // 23):
        damaged.append(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
    for one in damaged:
        try:
            restore(one, tmp_path / "new")
        except BadInput as error:
            assert "damaged, or is none" in str(error)
            assert not (tmp_path / "new").exists()
        else:  # zeros are packed as copies of zeros, from anywhere
            assert len(one) == len(content)
            assert figures(tmp_path / "new") == figures(folder)
            shutil.rmtree(tmp_path / "new")
    (tmp_path / "new").mkdir()
    with pytest.raises(BadInput):
        restore(damaged[0], tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [LOCK_NAME]


def test_other_members_than_a_backups_are_refused(tmp_path):
    for name in ("../outside", "service.lock", "counts.bin"):
        member, stream = tarfile.TarInfo(name), io.BytesIO()
        member.type = tarfile.SYMTYPE if name == "counts.bin" else tarfile.REGTYPE
        member.linkname = "/etc/passwd"
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            tar.addfile(member)
        with pytest.raises(BadInput, match="damaged, or is none"):
            restore(stream.getvalue(), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_backup_of_a_later_format_names_the_version_that_reads_it(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(backup, "_FORMAT", 2)
        content = pack(folder, tmp_path)
    with pytest.raises(BadInput, match=r"has format 2, and this version reads 1; use isoserve 0"):
        restore(content, tmp_path / "new")


def test_a_killed_restore_leaves_nothing_that_a_service_would_use(folder, tmp_path, monkeypatch):
    content, new, moves, rename = pack(folder, tmp_path), tmp_path / "new", 0, Path.rename
    while True:
        moves += 1

        def die(path, target, left=[moves]):  # noqa: B006 - counts down
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(path, target)

        monkeypatch.setattr("pathlib.Path.rename", die)
        if exit_code(in_child(lambda: restore(content, new))) == 0:
            break
        monkeypatch.undo()
        assert (new / RESTORING).exists()
        with pytest.raises(BadSetting, match=r"a restore into .* did not end; run"):
            StateFolder(new)
    monkeypatch.undo()
    assert moves == len(backup.NAMES) + 1
    assert figures(new) == figures(folder)


def test_a_killed_backup_leaves_no_file_of_its_name(folder, tmp_path):
    file = tmp_path / "state.tar.gz"

    def write_slowly():
        parts = pack_state(folder, tmp_path, {})
        backup.pack_state = lambda *_: (time.sleep(0.02) or part for part in parts)
        write_backup(folder, file)

    child = in_child(write_slowly)
    while not (unfinished := tmp_path / "state.tar.gz.new").exists():
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    exit_code(child)
    assert not file.exists()
    write_backup(folder, file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", file.name]
    assert not unfinished.exists()
