"""Write log lines on standard output: plain on a terminal, elsewhere as JSON."""

import json
import logging
import shlex
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any

import structlog

_SHARED: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
"""Steps for the lines of structlog and of the standard library alike."""

_WIDEST = 20  # columns of a model whose rows still make a readable command


def configure_logs(level: str) -> None:
    """Write every log line of this process on standard output.

    A line is one JSON object, but on a terminal it is plain text, without gunicorn's own news.
    """
    formatting = structlog.stdlib.ProcessorFormatter
    plain = sys.stdout.isatty()
    render: Any = render_plain if plain else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        formatting(
            foreign_pre_chain=_SHARED, processors=[formatting.remove_processors_meta, render]
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    if plain and level == "INFO":
        logging.getLogger("gunicorn.error").setLevel("WARNING")
    structlog.configure(
        processors=[*_SHARED, formatting.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def render_plain(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> str:
    """Return a log line for a person: the time (UTC), the level, the text, and the other fields.

    >>> at = "2026-01-31T12:00:00.5Z"
    >>> render_plain(None, "", {"event": "hello", "level": "info", "timestamp": at, "n": 1})
    '12:00:00 info    hello n=1'
    """
    fields = dict(line)
    time, level = str(fields.pop("timestamp", ""))[11:19], fields.pop("level", "")
    text, failure = str(fields.pop("event", "")), fields.pop("exception", None)
    fields.pop("logger", None)
    more = [f"{name}={json.dumps(value, default=str)}" for name, value in fields.items()]
    shown = " ".join([time, f"{level:<7}", text, *more])
    return _escape(shown if failure is None else f"{shown}\n{failure}")


def tell_ready(
    url: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[float | None]],
    headers: Sequence[str] = (),
) -> None:
    """Say that the service answers: where, and on a terminal also what a person can do next.

    `rows` are rows to try, whose `columns` may be empty; `headers` are those that a request needs.
    """
    if not sys.stdout.isatty():
        structlog.get_logger("isoserve").info("ready", url=url, docs=f"{url}/docs")
        return
    lines = [f"ready:  {url}", f"docs:   {url}/docs"]
    if len(rows[0]) <= _WIDEST:
        names = {"names": list(columns)} if columns else {}
        body = json.dumps({"data": {**names, "ndarray": rows}})
        given = "".join(f" -H {header}" for header in headers)
        kind = "-H 'Content-Type: application/json'"
        lines.append(f"try:    curl {url}/predict{given} {kind} -d {shlex.quote(body)}")
    print("\n".join(["", *lines, "stop:   Ctrl-C", ""]), flush=True)


def _escape(text: str) -> str:
    """Escape what could control a terminal."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)
