"""Admission control: what a worker checks before it answers a request.

A plain prediction takes about fifty microseconds, so a check that is switched off must cost
nothing, and one that is on less than a microsecond.
"""

import asyncio
import mmap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from ..errors import BadInput, Refusal, Unauthorized, Unavailable
from .auth import ApiKey
from .health import LIVENESS, READINESS, asks_readiness
from .request import Request, is_console

OVERLOADED = "more requests wait than can be answered in time; send this again in a second"

LARGE = 6_000
"""The fewest rows that take more than some 5 ms; shorter requests do not wait for them."""

_ROW = 5e-7  # seconds that a row takes, about
_LONGEST = 0.04
"""Seconds of a turn. A request that takes longer goes on beside the next one.

By then most of it has been read, and scoring leaves the interpreter to others.
"""


class RowLimit:
    """Limits the rows that a worker has in flight; a request beyond the limit is refused at once.

    A request that is alone is always admitted.
    """

    def __init__(self, most_rows: int) -> None:
        self._most = most_rows
        self._rows = 0
        self._lock = threading.Lock()

    @contextmanager
    def admit(self, rows: int) -> Iterator[None]:
        """Count these rows as in flight until the `with` block ends.

        Raises:
            Unavailable: too many rows are in flight already.
        """
        with self._lock:
            if self._rows and self._rows + rows > self._most:
                raise Unavailable(
                    f"{self._rows:,} rows are being scored already; send this again in a second"
                )
            self._rows += rows
        try:
            yield
        finally:
            with self._lock:
                self._rows -= rows


def _patience(rows: int) -> float:
    """Return how many seconds a request may wait: from 4,000 rows on as long as it takes itself."""
    return 0.02 if rows < 4_000 else max(0.004, rows * _ROW)


class Line:
    """Gives the large bodies of a worker their turns, in the order in which they came.

    Threads that work at once take longer each by as much, and the event loop waits for all of them:
    only one at a time has the interpreter. A request that takes long goes on beside the next one
    if `has_thread()` says that there is a thread for it.
    """

    def __init__(self, has_thread: Callable[[], bool]) -> None:
        self._turn, self._has_thread = asyncio.Semaphore(), has_thread
        self._waiting = 0

    @asynccontextmanager
    async def turn(self, rows: int) -> AsyncIterator[None]:
        """Wait for the turn of a request of about so many rows; it ends with the `with` block.

        Raises:
            Unavailable: it has waited for too long, and others wait as well.
        """
        self._waiting += 1
        try:
            await self._wait(_patience(rows))
        finally:
            self._waiting -= 1
        loop, turns = asyncio.get_running_loop(), [self._turn]

        def end() -> None:
            while turns:
                turns.pop().release()

        def share() -> None:
            if self._has_thread():
                end()
            elif turns:
                loop.call_later(_LONGEST, share)

        loop.call_later(_LONGEST, share)
        try:
            yield
        finally:
            end()

    async def _wait(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._turn.acquire()
        except TimeoutError as error:
            if self._waiting > 1:
                raise Unavailable(OVERLOADED) from error
            await self._turn.acquire()


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
