"""Clients that send requests continuously, for storms and stress tests."""

import contextlib
import http.client
import threading
import time
from dataclasses import dataclass

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Reply:
    """The answer to a request, and when it was sent and answered, by `time.perf_counter`."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    sent: float
    ended: float

    @property
    def seconds(self):
        return self.ended - self.sent


class Unanswered(Exception):
    """No complete answer arrived; `sent`: the request was sent, `began`: an answer began."""

    def __init__(self, sent, began):
        super().__init__(f"no answer ({sent=}, {began=})")
        self.sent, self.began = sent, began


class Caller(threading.Thread):
    """Sends one request after another, on a persistent connection, until it is stopped."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def run(self):
        with contextlib.closing(self.connection):
            self.work()

    def work(self):
        """Call until stopped."""
        while not self.stop.is_set():
            self.call()

    def post(self, path, body):
        """Return the reply; raise Unanswered if none arrived."""
        try:
            if self.connection.sock is None:
                self.connection.connect()
        except OSError:
            time.sleep(0.01)
            raise Unanswered(sent=False, began=False) from None
        sent, answer = time.perf_counter(), None
        try:
            self.connection.request("POST", path, body, JSON)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise Unanswered(sent=True, began=answer is not None) from None
        return Reply(answer.status, answer.headers, text, sent, time.perf_counter())


class Crowd:
    """Callers that run until a `with` block ends, or until they are done."""

    def __init__(self, callers):
        self.callers = list(callers)

    def __enter__(self):
        for caller in self.callers:
            caller.start()
        return self

    def __exit__(self, *_):
        for caller in self.callers:
            caller.stop.set()
        self.join()

    def join(self):
        """Wait until all are done."""
        for caller in self.callers:
            caller.join()

    def all(self, name):
        """Return the lists that all callers have under this name, as one list."""
        return [one for caller in self.callers for one in getattr(caller, name)]
