"""Admission control: what a worker checks before it answers a request.

A plain prediction takes about fifty microseconds, so a check that is switched off must cost
nothing, and one that is on less than a microsecond.
"""

import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..errors import BadInput, Refusal, Unauthorized, Unavailable
from .auth import ApiKey
from .health import LIVENESS, READINESS, asks_readiness
from .request import Request, is_console

# A request of this many rows takes tens of milliseconds; shorter ones cause only short queues.
_LARGE = 10_000

# Large requests at once: one is read while another is scored; more would slow each other down.
_MOST_LARGE = 2


class RowLimit:
    """Limits the rows that a worker has in flight; a request beyond the limit is refused at once.

    A request that is alone is always admitted. Large ones leave one of several threads free for
    shorter ones.
    """

    def __init__(self, most_rows: int, threads: int) -> None:
        self._most, self._most_large = most_rows, max(1, min(threads - 1, _MOST_LARGE))
        self._rows = self._large = 0
        self._lock = threading.Lock()

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
    """The checks of a request's head."""

    row_limit: RowLimit
    key: ApiKey | None = None
    model_name: str = "isoserve"
    version: Callable[[], str] | None = None
    """Returns the version of the model being served; without it any version is known."""
    has_console: bool = False
    """Whether there is a console, which has a login of its own in place of the key."""
    stopping: SharedFlag = field(default_factory=SharedFlag)
    """Set while the service drains: it still answers, but is not ready for more requests."""

    def refusal(self, request: Request) -> Refusal | None:
        """Return why a request is refused before its body is read, or None."""
        if request.needs_host and b"host" not in request.headers:
            return BadInput("a request of HTTP/1.1 and later has the header Host")
        if self.key is None and not self.stopping:
            return None
        path = request.path
        if asks_readiness(path):
            stops = self.stopping and self._is_served(path)
            return Unavailable("the service is stopping") if stops else None
        if request.method == "OPTIONS":
            return None  # a browser's preflight request has no key
        is_open = path in LIVENESS or (self.has_console and is_console(path))
        if self.key is None or is_open or self.key.allows(request.headers):
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
