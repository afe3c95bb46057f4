"""Run gunicorn: its settings, its hooks, and how the service stops.

Only documented settings and hooks of gunicorn are used; tests/unit/test_server.py lists them.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit
from types import FrameType
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.app.base import BaseApplication

from .errors import BadSetting, explain
from .settings import Settings
from .telemetry.logs import flush_logs
from .web.admission import SharedFlag
from .web.connections import Connections
from .web.in_flight import Watch

if TYPE_CHECKING:
    from flask import Flask

    from .web.asgi import AsgiApp

log = structlog.get_logger("isoserve")

OPEN = (
    "anyone who reaches this address can use the service; docs/operate/edge.md says how to "
    "set a key and what to put in front of it"
)

MOST_CONNECTIONS = 1000
"""The most connections that a worker keeps, if its limit of open files allows it."""

_BACKLOG = 2048  # connections that the kernel keeps until a worker accepts them
_RESTART_SECONDS = 1.0  # before a worker that could not start is replaced
_INHERITED = ("GUNICORN_PID", "GUNICORN_FD", "LISTEN_PID", "LISTEN_FDS")
"""Variables by which gunicorn would take over the sockets of another gunicorn, or of systemd."""

_ORDERS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


class Server(BaseApplication):  # type: ignore[misc]
    """Serve an application that this process has built: workers fork with the model loaded."""

    def __init__(self, flask: Flask, settings: Settings, listener: socket.socket) -> None:
        self._app: AsgiApp = flask.extensions["isoserve"]
        self._begins = flask.extensions["isoserve in each worker"]
        self._tell_ready = flask.extensions["isoserve is ready"]
        self._settings, self._listener, self._works = settings, listener, False
        for name in _INHERITED:
            os.environ.pop(name, None)
        self._stop = Stop(self._app.admission.stopping, settings.drain_seconds, listener)
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options."""
        options = gunicorn_options(self._settings, self._listener) | {
            "on_starting": _use_root_logger,
            "on_reload": _use_root_logger,
            "when_ready": self._stop.install,
            "post_worker_init": self._begin_work,
            "worker_int": lambda worker: end_process(0),
            "worker_exit": lambda server, worker: self._end_work(),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> AsgiApp:
        """Return the application; the workers fork right after."""
        _settle()
        return self._app

    def _begin_work(self, worker: Any) -> None:
        """Start the background work of a worker that was just forked."""
        try:
            for begin in self._begins:
                begin()
        except Exception as error:
            log.error(f"a worker could not start: {explain(error)}")
            self._end_work()  # an exception would stop gunicorn; this starts another worker
        self._is_first = worker.age == 1
        self._app.when_started = self._open

    def _end_work(self) -> None:
        """End a worker; one that could not start ends after a second, so that no loop is busy."""
        if not self._works:
            time.sleep(_RESTART_SECONDS)
        end_process(0 if self._works else 1)

    def _open(self) -> None:
        """Begin to watch the event loop, in which this runs."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ORDERS)  # the loop has handlers now
        asyncio.get_running_loop().call_later(0.2, self._listen)
        in_flight, stop = self._app.in_flight, self._stop
        Watch(in_flight, self._settings.timeout).start(lambda: stop.now, end_process)
        port = self._listener.getsockname()[1]
        connections = Connections(in_flight, port, most_connections(), self._settings.timeout)
        connections.start(lambda: stop.closing)
        self._works = True

    def _listen(self) -> None:
        """Undo the shorter backlog that gunicorn's asgi worker sets; the first worker is ready."""
        self._listener.listen(_BACKLOG)
        self._listener.close()  # so that the port is closed once gunicorn closes its own copy
        if self._is_first:
            self._tell_ready()


class Stop:
    """How the service stops: it drains first, and a second signal ends it at once."""

    def __init__(self, draining: SharedFlag, drain_seconds: float, listener: socket.socket) -> None:
        self._draining, self._drain_seconds, self._listener = draining, drain_seconds, listener
        self.closing, self.now = SharedFlag(), SharedFlag()
        """Set when silent connections end; and when every worker ends at once."""
        self._handlers: dict[int, Any] = {}

    def install(self, _server: Any) -> None:
        """Handle signals before gunicorn does, in the process that starts the workers."""
        self._first_process = os.getpid()
        self._handlers = {number: signal.getsignal(number) for number in _ORDERS}
        signal.signal(signal.SIGTERM, self._drain)
        signal.signal(signal.SIGALRM, self._close)
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._end)
        # Signals that come while a worker is forked wait until it has its own handlers.
        os.register_at_fork(before=self._block, after_in_parent=self._unblock)

    def _drain(self, number: int, frame: FrameType | None) -> None:
        """Answer requests, but fail readiness checks; a second SIGTERM ends at once."""
        if self._draining:
            self._end(signal.SIGINT, frame)
            return
        self._draining.set()
        if self._drain_seconds > 0:
            signal.setitimer(signal.ITIMER_REAL, self._drain_seconds)
        else:
            self._close(number, frame)

    def _close(self, _number: int, frame: FrameType | None) -> None:
        """Take no new connections, end silent ones, and let gunicorn stop the workers."""
        self.closing.set()
        self._listener.close()
        self._handlers[signal.SIGTERM](signal.SIGTERM, frame)

    def _end(self, number: int, frame: FrameType | None) -> None:
        """End at once."""
        self.closing.set()
        self.now.set()
        self._listener.close()
        self._handlers[number](number, frame)

    def _block(self) -> None:
        if os.getpid() == self._first_process:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERS)

    def _unblock(self) -> None:
        if os.getpid() == self._first_process:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ORDERS)


def end_process(code: int) -> None:
    """End this process without waiting for threads that hang."""
    flush_logs()
    os._exit(code)


def _settle() -> None:
    """Tune the garbage collector and the GIL for large requests beside small ones.

    Freeze what is loaded: the collector need not scan it, which would also copy memory that workers
    share. It was off until here, as Python's documentation of `gc.freeze` advises. Collect rarely:
    a table of 100,000 rows is as many lists, none of them garbage. Switch threads after one
    millisecond of waiting, not five.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(100_000, 10, 10)
    sys.setswitchinterval(0.001)


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens on the service's address.

    Raises:
        BadSetting: it cannot, and why.
    """
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        # Python appends the address to the system's words. Numbers of getaddrinfo are below 0.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise BadSetting(
            f"ISOSERVE_HOST={host} ISOSERVE_PORT={port}: cannot listen there "
            f"({why}); choose another, or stop the process that listens there"
        ) from error


def warn_of_missing_key(settings: Settings) -> None:
    """Warn when the service listens beyond this machine without an API key."""
    if is_open(settings):
        log.warning(OPEN, host=settings.host)


def is_open(settings: Settings) -> bool:
    """Return whether others than this machine can use the service without a key."""
    local = settings.host in ("127.0.0.1", "::1", "localhost")
    return not local and not settings.read_api_key()


def _use_root_logger(_server: Any) -> None:
    """Pass gunicorn's log lines to the root logger, whose level and handler are ours."""
    logger = logging.getLogger("gunicorn.error")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def most_connections() -> int:
    """Return how many connections a worker keeps: the rest of its descriptors is for files."""
    return max(100, min(MOST_CONNECTIONS, getrlimit(RLIMIT_NOFILE)[0] - 100))


def gunicorn_options(settings: Settings, listener: socket.socket) -> dict[str, Any]:
    """Return gunicorn's settings: an event loop in each worker, and workers that share a model."""
    return {
        "bind": f"fd://{os.dup(listener.fileno())}",  # gunicorn closes the number that it gets
        "workers": settings.workers,
        "worker_class": "asgi",
        "asgi_loop": "uvloop",
        "asgi_lifespan": "on",
        "http_parser": "python",  # the strict one; the compiled one answers 400 where 501 is due
        "preload_app": True,
        # `Watch` ends a worker with a hung request; this is for one that holds the interpreter.
        "timeout": settings.timeout + 10,
        # With a drain of 5 s a stop takes well under 10 s, even if clients keep connections open.
        "graceful_timeout": 3,
        "keepalive": settings.keepalive,
        "worker_tmp_dir": _heartbeat_folder(),
        "control_socket_disable": True,
        # Trust no proxy about the scheme or the path prefix.
        "forwarded_allow_ips": "",
        "proc_name": "isoserve",
        "loglevel": "warning",  # until `_use_root_logger`: gunicorn writes plain text before it
    }


def _heartbeat_folder() -> str | None:
    """Return a folder in memory for heartbeat files, because a disk could block a worker."""
    memory = Path("/dev/shm")  # noqa: S108 - the file has no name there
    try:
        tempfile.TemporaryFile(dir=memory).close()
    except OSError:
        return None
    return str(memory)
