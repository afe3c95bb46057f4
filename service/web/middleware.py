"""What holds for every request: its id, its checks, its time, its count, its headers.

Flask's routing takes longer than a whole prediction. So plain predictions (`POST /predict` with a
JSON body of known length and no query) skip it. The same functions read, answer and refuse them,
and a test sends the same bodies both ways.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable
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

# Keys of the WSGI environment: the request's id, and the route that Flask found.
ID, ROUTE = "isoserve.request_id", "isoserve.route"

# A request id goes into logs and headers, so it must not be able to forge either.
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Headers that a page in a browser may read.
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


class Middleware:
    """The outermost WSGI application."""

    def __init__(
        self,
        behind: Application,
        handlers: Handlers,
        admission: Admission,
        refuse: Callable[[Exception, Environ], Answer],
        access_log: bool = False,
    ) -> None:
        """Wrap the application `behind`; `refuse` turns what a handler raises into an answer."""
        self._behind, self._handlers, self._admission, self._refuse = (
            behind,
            handlers,
            admission,
            refuse,
        )
        self._access_log = access_log

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """Answer one request."""
        started, in_flight = perf_counter(), self._admission.in_flight
        if environ["PATH_INFO"].startswith("//"):  # Flask takes two slashes for one
            environ["PATH_INFO"] = f"/{environ['PATH_INFO'].lstrip('/')}"
        sent = environ.get("HTTP_X_REQUEST_ID")
        environ[ID] = sent if sent and _GOOD_ID.fullmatch(sent) else new_id()[:16]
        environ[ROUTE] = OTHER
        offset = in_flight.begin(environ[ID], environ["REQUEST_METHOD"], environ["PATH_INFO"])
        try:
            if refusal := self._refusal(environ):
                answer = self._refuse(refusal, environ)
            elif self._is_plain(environ):
                answer = self._answer(environ)
            else:
                return self._pass_on(environ, start_response, started)
        finally:
            in_flight.end(offset)
        headers = [*answer.headers, *UNLESS_SAID]
        if not answer.version:
            headers.append(self._model_version())
        self._complete(environ, headers, answer.status, perf_counter() - started)
        start_response(_STATUS[answer.status], headers)
        return [answer.body if environ["REQUEST_METHOD"] != "HEAD" else b""]

    def _pass_on(self, environ: Environ, start_response: Start, started: float) -> Iterable[bytes]:
        """Let Flask answer."""

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            code, known = int(status[:3]), dict(headers)
            headers += [header for header in UNLESS_SAID if header[0] not in known]
            if MODEL_VERSION not in known:
                headers.append(self._model_version())
            self._complete(environ, headers, code, perf_counter() - started)
            return start_response(_STATUS.get(code, status), headers, exc_info)

        return self._behind(environ, start)

    def _model_version(self) -> tuple[str, str]:
        return MODEL_VERSION, self._handlers.predictor.detector.model.version

    def _refusal(self, environ: Environ) -> Refusal | None:
        """Return why a request is refused before it is read, if it is."""
        if "HTTP_HOST" not in environ and environ["SERVER_PROTOCOL"] != "HTTP/1.0":
            return BadInput("a request of HTTP/1.1 and later has the header Host")
        admission = self._admission
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
            and int(length) <= self._handlers.limits.body_bytes
        )

    def _answer(self, environ: Environ) -> Answer:
        environ[ROUTE] = PLAIN_PATH
        length = int(environ["CONTENT_LENGTH"])
        try:
            read = partial(environ["wsgi.input"].read, length)
            return self._handlers.seldon(receive(read, length, self._handlers.limits.body_bytes))
        except Exception as error:
            return self._refuse(error, environ)

    def _complete(self, environ: Environ, headers: Headers, status: int, seconds: float) -> None:
        """Count a request and add the headers that every answer has."""
        self._handlers.predictor.counts.observe(environ[ROUTE], _CLASS[status // 100], seconds)
        if "HTTP_ORIGIN" in environ:
            headers.append(EXPOSED)
        headers += ((REQUEST_ID, environ[ID]), *ALWAYS)
        if self._access_log:
            log.info(
                "request",
                method=environ["REQUEST_METHOD"],
                route=environ[ROUTE],
                status=status,
                ms=round(seconds * 1000, 3),
                request_id=environ[ID],
            )


def _is_short(environ: Environ) -> bool:
    """Return whether a refusal would cost nearly as much as the answer."""
    length = environ.get("CONTENT_LENGTH") or "0"
    return (
        "HTTP_TRANSFER_ENCODING" not in environ
        and len(length) <= len(str(SHORT))
        and int(length) <= SHORT
    )
