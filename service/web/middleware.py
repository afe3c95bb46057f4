"""The outermost layer of each request: its id, checks, time, count and headers.

Flask's routing takes longer than a prediction, so plain predictions (`POST /predict` with a JSON
body of known length and no query) skip it. The same functions read, answer and refuse them, and a
test compares both ways.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Any

import structlog

from ..errors import BadInput, Refusal, Unavailable
from ..protocols.codec import ALWAYS, JSON, UNLESS_SAID
from ..protocols.open_inference import JSON_LENGTH
from ..state.counts import OTHER
from .admission import SHORT, Admission
from .handlers import MODEL_VERSION, Answer, Handlers, receive

REQUEST_ID = "X-Request-ID"
PLAIN_PATH = "/predict"

# Keys of the WSGI environment: the request's id, and its route.
ID, ROUTE = "isoserve.request_id", "isoserve.route"

# A request id goes into logs and headers, so it must not be able to forge either.
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# The headers that a page in a browser may read.
EXPOSED = (
    "Access-Control-Expose-Headers",
    f"{REQUEST_ID}, {MODEL_VERSION}, {JSON_LENGTH}, Retry-After",
)

# New ids are made this many at a time: each system call costs much and may switch threads.
_IDS_AT_ONCE = 256

_new_ids: deque[str] = deque()
os.register_at_fork(after_in_child=_new_ids.clear)  # no two processes share ids

_OVERLOADED = "more requests wait than can be answered in time; send this again in a second"

_STATUS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_CLASS = [f"{digit}xx" for digit in range(10)]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
Start = Callable[..., Any]
Application = Callable[[Environ, Start], Iterable[bytes]]

log = structlog.get_logger("isoserve")


def new_id() -> str:
    """Return 32 random hexadecimal digits, for a request or a prediction."""
    while True:
        try:
            return _new_ids.popleft()
        except IndexError:
            digits = os.urandom(16 * _IDS_AT_ONCE).hex()
            _new_ids.extend(digits[i : i + 32] for i in range(0, len(digits), 32))


@dataclass
class Middleware:
    """The outermost WSGI application."""

    inner: Application
    """Flask."""
    handlers: Handlers
    admission: Admission
    refuse: Callable[[Exception, Environ], Answer]
    """Turns what a handler raises into an answer."""
    access_log: bool = False

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """Answer one request."""
        started, in_flight = perf_counter(), self.admission.in_flight
        if environ["PATH_INFO"].startswith("//"):  # Flask routes as if it were one slash
            environ["PATH_INFO"] = f"/{environ['PATH_INFO'].lstrip('/')}"
        request_id = environ.get("HTTP_X_REQUEST_ID")
        is_good = request_id and _GOOD_ID.fullmatch(request_id)
        environ[ID] = request_id if is_good else new_id()[:16]
        environ[ROUTE] = OTHER
        offset = in_flight.begin(environ[ID], environ["REQUEST_METHOD"], environ["PATH_INFO"])
        try:
            if refusal := self._refusal(environ):
                answer = self.refuse(refusal, environ)
            elif self._is_plain(environ):
                answer = self._answer(environ)
            else:
                return self._pass_on(environ, start_response, started)
        finally:
            in_flight.end(offset)
        headers = answer.headers
        self._complete(environ, headers, answer.status, perf_counter() - started)
        start_response(_STATUS[answer.status], headers)
        return [answer.body if environ["REQUEST_METHOD"] != "HEAD" else b""]

    def _pass_on(self, environ: Environ, start_response: Start, started: float) -> Iterable[bytes]:
        """Let Flask answer, and complete its answer."""

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            code = int(status[:3])
            self._complete(environ, headers, code, perf_counter() - started)
            return start_response(_STATUS.get(code, status), headers, exc_info)

        return self.inner(environ, start)

    def _refusal(self, environ: Environ) -> Refusal | None:
        """Return why a request is refused before its body is read, or None."""
        if "HTTP_HOST" not in environ and environ["SERVER_PROTOCOL"] != "HTTP/1.0":
            return BadInput("a request of HTTP/1.1 and later has the header Host")
        admission = self.admission
        if (admission.key or admission.stopping) and (refusal := admission.refusal(environ)):
            return refusal
        if admission.shedder.is_active and not _is_short(environ) and admission.shedder.refuses():
            return Unavailable(_OVERLOADED)
        return None

    def _is_plain(self, environ: Environ) -> bool:
        return (
            environ["PATH_INFO"] == PLAIN_PATH
            and environ["REQUEST_METHOD"] == "POST"
            and environ.get("CONTENT_TYPE") == JSON
            and not environ.get("QUERY_STRING")
            and "HTTP_CONTENT_ENCODING" not in environ
            and "HTTP_TRANSFER_ENCODING" not in environ
            and len(length := environ.get("CONTENT_LENGTH") or "") < 20
            and length.isdecimal()
            and int(length) <= self.handlers.limits.body_bytes
        )

    def _answer(self, environ: Environ) -> Answer:
        environ[ROUTE] = PLAIN_PATH
        length = int(environ["CONTENT_LENGTH"])
        try:
            read = partial(environ["wsgi.input"].read, length)
            return self.handlers.seldon(receive(read, length, self.handlers.limits.body_bytes))
        except Exception as error:
            return self.refuse(error, environ)

    def _complete(self, environ: Environ, headers: Headers, status: int, seconds: float) -> None:
        """Count and log a request, and add the headers that every answer has."""
        predictor, present = self.handlers.predictor, dict(headers)
        predictor.counts.observe(environ[ROUTE], _CLASS[status // 100], seconds)
        headers += [header for header in UNLESS_SAID if header[0] not in present]
        if MODEL_VERSION not in present:
            headers.append((MODEL_VERSION, predictor.detector.model.version))
        if "HTTP_ORIGIN" in environ:
            headers.append(EXPOSED)
        headers += ((REQUEST_ID, environ[ID]), *ALWAYS)
        if self.access_log:
            log.info(
                "request",
                method=environ["REQUEST_METHOD"],
                route=environ[ROUTE],
                status=status,
                ms=round(seconds * 1000, 3),
                request_id=environ[ID],
            )


def _is_short(environ: Environ) -> bool:
    """Return whether a body is so short that answering costs little more than refusing."""
    length = environ.get("CONTENT_LENGTH") or "0"
    return (
        "HTTP_TRANSFER_ENCODING" not in environ
        and len(length) <= len(str(SHORT))
        and int(length) <= SHORT
    )
