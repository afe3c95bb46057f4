"""The doors of a worker: who may come in, how much at a time, and who is inside.

A plain prediction takes some thirty microseconds in all, so each door is judged by what it adds to
that: one that is off nothing, one that is on less than a microsecond.
"""

from __future__ import annotations

import mmap
import threading
from time import monotonic

from ..errors import Unavailable

# As much of a body as tells how dense its numbers are, and the bytes of a number in JSON.
_SAMPLE, NUMBER = 2**16, 20

SHORT = 1024
"""Bytes of a body that holds a few dozen rows. They need not be counted, which costs as much as
to score them: no more of these bodies are in work than there are threads."""

# A request of so many rows is worth tens of milliseconds; shorter ones are waited for.
_LARGE = 10_000

# One is read while another is scored; each more would only make all take longer.
_MOST_LARGE = 2


class RowLimit:
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

    def admit(self, rows: int) -> Admission:
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
        return Admission(self, rows)

    def release(self, rows: int) -> None:
        """Take note that a request of so many rows has left."""
        with self._lock:
            self._rows -= rows
            self._large -= rows >= _LARGE


class Admission:
    """A request's time behind the row_limit."""

    __slots__ = ("_row_limit", "_rows")

    def __init__(self, row_limit: RowLimit, rows: int) -> None:
        self._row_limit, self._rows = row_limit, rows

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._row_limit.release(self._rows)


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


class LoadShedder:
    """Tells which requests wait for too long, in all processes forked after it was made.

    Everybody waits a little now and then, and nobody is refused for it. But when work comes faster
    than it can be done, waits would grow without end. So after a long one each worker does one
    request at a time, which is answered as soon as ever, and refuses those beside it.
    """

    LONG, CROWD = 0.03, 12
    """Seconds of a wait, and requests that came meanwhile, with which there is too much to do. A
    full row_limit tells the same."""
    SHORT = 0.005
    """Seconds of a wait that are too long while there is too much to do."""
    QUIET, ENOUGH = 1.0, 30.0
    """Seconds without a refusal, and in all, after which there is too much to do no more."""

    def __init__(self, row_limit: RowLimit) -> None:
        self._row_limit, self._turn, self._mine = row_limit, threading.Lock(), _Mine()
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
            full = now <= self._row_limit.refused + self.QUIET
            if not full and (waited < self.LONG or behind < self.CROWD):
                return False
            self._began[0], self._until[0] = now, now + self.QUIET
        elif now - self._began[0] > self.ENOUGH:  # they who ask at once again may be all there are
            self._until[0] = 0.0
            return False
        return True
