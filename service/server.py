"""Run gunicorn: its settings, its master process and its workers."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit
from selectors import EVENT_READ
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http.message import Request
from gunicorn.workers.gthread import TConn, ThreadWorker

from .errors import BadSetting
from .protocols.codec import ALWAYS, UNLESS_SAID
from .settings import Settings
from .web.admission import Admission, RowLimit
from .web.connection import is_short_request, read_rest
from .web.in_flight import InFlightRequest, InFlightRequests

if TYPE_CHECKING:
    from flask import Flask

log = structlog.get_logger("isoserve")

# Idle timeouts in seconds: for new connections; for any connection at shutdown.
_FIRST_SECONDS, _LAST_SECONDS = 10, 0.5

_KEPT: Future[bool] = Future()
_KEPT.set_result(True)
_ENDED: Future[bool] = Future()
_ENDED.set_result(False)

# Signals by which the arbiter stops a worker.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)

CHANGE_SECONDS = 300
"""Timeout of a model change, in seconds: longer than loading two of the largest files takes."""


class Server(BaseApplication):  # type: ignore[misc]
    """Serve an application that this process has built: workers fork with the model loaded."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._app = app
        self._options = gunicorn_options(settings)
        self.drain_seconds = settings.drain_seconds
        extensions = getattr(app, "extensions", {})  # a benchmark may serve another application
        self.admission: Admission = extensions.get("isoserve admission") or Admission(
            RowLimit(1, 1)
        )
        super().__init__()

    def run(self) -> None:
        """Serve until a signal stops the service, then exit the process."""
        Master(self).run()

    def load_config(self) -> None:
        """Set gunicorn's options."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application; the workers fork right after."""
        _settle()
        return self._app


class Master(Arbiter):  # type: ignore[misc]
    """gunicorn's arbiter; it drains before it stops and logs the request in which a worker hung."""

    _end = math.inf

    def handle_term(self) -> None:
        """Drain: answer requests, but fail readiness checks. A second SIGTERM stops at once."""
        if self._end < math.inf:
            self.stop(False)
            raise StopIteration  # gunicorn's way to end its loop
        self._end = time.monotonic() + self.app.drain_seconds
        self.app.admission.stopping.set()

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Wait for signals, or for the end of the drain."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise StopIteration
        signals: list[int] = super().wait_for_signals(min(timeout, left))
        return signals

    def spawn_worker(self) -> Any:
        """Fork a worker; signals wait until its handlers are set."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            return super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)

    def murder_workers(self) -> None:
        """Replace workers without a heartbeat; log first what they were doing."""
        for pid, worker in self.WORKERS.items():
            with contextlib.suppress(OSError, ValueError):  # it is about to end by itself
                silent = time.monotonic() - worker.tmp.last_update()
                if silent > self.timeout and not worker.aborted:
                    for flight in worker.in_flight.active():
                        log_hanging(flight, f"worker {pid} has no heartbeat")
        super().murder_workers()


class Connection(TConn):  # type: ignore[misc]
    """A client's connection; closing it never blocks."""

    def close(self, graceful: bool = False) -> None:
        """Close it; gunicorn would wait for the client, in the thread that polls all of them."""
        super().close()


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker; it detects requests that hang, and sends errors as JSON.

    gunicorn itself detects only a worker that hangs as a whole.
    """

    alive: bool

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # Made before the fork, because the parent reads them, too.
        self.in_flight = InFlightRequests(self.cfg.threads + 1)
        self.asked = 0
        self.noted = 0.0
        """When this worker last gave a heartbeat."""

    def init_process(self) -> None:
        """Set up the new process."""
        self.app.admission.in_flight = self.in_flight
        super().init_process()

    def init_signals(self) -> None:
        """Handle signals, including those since the fork."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)

    def run(self) -> None:
        """Answer requests, then exit without waiting for threads that hang."""
        super().run()
        sys.stdout.flush()
        os._exit(0)

    def notify(self) -> None:
        """Give a heartbeat, every second, and look for requests that hang."""
        super().notify()
        self.noted = time.monotonic()
        for flight in self.in_flight.active() if self.alive else ():
            if flight.seconds > 1 and (frame := sys._current_frames().get(flight.thread)):
                if _waits_for_its_client(frame):
                    self.in_flight.restart(flight.offset)
                elif flight.seconds > self._limit(frame):
                    stack = "".join(traceback.format_stack(frame))
                    log_hanging(flight, f"worker {os.getpid()} is replaced", stack=stack)
                    self.alive = False  # other requests get the graceful timeout

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events and handle each; a thousand at once may take more than a second."""
        for key, _ in self.poller.select(timeout):
            key.data(key.fileobj)
            if time.monotonic() - self.noted > 1:
                self.notify()

    def accept(self, listener: Any) -> None:
        """Accept a connection; it costs no thread until its client sends something."""
        try:
            client, address = listener.accept()
        except OSError:  # another worker took it, the client gave up, or no descriptor is left
            return
        conn = Connection(self.cfg, client, address, listener.getsockname())
        conn.init()
        self.nr_conns += 1
        conn.timeout = time.monotonic() + _FIRST_SECONDS
        self.pending_conns.append(conn)
        self.poller.register(client, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def enqueue_req(self, conn: Connection) -> None:
        """Answer a short request here, in the polling thread; queue a longer one for the pool.

        Handing a short request to the pool costs as much as answering it. A request that gunicorn
        has already read, after a refused body, cannot be peeked at on the socket.
        """
        if not conn.parser.unreader.buf.getvalue() and is_short_request(conn.sock):
            self.finish_request(conn, _KEPT if super().handle(conn) else _ENDED)
            return
        self.asked += 1
        conn.since, conn.number = time.monotonic(), self.asked
        super().enqueue_req(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """Close silent connections sooner: gunicorn waits 2 s, and longer for new ones.

        A client that sent a request while the service drained knows that its connection ends.
        """
        deadline = min(deadline, time.monotonic() + _LAST_SECONDS)
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _limit(self, frame: FrameType) -> int:
        """Return the timeout, in seconds, of what a thread does now.

        It is longer for a thread that loads a model or waits for other workers to load it.
        """
        names = (outer.f_globals.get("__name__") for outer, _ in traceback.walk_stack(frame))
        timeout: int = self.cfg.timeout
        return max(timeout, CHANGE_SECONDS) if "service.serving.reload" in names else timeout

    def handle(self, conn: Any) -> Any:
        """Answer the next request of a connection, unless it waited too long in overload."""
        shedder, now = self.app.admission.shedder, time.monotonic()
        shedder.begin(now - conn.since, self.asked - conn.number, now)
        try:
            return super().handle(conn)
        finally:
            shedder.end()

    def is_parent_alive(self) -> bool:
        """Return whether the arbiter is alive; if not, finish the open requests and exit."""
        if not super().is_parent_alive():
            self.alive = False
        return self.alive

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer one request; while the service drains, close its connection after it."""
        if self.app.admission.stopping:
            req.force_close()
        return bool(super().handle_request(req, conn))

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Return whether a connection stays open: not if part of a refused body is missing."""
        body = conn.parser.mesg.body
        if body.failed:  # its end is unknown
            read_rest(conn.sock, conn.sock.recv)
            return False
        return read_rest(conn.sock, body.read, conn.parser.unreader) and keepalive

    def handle_abort(self, sig: int, frame: FrameType) -> None:
        """Log where the worker hangs before the arbiter kills it."""
        stack = "".join(traceback.format_stack(frame))
        log.critical("a worker without a heartbeat ends", worker=os.getpid(), stack=stack)
        super().handle_abort(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Exit at once; gunicorn's handler would deadlock if this thread held the pool's lock."""
        os._exit(0)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Refuse malformed HTTP before it reaches the application."""
        pages = _JsonPages(client, _path_of(req, exc), str(exc))
        super().handle_error(req, pages, addr, exc)
        if threading.current_thread() is not threading.main_thread():  # a short one has no rest
            read_rest(client, client.recv)


def _settle() -> None:
    """Tune the garbage collector and the GIL for large requests beside small ones.

    Freeze what is loaded: the collector need not scan it, which would also copy memory that workers
    share. Collect rarely: a table of 100,000 rows is as many lists, none of them garbage. Switch
    threads after one millisecond of waiting, not five.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)
    sys.setswitchinterval(0.001)


def log_hanging(flight: InFlightRequest, text: str, **more: str) -> None:
    """Log which request hangs."""
    log.critical(
        f"a request hangs; {text}",
        request=flight.request,
        request_id=flight.request_id,
        seconds=round(flight.seconds, 1),
        **more,
    )


def _waits_for_its_client(frame: FrameType) -> bool:
    """Return whether a thread waits for its client: its innermost code is then gunicorn's."""
    return str(frame.f_globals.get("__name__")).startswith("gunicorn.")


def _path_of(request: Any, error: BaseException) -> str:
    """Return the path of a request, as far as it could be read; perhaps empty.

    gunicorn drops a request that it cannot parse, but the traceback still holds it.
    """
    frames = traceback.walk_tb(error.__traceback__)
    readers = (frame.f_locals.get("self") for frame, _ in frames)
    found = request or next((one for one in readers if isinstance(one, Request)), None)
    return unquote(getattr(found, "path", None) or "", "latin-1")


class _JsonPages:
    """A socket that sends gunicorn's error pages as JSON, in the caller's protocol."""

    def __init__(self, client: Any, path: str, text: str) -> None:
        self._client, self._path, self._text = client, path, text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, page: bytes) -> None:
        from .web.handlers import encode_error  # noqa: PLC0415 - slow: check the settings first

        status, text = HTTPStatus(int(page.split()[1])), f"no valid HTTP request: {self._text}"
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            text = "internal error; the log has it"
        body = encode_error(self._path, text, status)
        fields = {
            "Connection": "close",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "X-Request-ID": secrets.token_hex(8),
        } | dict([*ALWAYS, *UNLESS_SAID])
        head = f"HTTP/1.1 {status.value} {status.phrase}"
        lines = [head, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        self._client.sendall("\r\n".join(lines).encode() + body)


def check_address(settings: Settings) -> None:
    """Check that this service can listen on its address.

    Raises:
        BadSetting: it cannot, and why.
    """
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadSetting(
                f"ISOSERVE_HOST={host} ISOSERVE_PORT={port}: cannot listen there "
                f"({error.strerror}); choose another, or stop the process that listens there"
            ) from error


def warn_of_missing_key(settings: Settings) -> None:
    """Warn when the service listens beyond this machine without an API key."""
    if settings.host not in ("127.0.0.1", "::1", "localhost") and not settings.read_api_key():
        log.warning(
            "anyone who reaches this address can use the service; docs/operate/edge.md says how to "
            "set a key and what to put in front of it",
            host=settings.host,
        )


class PlainLogger(Logger):  # type: ignore[misc]
    """Pass gunicorn's log lines to the root logger."""

    def setup(self, cfg: Any) -> None:
        """Leave levels and handlers to `configure_logs`."""
        self.error_log.propagate = True


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    """Return gunicorn's settings: threads that keep connections, and workers that share a model."""
    memory = Path("/dev/shm")  # noqa: S108 - a heartbeat file on a disk could block a worker
    return {
        "bind": f"{settings.host}:{settings.port}",
        "workers": settings.workers,
        "worker_class": Worker,
        "threads": settings.threads,
        # Leave file descriptors for what a worker opens beside its connections.
        "worker_connections": max(100, min(1000, getrlimit(RLIMIT_NOFILE)[0] - 100)),
        "preload_app": True,
        "timeout": settings.timeout,
        # With a drain of 5 s a stop takes well under 10 s, even if clients keep connections open.
        "graceful_timeout": 3,
        "keepalive": settings.keepalive,
        "worker_tmp_dir": str(memory) if memory.is_dir() else None,
        "control_socket_disable": True,
        # Trust no proxy about the scheme or the path prefix.
        "forwarded_allow_ips": "",
        "logger_class": PlainLogger,
        "proc_name": "isoserve",
        "post_worker_init": _begin_work,
    }


def _begin_work(worker: Any) -> None:
    """Start the background work of a worker that was just forked."""
    extensions = getattr(worker.wsgi, "extensions", {})  # a benchmark may serve another application
    try:
        for begin in extensions.get("isoserve in each worker", ()):
            begin()
        if worker.age == 1 and (tell := extensions.get("isoserve is ready")):  # the first worker
            tell()
    except Exception:
        logging.getLogger(__name__).exception("a worker could not start")
        sys.exit(1)  # an exception would stop gunicorn; this starts another worker
