"""An HTTP request, whatever server and framework carry it."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ..state.counts import OTHER

Header = tuple[bytes, bytes]
"""Name, in lower case, and value of a header."""

REQUEST = "isoserve.request"
"""Key of the WSGI environment under which Flask finds its `Request`."""


@dataclass(slots=True, eq=False)
class Request:
    """What the checks, the counts and the log know of one request."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    """By name in lower case; the values of a repeated header are joined with a comma."""
    query: bytes = b""
    """What follows the question mark, percent-encoded."""
    needs_host: bool = True
    """Whether its version of HTTP requires the header Host: not HTTP/1.0."""
    client: tuple[str, int] | None = None
    """Address and port."""
    started: float = 0.0
    """`time.perf_counter()` at its start."""
    id: str = ""
    trace: str = ""
    """Its W3C traceparent; empty if it has none, or a malformed one."""
    route: str = OTHER
    """The route that counts it, such as '/v2/models/<model>/infer'."""
    thread: int = 0
    """Identifier of the thread that answers it; 0 while it waits for a thread or for its client."""
    working: float = 0.0
    """`time.perf_counter()` when that thread began."""
    answered: float = 0.0
    """`time.monotonic()` when its answer began to be sent; 0 before that."""
    held: int = 0
    """Bytes of a long body that count as held while the request is answered."""

    def header(self, name: bytes) -> str:
        """Return the value of a header, by its name in lower case; empty without it."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def trace_id(self) -> str:
        """The 32 hexadecimal digits that name its trace; empty without one."""
        return self.trace[3:35]


def is_console(path: str) -> bool:
    """Return whether a path is one of the console's, which no page of another origin may read."""
    return path.lstrip("/").partition("/")[0] == "console"


def from_scope(scope: Mapping[str, Any]) -> Request:
    """Return the request of an ASGI connection scope."""
    headers = dict(scope["headers"])
    if len(headers) != len(scope["headers"]):
        headers = {}
        for name, value in scope["headers"]:
            headers[name] = headers[name] + b"," + value if name in headers else value
    return Request(
        scope["method"],
        scope["path"],
        headers,
        scope["query_string"],
        scope["http_version"] != "1.0",
        scope["client"],
        perf_counter(),
    )


def from_environ(environ: Mapping[str, Any]) -> Request:
    """Return the request of a WSGI environment."""
    headers = {
        name[5:].lower().replace("_", "-").encode(): str(value).encode("latin-1", "replace")
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if value := environ.get(name):
            headers[name.lower().replace("_", "-").encode()] = value.encode("latin-1", "replace")
    path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
    query = environ.get("QUERY_STRING", "").encode("latin-1", "replace")
    needs_host = environ["SERVER_PROTOCOL"] != "HTTP/1.0"
    method = environ["REQUEST_METHOD"]
    return Request(method, path, headers, query, needs_host, None, perf_counter())
