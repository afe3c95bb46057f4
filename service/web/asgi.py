"""The ASGI application: it answers predictions and health checks, and passes on the rest to Flask.

What is short is answered in the event loop, because a thread costs as much as a prediction. Large
bodies go to a pool of threads, and all other routes to Flask in a pool of its own. Every body is
read in the event loop, so a slow client occupies no thread. docs/internals/request.md shows the way
of a request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from io import BytesIO
from threading import get_ident
from time import perf_counter
from typing import Any
from urllib.parse import quote_from_bytes

from a2wsgi import WSGIMiddleware

from ..errors import TooSlow, Unavailable
from ..settings import Settings
from .admission import LARGE, OVERLOADED, Line
from .handlers import SHORT_BYTES, Answer, Handler, Handlers, body_too_large
from .health import HEALTH
from .in_flight import InFlightRequests
from .middleware import Application, Entrance, Environ, Start
from .request import REQUEST, Request, from_scope

_REST_SECONDS = 5  # for reading the rest of a refused body
_MOST_HELD = 8  # all long bodies that a worker holds, in units of the largest one

_CLOSE = (b"connection", b"close")
_ANY_ASCII = bytes(range(128)).decode()

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def direct_routes(handlers: Handlers) -> dict[tuple[str, str], tuple[str, Handler]]:
    """Return the routes that are answered without Flask: method and path -> route and handler."""
    direct: dict[tuple[str, str], tuple[str, Handler]] = {}
    for route, answer in handlers.predictions().items():
        direct["POST", route.replace("<model>", handlers.model_name)] = route, answer
    for path in HEALTH:
        direct["GET", path] = direct["HEAD", path] = path, handlers.health
    return direct


class AsgiApp:
    """The service as one ASGI application."""

    def __init__(
        self,
        flask: Application,
        handlers: Handlers,
        entrance: Entrance,
        refuse: Callable[[Exception, Request], Answer],
        settings: Settings,
    ) -> None:
        self.in_flight = InFlightRequests()
        self.admission = entrance.admission
        self.when_started: Callable[[], None] = lambda: None
        """Called in the event loop before the first request."""
        self._entrance, self._refuse, self._timeout = entrance, refuse, settings.timeout
        self._handlers, self._direct = handlers, direct_routes(handlers)
        self._most = handlers.limits.body_bytes
        self._held = 0
        self._flask, self._threads, self._thread = flask, settings.threads, 0
        self._in_threads = self._in_flask = 0
        self._medium = Line(self._has_thread)
        self._large = Line(self._has_thread) if settings.threads > 1 else self._medium

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or start and stop with the server; websockets are not accepted."""
        if scope["type"] == "http":
            request = from_scope(scope)
            self.in_flight.begin(request)
            try:
                await self._answer(request, scope, receive, send)
            finally:
                self.in_flight.end(request)
        elif scope["type"] == "lifespan":
            await receive()
            self._start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    def _start(self) -> None:
        self._thread = get_ident()
        self._pool = ThreadPoolExecutor(self._threads)
        self._bridge = WSGIMiddleware(self._enter_flask, workers=self._threads)  # type: ignore[arg-type]
        self.when_started()

    async def _answer(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if refusal := self._entrance.begin(request):
                raise refusal
            body = await self._receive(request, receive)
        except ConnectionAbortedError:
            return
        except Exception as error:
            await self._send(request, self._refuse(error, request), send, receive)
            return
        try:
            direct = self._direct.get((request.method, request.path))
            if direct is None:
                await self._ask_flask(request, scope, body, send)
                return
            request.route, handler = direct
            if self._handlers.are_short(request, body):
                request.thread = self._thread
                answer = handler(request, body)
            else:
                answer = await self._in_thread(request, handler, body)
        except Exception as error:
            answer = self._refuse(error, request)
        finally:
            self._held -= request.held
        await self._send(request, answer, send)

    async def _receive(self, request: Request, receive: Receive) -> bytes:
        """Return the body; ConnectionAbortedError if the client has gone."""
        length = request.headers.get(b"content-length")
        if length is not None and (len(length) > 19 or int(length) > self._most):
            raise body_too_large(self._most)
        message = await receive()
        if length is not None and "more_body" in message and not message["more_body"]:
            request.working = request.started
            whole: bytes = message["body"]
            return whole
        waited = perf_counter() - request.started
        if message["type"] == "http.disconnect" and waited > self._timeout:
            raise self._too_slow()  # gunicorn gave up
        body = await self._receive_parts(request, message, receive)
        request.working = perf_counter()
        return body

    def _too_slow(self) -> TooSlow:
        return TooSlow(f"the body did not arrive within {self._timeout:g} seconds; send it faster")

    async def _receive_parts(
        self, request: Request, message: dict[str, Any], receive: Receive
    ) -> bytes:
        """Return a body that comes in parts, of which `message` is the first."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._timeout):
                while message["type"] != "http.disconnect":
                    parts.append(message["body"])
                    size += len(parts[-1])
                    self._held += len(parts[-1])
                    if size > self._most:
                        raise body_too_large(self._most)
                    if self._held > _MOST_HELD * self._most:
                        raise Unavailable(OVERLOADED)
                    if not message["more_body"]:
                        request.held = size
                        return b"".join(parts)
                    message = await receive()
                raise ConnectionAbortedError
        except TimeoutError as error:
            raise self._too_slow() from error
        finally:
            self._held -= size - request.held

    async def _in_thread(self, request: Request, handler: Handler, body: bytes) -> Answer:
        """Answer in a thread of the pool; Unavailable if others wait too long already."""

        def work() -> Answer:
            request.working, request.thread = perf_counter(), get_ident()  # in this order: `Watch`
            return handler(request, body)

        async with self._turn(request, body):
            self._in_threads += 1
            try:
                future = asyncio.get_running_loop().run_in_executor(self._pool, work)
                answer: Answer = await _outlast(future)
                return answer
            finally:
                self._in_threads -= 1

    def _has_thread(self) -> bool:
        return self._in_threads < self._threads

    def _turn(self, request: Request, body: bytes) -> AbstractAsyncContextManager[None]:
        """Return the turn of a request that takes long: one after another is faster for all."""
        rows = self._handlers.count_rows(request, body)
        return (self._large if rows >= LARGE else self._medium).turn(rows)

    async def _send(
        self, request: Request, answer: Answer, send: Send, receive: Receive | None = None
    ) -> None:
        """Send an answer; read and drop what `receive` still gives of a refused body.

        Most clients read the answer only after they have sent everything; closing the connection
        earlier would lose the answer.
        """
        headers = self._entrance.end(request, answer.status, answer.headers, own=True)
        if self.admission.stopping:
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = answer.body if request.method != "HEAD" else b""
        if receive is not None:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            body = b""
            with suppress(TimeoutError):
                async with asyncio.timeout(_REST_SECONDS):
                    while (await receive()).get("more_body"):
                        pass
        await send({"type": "http.response.body", "body": body})

    async def _ask_flask(self, request: Request, scope: Scope, body: bytes, send: Send) -> None:
        """Pass a request on to Flask, and complete its answer."""
        if self._in_flask >= 16 * self._threads:
            raise Unavailable(OVERLOADED)
        turn = self._turn(request, body) if len(body) > SHORT_BYTES else nullcontext()

        async def complete(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = self._entrance.end(request, message["status"], message["headers"])
                if self.admission.stopping:
                    headers.append(_CLOSE)
                message["headers"] = headers
            await send(message)

        query = quote_from_bytes(scope["query_string"], safe=_ANY_ASCII).encode()
        passed = scope | {REQUEST: request, "isoserve.body": body, "query_string": query}
        self._in_flask += 1
        try:
            async with turn:
                answered = self._bridge(passed, _nothing, complete)  # type: ignore[arg-type]
                await _outlast(asyncio.ensure_future(answered))
        finally:
            self._in_flask -= 1

    def _enter_flask(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """Give Flask the request and its whole body."""
        scope = environ["asgi.scope"]
        body = scope["isoserve.body"]
        environ[REQUEST], environ["SCRIPT_NAME"] = scope[REQUEST], ""
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = BytesIO(body), str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return self._flask(environ, start_response)


async def _outlast(future: asyncio.Future[Any]) -> Any:
    """Wait for a thread, also when the client has gone and gunicorn cancels this: it works on."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        return future.result()


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}
