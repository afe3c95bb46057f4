"""gunicorn, configured, and the log lines."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import structlog
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from .settings import Settings


class Server(BaseApplication):  # type: ignore[misc]
    """Serve an application that this process has built: workers fork with the model loaded."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._app = app
        self._options = gunicorn_options(settings)
        super().__init__()

    def load_config(self) -> None:
        """Hand gunicorn its options."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application."""
        return self._app


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker with threads, which ends at once when told to."""

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End the process, as Ctrl-C asks.

        gunicorn's own handler closes the thread pool, and waits forever for the pool's lock when
        the signal came while this very thread held it.
        """
        os._exit(0)


class PlainLogger(Logger):  # type: ignore[misc]
    """Let gunicorn's lines go where all other lines go."""

    def setup(self, cfg: Any) -> None:
        """Leave levels and handlers to `configure_logs`."""
        self.error_log.propagate = True


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    """Return gunicorn's settings: threads that keep connections, and workers that share a model."""
    memory = Path("/dev/shm")  # noqa: S108 - a heartbeat file on a disk can block a worker
    return {
        "bind": f"{settings.host}:{settings.port}",
        "workers": settings.workers,
        "worker_class": Worker,
        "threads": settings.threads,
        "preload_app": True,
        "timeout": settings.timeout,
        "keepalive": settings.keepalive,
        "worker_tmp_dir": str(memory) if memory.is_dir() else None,
        "control_socket_disable": True,
        "logger_class": PlainLogger,
        "proc_name": "isoserve",
    }


def configure_logs(level: str) -> None:
    """Write every log line of this process as one JSON object on standard output."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
