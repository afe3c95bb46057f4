"""The doors of a worker: who may come in, how much at a time, and who is inside.

A plain prediction takes some thirty microseconds in all, so each door is judged by what it adds to
that: one that is off nothing, one that is on less than a microsecond.
"""

from __future__ import annotations

import hmac
import mmap
import re
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from time import monotonic
from typing import Any

from ..errors import Refusal, Unauthorized, Unavailable

READINESS = frozenset(
    {"/ready", "/ping", "/health", "/health/status", "/api/v1.0/health/status", "/v2/health/ready"}
)
MODEL_READY = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/ready")
LIVENESS = frozenset({"/live", "/health/ping", "/v2/health/live"})

# As much of a body as tells how dense its numbers are, and the bytes of a number in JSON.
_SAMPLE, NUMBER = 2**16, 20

SHORT = 1024
"""Bytes of a body that holds a few dozen rows. They need not be counted, which costs as much as
to score them: no more of these bodies are in work than there are threads."""

# A request of so many rows is worth tens of milliseconds; shorter ones are waited for.
_LARGE = 10_000

# One is read while another is scored; each more would only make all take longer.
_MOST_LARGE = 2

# Seconds since the start on the machine's clock, a thread's number, and what it answers.
_FLIGHT = struct.Struct("=dQ112s")


class Key:
    """What opens every route but health: the header X-API-Key, or Authorization: Bearer."""

    def __init__(self, *accepted: str) -> None:
        """Accept any of these keys."""
        self._accepted = [_digest(key) for key in accepted]

    def fits(self, environ: Mapping[str, Any]) -> bool:
        """Return whether a request has one of the keys; how long this takes tells nothing."""
        sent = environ.get("HTTP_X_API_KEY") or _bearer(environ.get("HTTP_AUTHORIZATION", ""))
        digest, fits = _digest(sent), False
        for known in self._accepted:
            fits |= hmac.compare_digest(digest, known)
        return fits


class Gate:
    """Lets so many rows into a worker at a time, and refuses more at once.

    A request that is alone always comes in. Large ones leave one thread free for short requests,
    health checks and refusals.
    """

    def __init__(self, most_rows: int, threads: int) -> None:
        self._most, self._most_large = most_rows, max(1, min(threads - 1, _MOST_LARGE))
        self._rows = self._large = 0
        self._lock = threading.Lock()
        self.refused = 0.0
        """When somebody was refused here last, on the machine's clock; 0 if nobody was."""

    def let_in(self, rows: int) -> Stay:
        """Let a request in, until the `with` block ends.

        Raises:
            Unavailable: there are too many rows in here already.
        """
        large = rows >= _LARGE
        with self._lock:
            full = self._rows + rows > self._most or (large and self._large >= self._most_large)
            if self._rows and full:
                self.refused = monotonic()
                raise Unavailable(
                    f"{self._rows:,} rows are being scored already; send this again in a second"
                )
            self._rows += rows
            self._large += large
        return Stay(self, rows)

    def let_out(self, rows: int) -> None:
        """Take note that a request of so many rows has left."""
        with self._lock:
            self._rows -= rows
            self._large -= rows >= _LARGE


class Stay:
    """A request's time behind the gate."""

    __slots__ = ("_gate", "_rows")

    def __init__(self, gate: Gate, rows: int) -> None:
        self._gate, self._rows = gate, rows

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._gate.let_out(self._rows)


def estimate_rows(body: bytes, columns: int, number: int = NUMBER) -> int:
    """Return about how many rows a body holds, without reading it.

    Reading is most of the work, so a request must be refused before. Numbers have commas between
    them, and where they have none, as in binary tensors, they still take `number` bytes each.

    >>> estimate_rows(b'{"data": {"ndarray": [[1, 2], [3, 4]]}}', 2)
    2
    """
    commas = body.count(b",", 0, _SAMPLE) * max(len(body), _SAMPLE) // _SAMPLE
    return max(commas, len(body) // number) // columns + 1


class _Mine(threading.local):
    """What patience knows of the request that a thread answers."""

    waited: float | None = None
    """Seconds, while there is too much to do."""
    turn = False


class Patience:
    """Tells which requests wait for too long, in all processes forked after it was made.

    Everybody waits a little now and then, and nobody is refused for it. But when work comes faster
    than it can be done, waits would grow without end. So after a long one each worker does one
    request at a time, which is answered as soon as ever, and refuses those beside it.
    """

    LONG, CROWD = 0.03, 12
    """Seconds of a wait, and requests that came meanwhile, with which there is too much to do. A
    full gate tells the same."""
    SHORT = 0.005
    """Seconds of a wait that are too long while there is too much to do."""
    QUIET, ENOUGH = 1.0, 30.0
    """Seconds without a refusal, and in all, after which there is too much to do no more."""

    def __init__(self, gate: Gate) -> None:
        self._gate, self._turn, self._mine = gate, threading.Lock(), _Mine()
        self._until = memoryview(mmap.mmap(-1, 8)).cast("d")
        self._began = memoryview(mmap.mmap(-1, 8)).cast("d")

    def begin(self, waited: float, behind: int, now: float) -> None:
        """Begin, in its thread, with a request that waited so long, with so many behind it.

        With nobody behind it and nobody at work it is alone, and not refused for its wait.
        """
        self._mine.waited = (behind and waited) if self._is_out(waited, behind, now) else None

    def refuses(self) -> bool:
        """Return whether this thread's request is refused, where refusing it is worth while."""
        waited = self._mine.waited
        if waited is None:
            return False
        if waited <= self.SHORT and self._turn.acquire(blocking=False):
            self._mine.turn = True
            return False
        self._until[0] = monotonic() + self.QUIET
        return True

    def end(self) -> None:
        """End with this thread's request."""
        if self._mine.turn:
            self._mine.turn = False
            self._turn.release()

    @property
    def is_tried(self) -> bool:
        """Whether this thread's request may be refused."""
        return self._mine.waited is not None

    def _is_out(self, waited: float, behind: int, now: float) -> bool:
        if now > self._until[0]:
            full = now <= self._gate.refused + self.QUIET
            if not full and (waited < self.LONG or behind < self.CROWD):
                return False
            self._began[0], self._until[0] = now, now + self.QUIET
        elif now - self._began[0] > self.ENOUGH:  # they who ask at once again may be all there are
            self._until[0] = 0.0
            return False
        return True


class Switch:
    """On or off, for all processes forked after this object was made."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def __bool__(self) -> bool:
        return self._memory[0] != 0

    def turn_on(self) -> None:
        """Turn it on, for good."""
        self._memory[0] = 1


@dataclass(frozen=True)
class Flight:
    """A request that is being answered."""

    place: int
    request_id: str
    request: str
    """Its method and path."""
    seconds: float
    thread: int


class Flights:
    """The requests that the threads of one worker are answering, for it and its parent to read.

    They lie in shared memory: a worker that hangs cannot say what it was doing.
    """

    def __init__(self, threads: int) -> None:
        self._memory = mmap.mmap(-1, threads * _FLIGHT.size)
        self._mine = threading.local()
        self._places = count(0, _FLIGHT.size)

    def begin(self, request_id: str, method: str, path: str) -> int:
        """Take down what this thread answers now; return where, for `end`."""
        try:
            place: int = self._mine.place
        except AttributeError:
            place = self._mine.place = next(self._places) % len(self._memory)
        text = f"{request_id} {method} {path}".encode("latin-1", "replace")
        _FLIGHT.pack_into(self._memory, place, monotonic(), threading.get_ident(), text)
        return place

    def end(self, place: int) -> None:
        """Take down that this thread answers nothing."""
        self._memory[place : place + 8] = _NEVER

    def restart(self, place: int) -> None:
        """Count a flight's seconds from now."""
        self._memory[place : place + 8] = struct.pack("=d", monotonic())

    def aloft(self) -> list[Flight]:
        """Return what is being answered."""
        found = []
        for place in range(0, len(self._memory), _FLIGHT.size):
            started, thread, text = _FLIGHT.unpack_from(self._memory, place)
            if started:
                request_id, _, request = text.rstrip(b"\0").decode("latin-1").partition(" ")
                seconds = monotonic() - started
                found.append(Flight(place, request_id, request, seconds, thread))
        return found


_NEVER = struct.pack("=d", 0.0)


@dataclass
class Doors:
    """All doors of a worker."""

    gate: Gate
    key: Key | None = None
    model_name: str = "isoserve"
    version: Callable[[], str] | None = None
    """Tells that of the model which is served; without it any version is."""
    stopping: Switch = field(default_factory=Switch)
    """Whether the service drains: it answers still, but is not ready for more."""
    flights: Flights = field(default_factory=lambda: Flights(1))
    patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        self.patience = Patience(self.gate)

    def refusal(self, environ: Mapping[str, Any]) -> Refusal | None:
        """Return why a request comes no further, if it does not.

        Only asked when a key is needed or the service is stopping.
        """
        path = environ["PATH_INFO"]
        if asks_readiness(path):
            stops = self.stopping and self._serves(path)
            return Unavailable("the service is stopping") if stops else None
        if environ.get("REQUEST_METHOD") == "OPTIONS":
            return None  # a browser asks without the key whether it may send it
        if self.key is None or path in LIVENESS or self.key.fits(environ):
            return None
        return Unauthorized("this takes the header X-API-Key, or Authorization: Bearer, and a key")

    def _serves(self, path: str) -> bool:
        """Return whether a path asks for the readiness of something that is here."""
        if path in READINESS:
            return True
        named = path.removeprefix("/v2/models/").removesuffix("/ready")
        model, _, version = named.partition("/versions/")
        known = not version or self.version is None or version == self.version()
        return model == self.model_name and known


def asks_readiness(path: str) -> bool:
    """Return whether a path asks if the service, or a model, is ready for requests."""
    return path in READINESS or MODEL_READY.fullmatch(path) is not None


def _bearer(header: str) -> str:
    kind, _, token = header.partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _digest(text: str) -> bytes:
    """Return what is compared: of one length, whatever was sent."""
    return sha256(text.encode()).digest()
