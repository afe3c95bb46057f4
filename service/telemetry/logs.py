"""Write log lines on standard output: plain on a terminal, elsewhere as JSON."""

import json
import logging
import os
import queue
import shlex
import sys
import threading
import time
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

_MOST_WAITING = 1000
"""Lines that wait while nobody reads standard output; more are dropped and counted."""

_FLUSH_SECONDS = 0.5


class LineWriter(logging.Handler):
    """Writes log lines in a thread of its own, so that a stalled reader delays no request."""

    def __init__(self) -> None:
        super().__init__()
        self._start()

    def _start(self) -> None:
        self._process, self._dropped, self._told = os.getpid(), 0, 0
        self._lines: queue.Queue[str] = queue.Queue(_MOST_WAITING)
        threading.Thread(target=self._write, args=(self._lines,), daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line; drop it if too many wait."""
        if self._process != os.getpid():  # a fork has no threads
            self._start()
        try:
            self._lines.put_nowait(self.format(record) + "\n")
        except queue.Full:
            self._dropped += 1

    def _write(self, lines: "queue.Queue[str]") -> None:
        while True:
            line = lines.get()
            try:
                _write_all(line + self._tell_dropped())
            except OSError:  # nobody reads any more, or standard output is closed
                pass
            finally:
                lines.task_done()

    def _tell_dropped(self) -> str:
        """Return a line about the lines that were dropped, if any."""
        dropped, self._told = self._dropped - self._told, self._dropped
        if not dropped:
            return ""
        text = f"{dropped} log lines were dropped: nobody read standard output in time"
        fields = {"name": __name__, "levelname": "WARNING", "levelno": logging.WARNING, "msg": text}
        return self.format(logging.makeLogRecord(fields)) + "\n"

    def flush(self) -> None:
        """Wait until the lines are written, at most half a second."""
        limit = time.monotonic() + _FLUSH_SECONDS
        while self._process == os.getpid() and self._lines.unfinished_tasks:
            if time.monotonic() > limit:
                break
            time.sleep(0.005)


def configure_logs(level: str, in_thread: bool = False) -> None:
    """Write every log line of this process on standard output.

    A line is one JSON object, but on a terminal it is plain text, without gunicorn's own news.
    `in_thread`: drop lines that a stalled reader does not take, rather than wait for it.
    """
    formatting = structlog.stdlib.ProcessorFormatter
    plain = sys.stdout.isatty()
    render: Any = render_plain if plain else structlog.processors.JSONRenderer()
    handler = LineWriter() if in_thread else logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        formatting(
            foreign_pre_chain=_SHARED, processors=[formatting.remove_processors_meta, render]
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    if plain and level == "INFO":
        logging.getLogger("gunicorn").setLevel("WARNING")
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
    console: bool = False,
) -> None:
    """Say that the service answers: where, and on a terminal also what a person can do next.

    `rows` are rows to try, whose `columns` may be empty; `headers` are those that a request needs;
    `console`: whether there is one.
    """
    flush_logs()
    if not sys.stdout.isatty():
        structlog.get_logger("isoserve").info("ready", url=url, docs=f"{url}/docs")
        return
    lines = [f"ready:  {url}", f"docs:   {url}/docs"]
    lines += [f"look:   {url}/console"] if console else []
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


def flush_logs() -> None:
    """Write the lines that wait, as far as somebody reads them, before the process ends."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _write_all(text: str) -> None:
    data = text.encode(errors="backslashreplace")
    while data:
        data = data[os.write(1, data) :]
