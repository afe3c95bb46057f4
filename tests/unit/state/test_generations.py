"""Memory that workers share: which edition is current, and who serves it."""

import os
import threading

import pytest

from service.errors import BadModel
from service.state.generations import Changes, Edition, Editions


@pytest.fixture
def editions(tmp_path):
    return Editions(tmp_path)


def in_child(act):
    """Run `act` in a forked process that ends afterwards; return its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(act() or 0)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_first_edition_is_what_the_service_began_with(editions):
    assert (editions.number, editions.read()) == (0, (0, None))


@pytest.mark.parametrize(
    "edition",
    [Edition(0.5), Edition(-0.0, b"", None), Edition(0.1, b"file", b""), Edition(0, b"a", b"b")],
)
def test_an_edition_comes_out_as_it_went_in(editions, edition):
    assert editions.publish(edition) == 1
    assert editions.read() == (1, edition)


def test_another_process_reads_the_latest(editions):
    editions.publish(Edition(0.1, b"first" * 1000, b"card"))
    in_child(lambda: editions.publish(Edition(0.2, b"second", None)))
    assert editions.read() == (2, Edition(0.2, b"second", None))


def test_readers_only_ever_see_whole_editions(editions):
    stop, torn = threading.Event(), []

    def read():
        while not stop.is_set():
            number, edition = editions.read()
            if edition and set(edition.content) != {number % 256}:
                torn.append(number)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 300):
        editions.publish(Edition(0.0, bytes([number % 256]) * 10_000))
    stop.set()
    for reader in readers:
        reader.join()
    assert torn == []


def test_a_living_worker_with_an_older_edition_is_waited_for(editions):
    ours, theirs = os.pipe(), os.pipe()

    def work():
        editions.enlist()
        os.write(theirs[1], b"1")
        os.read(ours[0], 1)
        editions.note(editions.number)
        os.write(theirs[1], b"2")
        os.read(ours[0], 1)

    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    os.read(theirs[0], 1)
    number = editions.publish(Edition(0.1))
    assert editions.laggards(number) == 1
    os.write(ours[1], b"1")
    os.read(theirs[0], 1)
    assert editions.laggards(number) == 0
    assert editions.laggards(editions.publish(Edition(0.2))) == 1
    os.write(ours[1], b"2")
    os.waitpid(pid, 0)
    assert editions.laggards(editions.number) == 0  # nobody waits for the dead


def test_one_worker_watches_until_it_dies(editions):
    assert not editions.is_watching()  # the parent never does
    assert in_child(lambda: editions.enlist() or not editions.is_watching()) == 0
    editions.enlist()
    assert editions.is_watching()
    assert in_child(lambda: editions.enlist() or editions.is_watching()) == 0


def test_counts_outlive_the_service_and_editions_do_not(tmp_path):
    before = Editions(tmp_path)
    before.publish(Edition(0.1))
    before.count_swap()
    before.count_failure("forest")
    before.count_threshold()
    after = Editions(tmp_path)
    assert after.number == 0
    failures = dict.fromkeys(BadModel.REASONS, 0) | {"forest": 1}
    assert after.changes() == Changes(1, 1, failures)
