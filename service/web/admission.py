"""Admission control: what a worker checks before it answers a request.

A plain prediction takes about thirty microseconds, so a check that is switched off must cost
nothing, and one that is on less than a microsecond.
"""

import mmap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from ..errors import Refusal, Unauthorized, Unavailable
from .auth import ApiKey
from .health import LIVENESS, READINESS, asks_readiness
from .in_flight import InFlightRequests

# The bytes of a body in which commas are counted, and the bytes of a number in JSON.
_SAMPLE, NUMBER = 2**16, 20

SHORT = 1024
"""Bytes of a body that holds a few dozen rows. Its rows are not counted, because that would cost as
much as scoring them; no more such bodies are in flight than there are threads."""

# A request of this many rows takes tens of milliseconds; shorter ones cause only short queues.
_LARGE = 10_000

# Large requests at once: one is read while another is scored; more would slow each other down.
_MOST_LARGE = 2


class RowLimit:
    """Limits the rows that a worker has in flight; a request beyond the limit is refused at once.

    A request that is alone is always admitted. Large ones leave one thread free for short requests,
    health checks and refusals.
    """

    def __init__(self, most_rows: int, threads: int) -> None:
        self._most, self._most_large = most_rows, max(1, min(threads - 1, _MOST_LARGE))
        self._rows = self._large = 0
        self._lock = threading.Lock()
        self.refused = 0.0
        """When a request was last refused here, in monotonic seconds; 0 for never."""

    @contextmanager
    def admit(self, rows: int) -> Iterator[None]:
        """Count these rows as in flight until the `with` block ends.

        Raises:
            Unavailable: too many rows are in flight already.
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
        try:
            yield
        finally:
            with self._lock:
                self._rows -= rows
                self._large -= large


def estimate_rows(body: bytes, columns: int, number: int = NUMBER) -> int:
    """Return about how many rows a body holds, without reading it.

    Reading is most of the work, so a request must be refused before. Numbers have commas between
    them, and where they have none, as in binary tensors, they still take `number` bytes each.

    >>> estimate_rows(b'{"data": {"ndarray": [[1, 2], [3, 4]]}}', 2)
    2
    """
    commas = body.count(b",", 0, _SAMPLE) * max(len(body), _SAMPLE) // _SAMPLE
    return max(commas, len(body) // number) // columns + 1


class _Own(threading.local):
    """What the load shedder knows of the request that this thread answers."""

    waited: float | None = None
    """Seconds in the queue; None while the service is not overloaded."""
    has_turn = False


class LoadShedder:
    """Refuses requests that waited too long, in all processes forked after it was made.

    Short queueing delays are normal and never refused. When work arrives faster than it can be
    done, queues would grow without end. So after a long delay each worker answers one request at a
    time, without delay, and refuses the others.
    """

    LONG, CROWD = 0.03, 12
    """Overload begins when a request waited LONG seconds and CROWD others arrived meanwhile, or
    with a full row limit."""
    SHORT = 0.005
    """Seconds of waiting above which a request is refused during overload."""
    QUIET, ENOUGH = 1.0, 30.0
    """Overload ends after QUIET seconds without a refusal, at the latest after ENOUGH seconds."""

    def __init__(self, row_limit: RowLimit) -> None:
        self._row_limit, self._turn, self._own = row_limit, threading.Lock(), _Own()
        self._until = memoryview(mmap.mmap(-1, 8)).cast("d")
        self._began = memoryview(mmap.mmap(-1, 8)).cast("d")

    def begin(self, waited: float, behind: int, now: float) -> None:
        """Begin this thread's request: it `waited` in seconds, with `behind` requests after it.

        A request with none behind it is never refused for its wait.
        """
        overloaded = self._is_overloaded(waited, behind, now)
        self._own.waited = (behind and waited) if overloaded else None

    def refuses(self) -> bool:
        """Return whether this thread's request is refused; call it only where `is_active`."""
        waited = self._own.waited
        if waited is None:
            return False
        if waited <= self.SHORT and self._turn.acquire(blocking=False):
            self._own.has_turn = True
            return False
        self._until[0] = monotonic() + self.QUIET
        return True

    def end(self) -> None:
        """End this thread's request."""
        if self._own.has_turn:
            self._own.has_turn = False
            self._turn.release()

    @property
    def is_active(self) -> bool:
        """Whether this thread's request may be refused."""
        return self._own.waited is not None

    def _is_overloaded(self, waited: float, behind: int, now: float) -> bool:
        if now > self._until[0]:
            full = now <= self._row_limit.refused + self.QUIET
            if not full and (waited < self.LONG or behind < self.CROWD):
                return False
            self._began[0], self._until[0] = now, now + self.QUIET
        elif now - self._began[0] > self.ENOUGH:  # perhaps all clients retry at once
            self._until[0] = 0.0
            return False
        return True


class SharedFlag:
    """A flag for all processes forked after this object was made."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def __bool__(self) -> bool:
        return self._memory[0] != 0

    def set(self) -> None:
        """Set it permanently."""
        self._memory[0] = 1


@dataclass
class Admission:
    """All checks of a worker, and the requests that it has admitted."""

    row_limit: RowLimit
    key: ApiKey | None = None
    model_name: str = "isoserve"
    version: Callable[[], str] | None = None
    """Returns the version of the model being served; without it any version is known."""
    stopping: SharedFlag = field(default_factory=SharedFlag)
    """Set while the service drains: it still answers, but is not ready for more requests."""
    in_flight: InFlightRequests = field(default_factory=lambda: InFlightRequests(1))
    shedder: LoadShedder = field(init=False)

    def __post_init__(self) -> None:
        self.shedder = LoadShedder(self.row_limit)

    def refusal(self, environ: Mapping[str, Any]) -> Refusal | None:
        """Return why a request is refused, or None; needed only with a key or while stopping."""
        path = environ["PATH_INFO"]
        if asks_readiness(path):
            stops = self.stopping and self._is_served(path)
            return Unavailable("the service is stopping") if stops else None
        if environ.get("REQUEST_METHOD") == "OPTIONS":
            return None  # a browser's preflight request has no key
        if self.key is None or path in LIVENESS or self.key.allows(environ):
            return None
        return Unauthorized(
            "missing or wrong API key: send X-API-Key: KEY or Authorization: Bearer KEY"
        )

    def _is_served(self, path: str) -> bool:
        """Return whether a path asks for the readiness of something that is served here."""
        if path in READINESS:
            return True
        named = path.removeprefix("/v2/models/").removesuffix("/ready")
        model, _, version = named.partition("/versions/")
        known = not version or self.version is None or version == self.version()
        return model == self.model_name and known
