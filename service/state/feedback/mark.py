"""What was acknowledged, beside the database: so that its loss is noticed.

A database whose last commits are lost, or which is gone, is sound in itself. The number of accepted
messages is therefore kept in a mapped file, too, with the time of the last change: a clock that
has jumped since then is not believed.
"""

import threading
from pathlib import Path

from ..double_buffer import DoubleBuffer
from ..files import Damaged
from ..shared import ByteLocks, MappedFile, reset_in_children

FILE_NAME = "feedback.bin"

DAY = 86_400.0  # seconds

_ACCEPTED, _TIME = 1, 2  # the numbers of the double buffer; index 0 is its sequence
_SIZE = 3

LONGEST_JUMP = 365 * DAY  # between two uses of the feedback
_PATIENCE = 0.05  # seconds to wait for another process, which may be stopped


class Mark:
    """The greatest number of accepted messages that was acknowledged, and when."""

    def __init__(self, folder: Path) -> None:
        """Open or create the file in `folder`; BadSetting if the disk has no room for it."""
        size = 8 * DoubleBuffer.words(_SIZE)
        content = memoryview(bytearray(size))
        DoubleBuffer.clear(content.cast("q"), 0, _SIZE)
        layout = {"kind": "feedback", "format": 1}
        path = folder / FILE_NAME
        self._file = MappedFile.open_or_create(path, layout, size, bytes(content), prove)
        self._buffer = _buffer(self._file)
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Hold no lock."""
        self._turn = threading.Lock()
        self._locks: ByteLocks | None = None

    @property
    def accepted(self) -> int:
        """How many messages were accepted; 0 if nothing was ever noted."""
        return self._buffer.read()[0][_ACCEPTED]

    @property
    def time(self) -> float:
        """The last time that was believed, in seconds since 1970; 0 if there is none."""
        return self._buffer.read()[1][_TIME]

    def note(self, accepted: int, now: float, reset: bool = False) -> None:
        """Store a number of messages, and the time if it is believed; neither falls.

        With `reset` the number may fall. Skip it if a process that does the same is stopped.
        """
        with self._turn:
            if self._locks is None:
                self._locks = self._file.locks()
            if not self._locks.acquire(0, _PATIENCE):
                return
            last = self.time
            words, floats, start = self._buffer.begin()
            words[start + _ACCEPTED] = accepted if reset else max(accepted, self.accepted)
            if self.believes(now):
                floats[start + _TIME] = max(now, last)
            self._buffer.commit()
            self._locks.release(0)

    def believes(self, now: float) -> bool:
        """Return whether the clock may say `now`: not if it is more than a year after the last."""
        return not self.time or now <= self.time + LONGEST_JUMP


def _buffer(file: MappedFile) -> DoubleBuffer:
    return DoubleBuffer(file.body.cast("q"), file.body.cast("d"), 0, _SIZE)


def prove(file: MappedFile) -> None:
    """Raise Damaged if a number in the file is not as it was written."""
    if not _buffer(file).is_whole():
        raise Damaged("its numbers are damaged")
