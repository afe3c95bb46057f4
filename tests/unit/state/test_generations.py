"""Which generation is current, who serves it, and what a kill or a full disk leaves."""

import os
import resource
import signal
import stat
import struct
import threading
import time

import pytest

from service.errors import BadModel, BadSetting, Unavailable
from service.state.files import quarantined
from service.state.generations import FILE_NAME, Changes, Generation, Generations

THRESHOLD = struct.pack("<d", 0.1)


@pytest.fixture
def generations(tmp_path):
    return Generations(tmp_path)


def in_child(act):
    """Run `act` in a forked process that ends afterwards; return its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(act() or 0)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def publish(generations, generation):
    """Write and publish a generation as the reloader does; return its number."""
    with generations.changing():
        number = generations.write(generation)
        generations.publish(number)
    return number


def files(folder):
    return sorted(path.name for path in folder.glob("generation*"))


def test_the_first_generation_is_the_model_at_the_start(generations):
    assert (generations.number, generations.read()) == (0, (0, None))


@pytest.mark.parametrize(
    "generation",
    [
        Generation(0.5),
        Generation(-0.0, b"", None),
        Generation(0.1, b"file", b""),
        Generation(0, b"a", b"b"),
        Generation(-0.1, b"a", None, 0.005),
    ],
)
def test_a_generation_survives_writing_and_reading(generations, generation):
    assert publish(generations, generation) == 1
    assert generations.read() == (1, generation)


def test_another_process_reads_the_latest_generation(generations):
    publish(generations, Generation(0.1, b"first" * 1000, b"card"))
    in_child(lambda: publish(generations, Generation(0.2, b"second", None)))
    assert generations.read() == (2, Generation(0.2, b"second", None))


def test_readers_see_complete_generations_only(generations):
    stop, torn = threading.Event(), []

    def read():
        while not stop.is_set():
            number, generation = generations.read()
            if generation and set(generation.content) != {number % 256}:
                torn.append(number)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 300):
        publish(generations, Generation(0.0, bytes([number % 256]) * 10_000))
    stop.set()
    for reader in readers:
        reader.join()
    assert torn == []


def test_a_running_worker_with_an_older_generation_is_behind(generations):
    ours, theirs = os.pipe(), os.pipe()

    def work():
        generations.register()
        os.write(theirs[1], b"1")
        os.read(ours[0], 1)
        generations.report(generations.number)
        os.write(theirs[1], b"2")
        os.read(ours[0], 1)

    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    os.read(theirs[0], 1)
    number = publish(generations, Generation(0.1))
    assert generations.count_behind(number) == 1
    os.write(ours[1], b"1")
    os.read(theirs[0], 1)
    assert generations.count_behind(number) == 0
    assert generations.count_behind(publish(generations, Generation(0.2))) == 1
    os.write(ours[1], b"2")
    os.waitpid(pid, 0)
    assert generations.count_behind(generations.number) == 0  # a dead worker is not waited for


def test_one_worker_watches_the_model_file_until_it_dies(generations):
    assert not generations.is_watching()  # the parent never does
    assert in_child(lambda: generations.register() or not generations.is_watching()) == 0
    generations.register()
    assert generations.is_watching()
    assert in_child(lambda: generations.register() or generations.is_watching()) == 0


def test_counts_survive_the_service_and_generations_do_not(tmp_path):
    before = Generations(tmp_path)
    publish(before, Generation(0.1))
    before.count("swap")
    before.count("forest")
    before.count("threshold")
    after = Generations(tmp_path)
    assert after.number == 0
    failures = dict.fromkeys(BadModel.REASONS, 0) | {"forest": 1}
    assert after.changes() == Changes(1, 1, failures)


def test_a_generation_is_a_private_file_and_earlier_ones_are_deleted(generations, tmp_path):
    for number in (1, 2, 3):
        publish(generations, Generation(0.1, b"file", b"card"))
        assert files(tmp_path) == [f"generation-{number}"]
        assert stat.S_IMODE((tmp_path / f"generation-{number}").stat().st_mode) == 0o600


def test_files_of_an_earlier_run_are_deleted_at_the_start(tmp_path):
    publish(Generations(tmp_path), Generation(0.1, b"file"))
    (tmp_path / "generation-2").write_bytes(b"half")
    Generations(tmp_path)
    assert files(tmp_path) == []


def test_an_unpublished_generation_changes_nothing(generations, tmp_path):
    publish(generations, Generation(0.1, b"old"))
    with generations.changing():
        assert generations.write(Generation(0.2, b"new")) == 2
        assert generations.read() == (1, Generation(0.1, b"old"))
    assert files(tmp_path) == ["generation-1"]


def test_a_full_disk_is_reported_and_the_old_generation_stays(generations, tmp_path):
    publish(generations, Generation(0.1, b"old"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    with (
        generations.changing(),
        pytest.raises(Unavailable, match=r"File too large.*so nothing was changed") as refusal,
    ):
        generations.write(Generation(0.2, b"new" * 1000))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) not in str(refusal.value)
    assert generations.read() == (1, Generation(0.1, b"old"))
    assert files(tmp_path) == ["generation-1"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "cut short"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "check sum"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "check sum"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(THRESHOLD, bytes(8))),
            "check sum",
        ),
        (lambda path: path.unlink() or os.mkfifo(path), "not a regular file"),
        (lambda path: path.unlink() or path.symlink_to("/dev/zero"), "not a regular file"),
    ],
)
def test_a_missing_or_damaged_file_is_reported(generations, tmp_path, damage, reason):
    publish(generations, Generation(0.1, b"file", b"card"))
    damage(tmp_path / "generation-1")
    with pytest.raises(Unavailable, match=f"missing or damaged.*{reason}"):
        generations.read()
    publish(generations, Generation(0.2))
    assert generations.read() == (2, Generation(0.2))


def test_a_worker_killed_while_publishing_leaves_a_complete_generation(generations, tmp_path):
    def work():
        for number in range(generations.number + 1, 10**6):
            publish(generations, Generation(number, bytes([number % 256]) * 100_000))

    for pause in range(20):
        before = generations.number
        pid = os.fork()
        if pid == 0:
            work()
        end = time.monotonic() + 30
        while generations.number == before and time.monotonic() < end:
            time.sleep(0.001)  # a busy machine may start the child late
        time.sleep(0.002 * pause)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        number, generation = generations.read()
        if number:
            assert generation == Generation(number, bytes([number % 256]) * 100_000)
    assert number > 0
    number = publish(generations, Generation(0.5))
    assert files(tmp_path) == [f"generation-{number}"]


def test_more_workers_than_slots_are_refused(generations, monkeypatch):
    monkeypatch.setattr("service.state.generations.MAX_PROCESSES", 1)
    generations.register()

    def work():
        with pytest.raises(BadSetting, match="more than 1 workers"):
            generations.register()

    assert in_child(work) == 0


def test_a_change_waits_for_another_one_for_a_limited_time(generations, monkeypatch):
    """The process that makes the other change is stopped."""
    monkeypatch.setattr("service.state.generations._PATIENCE", 0.05)
    reading, writing = os.pipe()

    def work():
        with generations.changing():
            os.write(writing, b"1")
            time.sleep(60)

    pid = os.fork()
    if pid == 0:
        work()
    os.read(reading, 1)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(Unavailable, match="another change has not ended yet"):
        publish(generations, Generation(0.1))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert publish(generations, Generation(0.1)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda numbers: b"\xff" * len(numbers),
        lambda numbers: bytes(len(numbers)),
        lambda numbers: numbers[:115] + b"\x07" + numbers[116:],
        lambda numbers: numbers[:-8],
        lambda numbers: numbers + b"x",
    ],
)
def test_damaged_counts_of_changes_are_quarantined(tmp_path, caplog, damage):
    before = Generations(tmp_path)
    before.count("swap")
    path, start = tmp_path / FILE_NAME, 4096
    content = path.read_bytes()
    path.write_bytes(content[:start] + damage(content[start:]))
    after = Generations(tmp_path)
    assert after.changes().swaps == 0
    assert "swaps.bin is quarantined" in caplog.text
    assert len(quarantined(path)) == 1
    after.count("swap")
    assert Generations(tmp_path).changes().swaps == 1
