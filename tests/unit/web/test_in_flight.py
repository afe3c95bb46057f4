import os
import threading
import time

import pytest

from service.web.in_flight import CHANGE_SECONDS, InFlightRequests, Watch
from service.web.request import Request


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def watched(monkeypatch, capfd):
    """Watch requests in this thread; return the exit code and the log lines."""
    signals = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append((pid, number)))

    def watch(in_flight, timeout=0.05, stop_now=lambda: False):
        codes = []

        def end(code):
            codes.append(code)
            raise Ended

        with pytest.raises(Ended):
            Watch(in_flight, timeout)._run(stop_now, end)
        return codes[0], signals, capfd.readouterr().out

    return watch


def working(path="/predict", seconds=10.0):
    request = Request("POST", path, {}, id="mine", client=("127.0.0.1", 1))
    request.thread, request.working = threading.get_ident(), time.perf_counter() - seconds
    return request


def test_a_request_that_hangs_is_named_with_its_stack_and_ends_the_worker(watched):
    in_flight = InFlightRequests()
    in_flight.begin(working())
    code, signals, said = watched(in_flight)
    assert code == 1
    assert signals == [(os.getpid(), 15)]
    assert "a request hangs" in said
    assert "POST /predict" in said
    assert "test_a_request_that_hangs" in said


def test_requests_that_wait_are_answered_or_change_the_model_do_not_hang(watched):
    in_flight, left = InFlightRequests(), [3]
    waiting = Request("POST", "/predict", {})
    waiting.working = 1.0  # no thread has it yet
    in_flight.begin(waiting)
    answered = working()
    in_flight.begin(answered)
    in_flight.end(answered)
    in_flight.begin(working("/v2/repository/models/isoserve/load", CHANGE_SECONDS - 60))

    def stop_now():
        left[0] -= 1
        return not left[0]

    code, signals, said = watched(in_flight, stop_now=stop_now)
    assert (code, signals, said) == (0, [], "")


def test_other_requests_are_finished_first(watched):
    in_flight, other = InFlightRequests(), working(seconds=0)
    in_flight.begin(working())
    in_flight.begin(other)
    threading.Timer(0.3, in_flight.end, (other,)).start()
    began = time.perf_counter()
    watched(in_flight, timeout=5)
    assert time.perf_counter() - began > 0.2
    assert len(in_flight.all()) == 1


def test_clients_without_a_connection_are_forgotten():
    in_flight = InFlightRequests()
    for port in (1, 2):
        request = Request("GET", "/", {}, client=("127.0.0.1", port), started=5.0)
        in_flight.begin(request)
        in_flight.end(request)
    assert in_flight.forget_others({("127.0.0.1", 2)}) == {("127.0.0.1", 2): 5.0}
    assert in_flight.seen == {("127.0.0.1", 2): 5.0}
