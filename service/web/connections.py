"""A bound on the connections of a worker, and the end of those that keep it waiting.

gunicorn's asgi worker accepts connections without end, waits without end for a client that does not
read its answer, and waits for silent connections when it stops. A connection is silent while no
request of it is being answered: its client sends nothing, or the head of a request byte by byte.
"""

import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from termios import FIONREAD

from .in_flight import InFlightRequests

_LOOK = 1.0  # seconds between two looks; a tenth of it while the service stops
_QUIET = 0.5  # a connection that was used within these seconds is not ended
_NOTHING = bytes(4)
_DESCRIPTORS = "/proc/self/fd"


@dataclass(frozen=True)
class _Connection:
    descriptor: int
    inode: int
    """Tells it from a later connection with the same descriptor."""
    client: tuple[str, int]
    since: float


class Connections:
    """The connections of this process to its clients, found among its descriptors (on Linux)."""

    def __init__(self, in_flight: InFlightRequests, port: int, most: int, timeout: float) -> None:
        self._in_flight, self._port, self._most = in_flight, port, most
        self._timeout = timeout
        self._known: dict[tuple[int, int], _Connection | None] = {}
        """By descriptor and inode; None for what is no client's connection."""

    def start(self, stopping: Callable[[], object]) -> None:
        """Bound the connections in a thread; once `stopping()`, end all silent ones."""
        threading.Thread(target=self._run, args=(stopping,), daemon=True).start()

    def _run(self, stopping: Callable[[], object]) -> None:
        while True:
            time.sleep(_LOOK / 10 if stopping() else _LOOK)
            self.end_slow()
            if stopping():
                self.end_silent(0)
            elif self._are_many():
                self.end_silent(self._most)

    def end_slow(self) -> None:
        """End the connections of clients that have not read an answer within the timeout."""
        limit = time.monotonic() - self._timeout
        slow = {one.client for one in self._in_flight.all() if 0 < one.answered < limit}
        for one in self._look() if slow else ():
            if one.client in slow:
                _end(one)

    def _are_many(self) -> bool:
        descriptors = len(os.listdir(_DESCRIPTORS))  # noqa: PTH208
        return max(descriptors, len(self._in_flight.seen) // 10) > self._most

    def end_silent(self, most: int) -> None:
        """End silent connections, those silent for longest first, until `most` are left."""
        found, now = self._look(), time.perf_counter()
        seen = self._in_flight.forget_others({one.client for one in found})
        busy = {request.client for request in self._in_flight.all()}
        silent = [(max(one.since, seen.get(one.client, 0)), one.descriptor, one) for one in found]
        silent = sorted(entry for entry in silent if entry[2].client not in busy)
        for since, _, one in silent[: max(0, len(found) - most)]:
            if now - since > _QUIET:
                _end(one, unless_sent=True)

    def _look(self) -> list[_Connection]:
        """Return the open connections; one that is known costs a single system call."""
        known = {}
        for number in map(int, os.listdir(_DESCRIPTORS)):  # noqa: PTH208
            with suppress(OSError):  # it is closed meanwhile
                status = os.fstat(number)
                key = number, status.st_ino
                if stat.S_ISSOCK(status.st_mode):
                    known[key] = self._known[key] if key in self._known else self._open(*key)
        self._known = known
        return list(filter(None, known.values()))

    def _open(self, number: int, inode: int) -> _Connection | None:
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as copy:
            inet = copy.family in (socket.AF_INET, socket.AF_INET6)
            if inet and copy.getsockname()[1] == self._port:
                client = copy.getpeername()[:2]  # OSError for the socket that listens
                return _Connection(number, inode, client, time.perf_counter())
        return None


def _end(one: _Connection, unless_sent: bool = False) -> None:
    """End a connection; `unless_sent`, only if its client has sent nothing that is not read yet."""
    with suppress(OSError), socket.socket(fileno=os.dup(one.descriptor)) as copy:
        same = os.fstat(copy.fileno()).st_ino == one.inode
        if same and not (unless_sent and ioctl(copy, FIONREAD, _NOTHING) != _NOTHING):
            copy.shutdown(socket.SHUT_RDWR)
