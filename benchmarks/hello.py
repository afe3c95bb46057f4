"""Applications that do nothing, served by the same gunicorn as ours: what HTTP alone costs.

`python -m benchmarks.hello bare|flask|naive` serves one on ISOSERVE_PORT.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from flask import Flask, request

from service.server import Server, configure_logs
from service.settings import Settings

BODY = b"hello"


def bare(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Read the body and say hello."""
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


flask = Flask("hello")


@flask.post("/predict")
def hello() -> bytes:
    """Do the same by Flask's routing."""
    request.get_data()
    return BODY


def main() -> None:
    """Serve the application that the command line names."""
    settings = Settings.read()
    configure_logs(settings.log_level)
    name = sys.argv[1]
    app = import_module("benchmarks.naive").app if name == "naive" else globals()[name]
    Server(app, settings).run()


if __name__ == "__main__":
    main()
