"""Peek at a client's next request, and read the rest of a refused one."""

import re
import socket
from collections.abc import Callable
from fcntl import ioctl
from termios import TIOCOUTQ
from time import monotonic
from typing import Any

from .health import LIVENESS, MODEL_READY, READINESS

SHORT_BYTES = 4096
"""Bytes of a body that holds some hundred rows: less than a millisecond of work."""

_HEAD = 2048  # bytes; most requests have a few hundred before their body
_NOTHING = bytes(4)
_LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_HEALTH = "|".join(map(re.escape, sorted(LIVENESS | READINESS))) + "|" + MODEL_READY.pattern
_START = re.compile(
    rf"POST /predict HTTP/1\.1\r\n|(?:GET|HEAD) (?:{_HEALTH}) HTTP/1\.[01]\r\n".encode()
)

# Seconds for reading the rest of a refused request, and for a pause in it.
_REST_SECONDS = 5
_LULL_SECONDS = 0.3


def is_short_request(client: socket.socket) -> bool:
    """Return whether the next request of a connection is short and wholly received.

    That is a prediction for a few rows or a health check, from a client that has read all earlier
    answers, so neither reading the request nor sending the answer can block. The end of the
    connection counts as short, too.
    """
    try:
        start = client.recv(_HEAD + SHORT_BYTES, _LOOK)
        if not _START.match(start):
            return not start
        head, end, body = start.lower().partition(b"\r\n\r\n")
        short = bool(end) and len(body) <= SHORT_BYTES and _announces(head, len(body))
        return short and ioctl(client, TIOCOUTQ, _NOTHING) == _NOTHING
    except BlockingIOError:  # nothing to read after all
        return False
    except OSError:
        return True


def _announces(head: bytes, length: int) -> bool:
    """Return whether a request's head, in lower case, announces a body of just this length."""
    lengths = head.count(b"content-length")
    if lengths != 1:
        return lengths == length == 0 and b"transfer-encoding" not in head
    field = b"\r\ncontent-length: %d" % length
    return (head.endswith(field) or field + b"\r\n" in head) and b"transfer-encoding" not in head


def read_rest(client: socket.socket, read: Callable[[int], bytes], unreader: Any = None) -> bool:
    """Read and drop the rest of a refused request; return whether its end came in time.

    Most clients read the answer only after they have sent everything; closing the connection
    earlier would lose the answer. `read` returns no bytes at the end of the request. gunicorn's
    `unreader` reads on until it has as much as was asked for, so each of its reads is limited, too.
    """
    end = monotonic() + _REST_SECONDS
    client.settimeout(_LULL_SECONDS)
    if unreader:
        chunk = unreader.chunk

        def look(*most: int) -> bytes:
            if monotonic() > end:
                raise TimeoutError
            return bytes(chunk(*most))

        unreader.chunk = look
    try:
        while monotonic() < end:
            if not read(2**16):
                return True
    except Exception:  # silence, or the server's own error for malformed chunks
        return False
    finally:
        if unreader:
            del unreader.chunk
    return False
