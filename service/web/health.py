"""What a worker knows of itself: health paths, requests in flight, whether it is stopping."""

from __future__ import annotations

import mmap
import re
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any

from ..errors import Refusal, Unauthorized, Unavailable
from .admission import LoadShedder, RowLimit
from .auth import ApiKey

READINESS = frozenset(
    {"/ready", "/ping", "/health", "/health/status", "/api/v1.0/health/status", "/v2/health/ready"}
)


MODEL_READY = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/ready")


LIVENESS = frozenset({"/live", "/health/ping", "/v2/health/live"})


# Seconds since the start on the machine's clock, a thread's number, and what it answers.
_FLIGHT = struct.Struct("=dQ112s")


class SharedFlag:
    """On or off, for all processes forked after this object was made."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def __bool__(self) -> bool:
        return self._memory[0] != 0

    def turn_on(self) -> None:
        """Turn it on, for good."""
        self._memory[0] = 1


@dataclass(frozen=True)
class InFlightRequest:
    """A request that is being answered."""

    place: int
    request_id: str
    request: str
    """Its method and path."""
    seconds: float
    thread: int


class InFlightRequests:
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

    def active(self) -> list[InFlightRequest]:
        """Return what is being answered."""
        found = []
        for place in range(0, len(self._memory), _FLIGHT.size):
            started, thread, text = _FLIGHT.unpack_from(self._memory, place)
            if started:
                request_id, _, request = text.rstrip(b"\0").decode("latin-1").partition(" ")
                seconds = monotonic() - started
                found.append(InFlightRequest(place, request_id, request, seconds, thread))
        return found


_NEVER = struct.pack("=d", 0.0)


@dataclass
class Doors:
    """All doors of a worker."""

    row_limit: RowLimit
    key: ApiKey | None = None
    model_name: str = "isoserve"
    version: Callable[[], str] | None = None
    """Tells that of the model which is served; without it any version is."""
    stopping: SharedFlag = field(default_factory=SharedFlag)
    """Whether the service drains: it answers still, but is not ready for more."""
    in_flight: InFlightRequests = field(default_factory=lambda: InFlightRequests(1))
    patience: LoadShedder = field(init=False)

    def __post_init__(self) -> None:
        self.patience = LoadShedder(self.row_limit)

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
        return Unauthorized(
            "this takes the header X-API-ApiKey, or Authorization: Bearer, and a key"
        )

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
