"""The requests that a worker is answering, in memory that its parent can read.

A worker that hangs cannot say what it was doing.
"""

import mmap
import struct
import threading
from dataclasses import dataclass
from itertools import count
from time import monotonic

# Start in seconds of the monotonic clock (0: no request), thread identifier, text.
_ENTRY = struct.Struct("=dQ112s")
_TIME = struct.Struct("=d")


@dataclass(frozen=True)
class InFlightRequest:
    """A request that is being answered."""

    offset: int
    request_id: str
    request: str
    """Its method and path."""
    seconds: float
    thread: int


class InFlightRequests:
    """One entry for each thread of a worker, in shared memory."""

    def __init__(self, threads: int) -> None:
        self._memory = mmap.mmap(-1, threads * _ENTRY.size)
        self._own = threading.local()
        self._offsets = count(0, _ENTRY.size)

    def begin(self, request_id: str, method: str, path: str) -> int:
        """Note which request this thread answers from now on; return its offset for `end`."""
        try:
            offset: int = self._own.offset
        except AttributeError:
            offset = self._own.offset = next(self._offsets) % len(self._memory)
        text = f"{request_id} {method} {path}".encode("latin-1", "replace")
        _ENTRY.pack_into(self._memory, offset, monotonic(), threading.get_ident(), text)
        return offset

    def end(self, offset: int) -> None:
        """Note that the request is answered."""
        _TIME.pack_into(self._memory, offset, 0.0)

    def restart(self, offset: int) -> None:
        """Count the request's seconds from now."""
        _TIME.pack_into(self._memory, offset, monotonic())

    def active(self) -> list[InFlightRequest]:
        """Return the requests that are being answered."""
        found = []
        for offset in range(0, len(self._memory), _ENTRY.size):
            started, thread, text = _ENTRY.unpack_from(self._memory, offset)
            if started:
                request_id, _, request = text.rstrip(b"\0").decode("latin-1").partition(" ")
                seconds = monotonic() - started
                found.append(InFlightRequest(offset, request_id, request, seconds, thread))
        return found
