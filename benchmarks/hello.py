"""Applications that do nothing, on gunicorn as ours is, to measure the cost of HTTP alone.

`python -m benchmarks.hello NAME` serves one of them on ISOSERVE_PORT: `bare`, `flask` and `naive`
with gunicorn's threaded worker, the usual choice, and `asgi` with the asgi worker that we use.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from importlib import import_module
from typing import Any

from flask import Flask, request
from gunicorn.app.base import BaseApplication

from service.server import gunicorn_options, listen
from service.settings import Settings
from service.telemetry.logs import configure_logs

BODY = b"hello"


def bare(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Read the body and return a constant."""
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Do the same in the event loop."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


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
        """Set gunicorn's options."""
        options = gunicorn_options(self._settings, listen(self._settings))
        if self._app is asgi:
            options["asgi_lifespan"] = "off"
        else:
            options |= {"worker_class": "gthread", "threads": self._settings.threads}
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the application."""
        return self._app


def main() -> None:
    """Serve the application that the command line names."""
    settings = Settings.read()
    configure_logs(settings.log_level)
    name = sys.argv[1]
    app = import_module("benchmarks.naive").app if name == "naive" else globals()[name]
    Plain(app, settings).run()


if __name__ == "__main__":
    main()
