import threading
import time

import pytest

from service.crew import PATIENCE, Crew


@pytest.fixture
def crew():
    crew = Crew(threads=3)
    yield crew
    crew.shutdown()


def look_after(crew, seconds):
    """Do what a worker does while its threads are busy."""
    end = time.monotonic() + seconds
    while crew.is_behind and time.monotonic() < end:
        time.sleep(PATIENCE)
        crew.look_after()


def test_short_calls_are_made_by_one_thread_in_their_order(crew):
    order = []
    calls = [crew.submit(lambda n=n: order.append(n) or threading.get_ident()) for n in range(200)]
    threads = {call.result() for call in calls}
    assert len(threads) == 1
    assert order == list(range(200))
    assert not crew.is_behind


def test_others_lend_a_hand_while_the_first_is_held_up(crew):
    go_on = threading.Event()
    held = crew.submit(go_on.wait, 30)
    calls = [crew.submit(threading.get_ident) for _ in range(5)]
    time.sleep(2 * PATIENCE)
    assert crew.is_behind
    look_after(crew, 30)
    threads = {call.result(30) for call in calls}
    assert not held.done()
    go_on.set()
    assert held.result(30)
    assert crew.submit(threading.get_ident).result(30) not in threads


def test_no_more_calls_are_made_at_a_time_than_there_are_threads(crew):
    go_on, now, most, lock = threading.Event(), 0, 0, threading.Lock()

    def call():
        nonlocal now, most
        with lock:
            now += 1
            most = max(now, most)
        go_on.wait(30)
        with lock:
            now -= 1

    calls = [crew.submit(call) for _ in range(10)]
    look_after(crew, 0.2)
    assert most == 3
    go_on.set()
    for one in calls:
        one.result(30)


def test_one_thread_does_all_where_there_are_no_others():
    crew, go_on = Crew(threads=1), threading.Event()
    calls = [crew.submit(go_on.wait, 30), crew.submit(threading.get_ident)]
    look_after(crew, 0.05)
    assert not calls[1].done()
    go_on.set()
    assert calls[1].result(30) != threading.get_ident()
    crew.shutdown()


def test_what_a_call_raises_is_told(crew):
    def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        crew.submit(fail).result(30)
    assert crew.submit(int).result(30) == 0
