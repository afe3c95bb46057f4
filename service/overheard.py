"""A look at a request that is still in its socket, to refuse it without reading it.

Refusing so costs a hundredth of reading and scoring some thousand rows. For a few rows it would
cost nearly as much as an answer, so small requests are left to be answered.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Any

from .doors import LATE

# Requests up to the first number of bytes are answered in any case; those over the second, and
# those which are not all there, must be read to be refused.
_SMALL, _LARGE = 2**11, 2**20

_START = re.compile(rb"POST (/[!-$&->@-~]*)(?:\?[!-~]*)? HTTP/1\.1\r\n")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\r\n")
_FRAMING = {"HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_UPGRADE"}


@dataclass(frozen=True)
class Overheard:
    """A request that is still in its socket."""

    environ: dict[str, Any]
    """As much of WSGI's as a refusal needs."""
    length: int
    """Its bytes, body included."""


def overhear(connection: socket.socket) -> Overheard | None:
    """Look at the request in a socket; None where it is small, not plain, or not all there."""
    try:
        seen = connection.recv(_LARGE, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return None
    start = _START.match(seen)
    if start is None or len(seen) <= _SMALL:
        return None
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": start[1].decode("latin-1"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        LATE: True,
    }
    at = start.end()
    while header := _HEADER.match(seen, at):
        name = "HTTP_" + header[1].decode("latin-1").upper().replace("-", "_")
        if name in environ or name in _FRAMING:
            return None
        environ[name] = header[2].decode("latin-1")
        at = header.end()
    announced = environ.get("HTTP_CONTENT_LENGTH", "")
    stays = environ.get("HTTP_CONNECTION", "keep-alive").lower() == "keep-alive"
    if not (stays and re.fullmatch("[0-9]{1,8}", announced) and seen[at : at + 2] == b"\r\n"):
        return None
    length = at + 2 + int(announced)
    return Overheard(environ, length) if length <= len(seen) else None
