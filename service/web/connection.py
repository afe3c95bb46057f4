"""A client's connection: what can be answered at once of what it brings, and how it ends."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from fcntl import ioctl
from termios import TIOCOUTQ
from time import monotonic
from typing import Any

from .health import LIVENESS, MODEL_READY, READINESS

BRIEF = 4096
"""Bytes of a body that holds some hundred rows: less than a millisecond of work."""

_HEAD = 2048  # bytes; most requests have a few hundred before their body
_NOTHING = bytes(4)
_LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_HEALTH = "|".join(map(re.escape, sorted(LIVENESS | READINESS))) + "|" + MODEL_READY.pattern
_START = re.compile(
    rf"POST /predict HTTP/1\.1\r\n|(?:GET|HEAD) (?:{_HEALTH}) HTTP/1\.[01]\r\n".encode()
)

# So long is read what is left of a refused request, and so long may it pause.
_REST_SECONDS = 5
_LULL_SECONDS = 0.3


def is_brief(client: socket.socket) -> bool:
    """Return whether a connection brings what takes no time and no patience to answer.

    That is a prediction for a few rows, or a question after health, of which every byte is there,
    from a client that has taken all earlier answers: neither to read the request nor to send the
    answer can then wait for the client. Or it is the end of the connection.
    """
    try:
        start = client.recv(_HEAD + BRIEF, _LOOK)
        if not _START.match(start):
            return not start
        head, end, body = start.lower().partition(b"\r\n\r\n")
        short = bool(end) and len(body) <= BRIEF and _announces(head, len(body))
        return short and ioctl(client, TIOCOUTQ, _NOTHING) == _NOTHING
    except BlockingIOError:  # there is nothing after all
        return False
    except OSError:
        return True


def _announces(head: bytes, length: int) -> bool:
    """Return whether so long a body follows a request's head, in lower case, beyond all doubt."""
    lengths = head.count(b"content-length")
    if lengths != 1:
        return lengths == length == 0 and b"transfer-encoding" not in head
    field = b"\r\ncontent-length: %d" % length
    return (head.endswith(field) or field + b"\r\n" in head) and b"transfer-encoding" not in head


def read_rest(client: socket.socket, read: Callable[[int], bytes], unreader: Any = None) -> bool:
    """Read what a refused client still sends, and no longer than it goes on sending.

    Most clients look for an answer only when they have sent all, and an end of the connection
    before that would take the answer away. `read` gives no more bytes at the end of the request;
    the result is whether that has come. Where gunicorn's `unreader` is what reads for it, each of
    its looks at the connection is in time, too: it goes on until it has as much as was asked for.
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
    except Exception:  # silence, or the server's own for chunks that are none
        return False
    finally:
        if unreader:
            del unreader.chunk
    return False
