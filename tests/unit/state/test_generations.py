"""Memory that workers share: which generation is current, and who serves it."""

import os
import threading

import pytest

from service.errors import BadModel
from service.state.generations import Changes, Generation, Generations


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


def test_the_first_edition_is_what_the_service_began_with(generations):
    assert (generations.number, generations.read()) == (0, (0, None))


@pytest.mark.parametrize(
    "generation",
    [
        Generation(0.5),
        Generation(-0.0, b"", None),
        Generation(0.1, b"file", b""),
        Generation(0, b"a", b"b"),
    ],
)
def test_an_edition_comes_out_as_it_went_in(generations, generation):
    assert generations.publish(generation) == 1
    assert generations.read() == (1, generation)


def test_another_process_reads_the_latest(generations):
    generations.publish(Generation(0.1, b"first" * 1000, b"card"))
    in_child(lambda: generations.publish(Generation(0.2, b"second", None)))
    assert generations.read() == (2, Generation(0.2, b"second", None))


def test_readers_only_ever_see_whole_editions(generations):
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
        generations.publish(Generation(0.0, bytes([number % 256]) * 10_000))
    stop.set()
    for reader in readers:
        reader.join()
    assert torn == []


def test_a_living_worker_with_an_older_edition_is_waited_for(generations):
    ours, theirs = os.pipe(), os.pipe()

    def work():
        generations.enlist()
        os.write(theirs[1], b"1")
        os.read(ours[0], 1)
        generations.note(generations.number)
        os.write(theirs[1], b"2")
        os.read(ours[0], 1)

    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    os.read(theirs[0], 1)
    number = generations.publish(Generation(0.1))
    assert generations.behind(number) == 1
    os.write(ours[1], b"1")
    os.read(theirs[0], 1)
    assert generations.behind(number) == 0
    assert generations.behind(generations.publish(Generation(0.2))) == 1
    os.write(ours[1], b"2")
    os.waitpid(pid, 0)
    assert generations.behind(generations.number) == 0  # nobody waits for the dead


def test_one_worker_watches_until_it_dies(generations):
    assert not generations.is_watching()  # the parent never does
    assert in_child(lambda: generations.enlist() or not generations.is_watching()) == 0
    generations.enlist()
    assert generations.is_watching()
    assert in_child(lambda: generations.enlist() or generations.is_watching()) == 0


def test_counts_outlive_the_service_and_editions_do_not(tmp_path):
    before = Generations(tmp_path)
    before.publish(Generation(0.1))
    before.count_swap()
    before.count_failure("forest")
    before.count_threshold()
    after = Generations(tmp_path)
    assert after.number == 0
    failures = dict.fromkeys(BadModel.REASONS, 0) | {"forest": 1}
    assert after.changes() == Changes(1, 1, failures)
