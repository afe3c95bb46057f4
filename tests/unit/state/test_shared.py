"""The state folder: one service, complete or quarantined files, locks that end with a process."""

import os
import re
import signal
import stat
import subprocess
import sys
import time

import pytest

from service.errors import BadSetting
from service.state.files import quarantine, quarantined
from service.state.folder import StateFolder
from service.state.shared import MappedFile, clock_offset_after

LAYOUT = {"kind": "test", "numbers": 4}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_may_read_the_folder_and_its_files(tmp_path):
    folder = StateFolder(tmp_path / "a" / "state")
    MappedFile.open_or_create(folder.path / "x.bin", LAYOUT, 100)
    assert mode(folder.path) == 0o700
    assert {mode(path) for path in folder.path.iterdir()} == {0o600}


def test_a_second_service_on_the_same_folder_refuses_to_start(tmp_path):
    first = StateFolder(tmp_path)
    with pytest.raises(BadSetting, match=rf"in use by another service \(process {os.getpid()}\)"):
        StateFolder(tmp_path, wait_seconds=0)
    del first
    StateFolder(tmp_path, wait_seconds=0)


def test_the_folder_is_locked_until_the_last_worker_has_ended(tmp_path):
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from service.state.folder import StateFolder\n"
        "folder = StateFolder(Path(sys.argv[1]))\n"
        "worker = os.fork()\n"
        "if worker: print(worker, flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    with pytest.raises(BadSetting, match="in use"):
        StateFolder(tmp_path, wait_seconds=0)
    os.kill(worker, signal.SIGKILL)
    StateFolder(tmp_path, wait_seconds=5)


def test_a_folder_that_cannot_be_created_or_written_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSetting, match=r"ISOSERVE_STATE_DIR: .* cannot be written"):
        StateFolder(tmp_path / "file" / "state")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(BadSetting, match="cannot be written"):
        StateFolder(tmp_path)


def test_an_existing_file_is_mapped_with_its_content(tmp_path):
    created = MappedFile.open_or_create(tmp_path / "x.bin", LAYOUT, 100)
    created.memory[created.start : created.start + 5] = b"hello"
    found = MappedFile.open_or_create(tmp_path / "x.bin", LAYOUT, 100)
    assert found.memory[found.start : found.start + 5] == b"hello"
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_a_new_file_has_no_holes(tmp_path):
    MappedFile.open_or_create(tmp_path / "x.bin", LAYOUT, 1_000_000)
    assert (tmp_path / "x.bin").stat().st_blocks * 512 >= 1_000_000


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "cut short"),
        (lambda content: content[:100], "damaged|cut short"),
        (lambda content: content[:-8], "bytes"),
        (lambda content: content + bytes(8), "bytes"),
        (lambda content: bytes(len(content)), "not a state file"),
        (lambda content: content[:20] + b"?" + content[21:], "header is damaged"),
        (lambda content: content[:12] + b"\xff\xff\xff\xff" + content[16:], "header is damaged"),
    ],
)
def test_a_damaged_file_is_quarantined_and_logged(tmp_path, caplog, damage, reason):
    path = tmp_path / "x.bin"
    MappedFile.open_or_create(path, LAYOUT, 100)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    new = MappedFile.open_or_create(path, LAYOUT, 100)
    assert not any(new.memory[new.start :])
    (kept,) = quarantined(path)
    assert kept.read_bytes() == damaged
    (record,) = caplog.records
    assert f"is quarantined as {kept.name}" in record.getMessage()
    assert re.search(reason, record.getMessage())


def test_a_file_of_another_layout_is_quarantined_with_its_content(tmp_path, caplog):
    for numbers in (4, 5, 6):
        MappedFile.open_or_create(tmp_path / "x.bin", LAYOUT | {"numbers": numbers}, 100)
    assert "its layout is different (numbers)" in caplog.text
    kept = quarantined(tmp_path / "x.bin")
    assert [MappedFile.open(path).layout["numbers"] for path in kept] == [4, 5]


def test_the_last_three_quarantined_files_are_kept(tmp_path, caplog):
    for numbers in range(15):
        MappedFile.open_or_create(tmp_path / "x.bin", LAYOUT | {"numbers": numbers}, 100)
    (tmp_path / "x.bin.new").touch()
    kept = quarantined(tmp_path / "x.bin")
    assert [MappedFile.open(path).layout["numbers"] for path in kept] == [11, 12, 13]
    assert caplog.text.count("is deleted: only the last 3 quarantined are kept") == 11


def test_by_default_all_quarantined_files_are_kept(tmp_path):
    for i in range(12):
        (tmp_path / "x.db").write_text(str(i))
        quarantine(tmp_path / "x.db", "it is damaged")
    assert [path.read_text() for path in quarantined(tmp_path / "x.db")] == [*map(str, range(12))]


def test_files_beside_a_file_are_quarantined_with_it(tmp_path):
    for ending in ("", "-wal", "-shm"):
        (tmp_path / f"x.db{ending}").write_text(f"0{ending}")
    kept = quarantine(tmp_path / "x.db", "it is damaged", beside=("-wal", "-shm"))
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == {f"{kept.name}{ending}": f"0{ending}" for ending in ("", "-wal", "-shm")}


def test_a_file_that_does_not_fit_on_the_disk_is_refused_and_removed(tmp_path):
    with pytest.raises(
        BadSetting, match=r"cannot be created .*; it needs 1,152,921,504,606,846,976"
    ):
        MappedFile.open_or_create(tmp_path / "x.bin", LAYOUT, 2**60)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_lock_is_released_when_its_process_is_killed(tmp_path, where):
    shared = (
        MappedFile.open_or_create(tmp_path / "x.bin", LAYOUT, 100)
        if where == "file"
        else MappedFile.anonymous(LAYOUT, 100)
    )
    child = os.fork()
    if child == 0:
        child_locks = shared.locks()
        child_locks.acquire(3)
        shared.memory[shared.start] = 1
        time.sleep(60)
        os._exit(1)
    while not shared.memory[shared.start]:
        time.sleep(0.001)
    locks = shared.locks()
    assert locks.acquire(2)
    assert not locks.acquire(3)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert locks.acquire(3)
    assert not shared.locks().acquire(3)
    locks.release(3)
    assert shared.locks().acquire(3)


def test_new_stamps_are_greater_than_the_last_one_whatever_the_clock_says():
    last = time.monotonic_ns() + 10**18
    ahead = clock_offset_after(last)
    assert time.monotonic_ns() + ahead > last
    assert clock_offset_after(0) == 0
