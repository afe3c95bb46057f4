"""What every request passes: its id, the checks, its count, its log line and its headers.

`Entrance` does this for the event loop (`asgi`), and `Middleware` for Flask under any WSGI server.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from threading import get_ident
from time import monotonic, perf_counter
from typing import Any

import structlog

from ..errors import Refusal
from ..protocols.codec import ALWAYS, UNLESS_SAID
from ..protocols.open_inference import JSON_LENGTH
from ..serving.predictor import Predictor
from ..telemetry.trace import HEADER, new_trace, read_trace, trace_field
from .admission import Admission
from .handlers import MODEL_VERSION
from .request import REQUEST, Header, Request, from_environ, is_console

REQUEST_ID = "X-Request-ID"

# A request id goes into logs and headers, so it must not be able to forge either.
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

# The headers that a page in a browser may read.
_EXPOSED = (
    b"access-control-expose-headers",
    f"{REQUEST_ID}, {MODEL_VERSION}, {JSON_LENGTH}, Retry-After, {HEADER.decode()}".encode(),
)
_ALWAYS = [(name.lower().encode(), value.encode()) for name, value in ALWAYS]
_PRIVATE = [one for one in _ALWAYS if not one[0].startswith(b"access-control-")]
_UNLESS_SAID = [(name.lower().encode(), value.encode()) for name, value in UNLESS_SAID]
_ID, _VERSION = REQUEST_ID.lower().encode(), MODEL_VERSION.lower().encode()

# New ids are made this many at a time: each system call costs much and may switch threads.
_IDS_AT_ONCE = 256

_new_ids: deque[str] = deque()
os.register_at_fork(after_in_child=_new_ids.clear)  # no two processes share ids

_STATUS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_CLASS = [f"{digit}xx" for digit in range(10)]

Environ = dict[str, Any]
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


class Entrance:
    """Begins and ends every request."""

    def __init__(self, admission: Admission, predictor: Predictor, access_log: bool) -> None:
        self.admission, self._predictor, self._access_log = admission, predictor, access_log

    def begin(self, request: Request) -> Refusal | None:
        """Give a request its id; return why it is refused before its body is read, or None."""
        sent = request.headers.get(_ID)
        good = sent is not None and _GOOD_ID.fullmatch(sent)
        request.id = sent.decode() if sent and good else new_id()[:16]
        if HEADER in request.headers:
            request.trace = read_trace(request.headers[HEADER])
        if self._access_log:
            request.trace = request.trace or new_trace()
        return self.admission.refusal(request)

    def end(
        self, request: Request, status: int, headers: list[Header], own: bool = False
    ) -> list[Header]:
        """Count and log an answer; add the headers that every answer has to its `headers`.

        `own`: they are those of an `Answer`, which leaves caching and framing to this default.
        """
        request.thread, request.answered = 0, monotonic()
        seconds = perf_counter() - request.started
        self._predictor.counts.observe(request.route, _CLASS[status // 100], seconds)
        present = dict(headers)
        headers += _UNLESS_SAID if own else [one for one in _UNLESS_SAID if one[0] not in present]
        if _VERSION not in present:
            headers.append((_VERSION, self._predictor.detector.model.version.encode()))
        private = "console" in request.path and is_console(request.path)
        if b"origin" in request.headers and not private:
            headers.append(_EXPOSED)
        headers += ((_ID, request.id.encode()), *(_PRIVATE if private else _ALWAYS))
        if request.trace:
            headers.append((HEADER, request.trace.encode()))
        if self._access_log:
            log.info(
                "request",
                method=request.method,
                route=request.route,
                status=status,
                ms=round(seconds * 1000, 3),
                request_id=request.id,
                **trace_field(request.trace),
            )
        return headers


class Middleware:
    """Flask's outermost layer; it lets a request pass that the event loop has begun."""

    def __init__(
        self,
        flask: Application,
        entrance: Entrance,
        refuse: Callable[[Exception, Request], Application],
    ) -> None:
        self._flask, self._entrance, self._refuse = flask, entrance, refuse

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """Answer one request."""
        if environ["PATH_INFO"].startswith("//"):  # Flask routes as if it were one slash
            environ["PATH_INFO"] = f"/{environ['PATH_INFO'].lstrip('/')}"
        if REQUEST in environ:
            request = environ[REQUEST]
            request.working, request.thread = perf_counter(), get_ident()
            return self._flask(environ, start_response)
        request = environ[REQUEST] = from_environ(environ)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            code = int(status[:3])
            sent = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
            whole = self._entrance.end(request, code, sent)
            headers = [(name.decode(), value.decode("latin-1")) for name, value in whole]
            return start_response(_STATUS.get(code, status), headers, exc_info)

        refusal = self._entrance.begin(request)
        answer = self._refuse(refusal, request) if refusal else self._flask
        return answer(environ, start)
