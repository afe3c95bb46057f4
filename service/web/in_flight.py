"""The requests that a worker is answering, and the thread that watches them."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping

import structlog

from ..telemetry.trace import trace_field
from .request import Request

log = structlog.get_logger("isoserve")

CHANGE_SECONDS = 300
"""Timeout of a model change, in seconds: longer than loading two of the largest files takes."""

_CHANGES = "/v2/repository/"  # the routes that change the model wait for all workers
_GRACE = 3.0  # seconds that the other requests have after one was found to hang
_LOOK = 0.1  # seconds between two looks


class InFlightRequests:
    """The requests that a worker is answering."""

    def __init__(self) -> None:
        self._open: dict[Request, None] = {}
        self.seen: dict[tuple[str, int] | None, float] = {}
        """Client -> when its latest request began, by `time.perf_counter()`."""

    def begin(self, request: Request) -> None:
        """Note a request."""
        self._open[request] = None
        self.seen[request.client] = request.started

    def end(self, request: Request) -> None:
        """Note that a request is answered."""
        del self._open[request]

    def forget_others(
        self, clients: set[tuple[str, int]]
    ) -> Mapping[tuple[str, int] | None, float]:
        """Return `seen`, without other clients than these."""
        for client in set(self.seen) - clients:
            self.seen.pop(client, None)
        return self.seen

    def all(self) -> list[Request]:
        """Return the requests that are being answered."""
        return list(self._open)


class Watch:
    """Logs which request hangs, and ends its worker, so that gunicorn starts another.

    gunicorn itself notices only a worker whose event loop hangs, and cannot name the request.
    """

    def __init__(self, in_flight: InFlightRequests, timeout: float) -> None:
        self._in_flight, self._timeout = in_flight, timeout

    def start(self, stop_now: Callable[[], object], end: Callable[[int], None]) -> None:
        """Watch in a thread; `end` ends the process, with code 0 once `stop_now()` is true."""
        threading.Thread(target=self._run, args=(stop_now, end), daemon=True).start()

    def _run(self, stop_now: Callable[[], object], end: Callable[[int], None]) -> None:
        while not (hung := self._hung()):
            if stop_now():
                end(0)
            time.sleep(_LOOK)
        for request in hung:
            log_hanging(request)
        os.kill(os.getpid(), signal.SIGTERM)  # take no new connections; finish other requests
        limit = time.perf_counter() + _GRACE
        while set(self._in_flight.all()) - set(hung) and time.perf_counter() < limit:
            time.sleep(_LOOK)
        end(1)

    def _hung(self) -> list[Request]:
        now = time.perf_counter()
        return [
            request
            for request in self._in_flight.all()
            if request.thread and now - request.working > self._limit(request)
        ]

    def _limit(self, request: Request) -> float:
        change = request.path.startswith(_CHANGES)
        return max(self._timeout, CHANGE_SECONDS) if change else self._timeout


def log_hanging(request: Request) -> None:
    """Log which request hangs, and where."""
    frame = sys._current_frames().get(request.thread)
    log.critical(
        f"a request hangs; worker {os.getpid()} is replaced",
        request=f"{request.method} {request.path}",
        request_id=request.id,
        **trace_field(request.trace),
        seconds=round(time.perf_counter() - request.working, 1),
        stack="".join(traceback.format_stack(frame)) if frame else "",
    )
