"""A client's connection: what can be answered at once of what it brings, and how it ends."""

from __future__ import annotations

import socket
from fcntl import ioctl
from termios import TIOCOUTQ
from time import monotonic

from .doors import LIVENESS, READINESS, SHORT

# Most heads of requests are a few hundred bytes.
_MOST = SHORT + 2048
_NOTHING = bytes(4)
_LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_BRIEF = tuple(
    f"{request} HTTP/1.1\r\n".encode()
    for request in ["POST /predict", *(f"GET {path}" for path in sorted(LIVENESS | READINESS))]
)

LULL_SECONDS = 0.1
"""So long may the rest of a refused request pause while it is read."""

_REST_SECONDS = 5  # and so long is it read at most


def is_brief(client: socket.socket) -> bool:
    """Return whether a connection brings what takes no time and no patience to answer.

    That is a prediction for a few rows, or a question after health, of which every byte is there,
    from a client that has taken all earlier answers: neither to read the request nor to send the
    answer can then wait for the client. Or it is the end of the connection.
    """
    try:
        start = client.recv(_MOST, _LOOK)
        if not start.startswith(_BRIEF):
            return not start
        head, end, body = start.lower().partition(b"\r\n\r\n")
        short = bool(end) and len(body) <= SHORT and _announces(head, len(body))
        return short and ioctl(client, TIOCOUTQ, _NOTHING) == _NOTHING
    except OSError:
        return True


def _announces(head: bytes, length: int) -> bool:
    """Return whether so long a body follows a request's head, in lower case, beyond all doubt."""
    lengths = head.count(b"content-length")
    if lengths != 1:
        return lengths == length == 0 and b"transfer-encoding" not in head
    field = b"\r\ncontent-length: %d" % length
    return (head.endswith(field) or field + b"\r\n" in head) and b"transfer-encoding" not in head


def linger(client: socket.socket) -> None:
    """Read what a refused client still sends, and no longer than it goes on sending.

    Most clients look for an answer only when they have sent all, and an end of the connection
    before that would take the answer away.
    """
    end = monotonic() + _REST_SECONDS
    try:
        client.shutdown(socket.SHUT_WR)
        client.settimeout(LULL_SECONDS)
        while monotonic() < end and client.recv(2**18):
            pass
    except OSError:  # it has gone, or it is silent
        return
