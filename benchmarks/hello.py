"""Applications that do nothing, on the same gunicorn as ours, to measure the cost of HTTP alone.

`python -m benchmarks.hello bare|flask|naive` serves one of them on ISOSERVE_PORT with gunicorn's
own threaded worker and our settings. With `ours` after the name it uses our worker.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from flask import Flask, request
from gunicorn.app.base import BaseApplication

from service.server import Server, gunicorn_options
from service.settings import Settings
from service.telemetry.logs import configure_logs

BODY = b"hello"


def bare(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Read the body and return a constant."""
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


flask = Flask("hello")


@flask.post("/predict")
def hello() -> bytes:
    """Do the same with Flask's routing."""
    request.get_data()
    return BODY


class Plain(BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings and nothing else of ours."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app, self._settings = app, settings
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options, with its own threaded worker."""
        options = gunicorn_options(self._settings) | {"worker_class": "gthread"}
        del options["post_worker_init"]
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the application."""
        return self._app


def main() -> None:
    """Serve the application that the command line names."""
    settings = Settings.read()
    configure_logs(settings.log_level)
    name, *worker = sys.argv[1:]
    app = import_module("benchmarks.naive").app if name == "naive" else globals()[name]
    (Server if worker == ["ours"] else Plain)(app, settings).run()


if __name__ == "__main__":
    main()
