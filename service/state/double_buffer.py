"""Numbers in shared memory that change together, even if a writer is killed."""

import platform
import threading
from zlib import crc32

OUT_OF_ORDER = platform.machine() not in {"x86_64", "AMD64"}
"""Whether other cores may see loads and stores in a different order than the program's, as on
arm64."""

_fence_lock = threading.Lock()


def fence() -> None:
    """Keep the order of the loads and stores before this call and those after it.

    Python has no such instruction, but a lock implies it: nothing is reordered past its release and
    the next acquisition.
    """
    with _fence_lock:
        pass
    with _fence_lock:
        pass


class DoubleBuffer:
    """Numbers that change together, for any number of readers and one writer at a time.

    They lie in shared memory as a selector and two copies of the numbers:

        selector | sequence, numbers, check | sequence, numbers, check

    Copy `selector % 2` is live. A writer copies the live numbers over the idle copy, changes them
    there, writes the idle copy's sequence (the selector plus one) and check sum, and then stores
    selector plus one: one aligned store of 8 bytes, which is atomic. So if a writer is killed at
    any instruction, the live copy is complete: the old numbers before that store, the new ones
    after it. An unfinished idle copy is overwritten by the next writer.

    The check sum begins with the place of the buffer, so two buffers that changed places are wrong.

    A reader reads the selector, the live copy, and the selector again. If the selector has not
    changed, no writer has begun to overwrite what was read; else the reader starts again. A dead or
    stopped writer changes no selector, so readers never wait.
    """

    __slots__ = ("_copies", "_floats", "_selector", "_size", "_words")

    def __init__(
        self, words: "memoryview[int]", floats: "memoryview[float]", start: int, size: int
    ) -> None:
        """Use the memory from the word at `start` for `size` numbers, the sequence included.

        `words` and `floats` are the same memory as int64 and float64.
        """
        self._words, self._floats = words, floats
        self._selector = start
        self._copies = (start + 1, start + 1 + size + 1)
        self._size = size

    @staticmethod
    def words(size: int) -> int:
        """Return how many words of memory `size` numbers take."""
        return 1 + 2 * (size + 1)

    @staticmethod
    def size(words: int) -> int:
        """Return how many numbers there are in so many words of memory."""
        return (words - 1) // 2 - 1

    @staticmethod
    def clear(words: "memoryview[int]", start: int, size: int) -> None:
        """Begin a buffer in memory that is zero.

        Its copies get the check sums of their zeros. So a page that the disk lost, which reads as
        zeros, differs from a buffer that was never used.
        """
        check = crc32(bytes(8 * size), start)
        words[start + 1 + size] = words[start + 1 + size + 1 + size] = check

    def begin(self) -> tuple["memoryview[int]", "memoryview[float]", int]:
        """Copy the live numbers to the idle copy; return the memory and the idle copy's start."""
        words, size = self._words, self._size
        selector = words[self._selector]
        live, idle = self._copies[selector & 1], self._copies[~selector & 1]
        words[idle : idle + size] = words[live : live + size]
        words[idle] = selector + 1
        return words, self._floats, idle

    def commit(self) -> None:
        """Make the idle copy the live one."""
        words, size = self._words, self._size
        selector = words[self._selector]
        idle = self._copies[~selector & 1]
        words[idle + size] = crc32(words[idle : idle + size], self._selector)
        if OUT_OF_ORDER:
            fence()
        words[self._selector] = selector + 1

    def read(self) -> tuple[list[int], list[float]]:
        """Return the live numbers twice: all of them as integers, and all of them as floats."""
        words, size = self._words, self._size
        while True:
            selector = words[self._selector]
            if OUT_OF_ORDER:
                fence()
            live = self._copies[selector & 1]
            numbers = memoryview(bytes(words[live : live + size]))
            if OUT_OF_ORDER:
                fence()
            if words[self._selector] == selector:
                return list(numbers.cast("q")), list(numbers.cast("d"))

    def read_pair(self) -> tuple[int, int]:
        """Return the first two live numbers: faster than `read`, for each prediction."""
        words = self._words
        while True:
            selector = words[self._selector]
            if OUT_OF_ORDER:
                fence()
            live = self._copies[selector & 1]
            pair = words[live + 1], words[live + 2]
            if OUT_OF_ORDER:
                fence()
            if words[self._selector] == selector:
                return pair

    def is_used(self) -> bool:
        """Return whether anything was ever written."""
        return self._words[self._selector] != 0

    def is_whole(self) -> bool:
        """Return whether the live copy has the sequence and check sum that its writer stored."""
        words, size = self._words, self._size
        selector = words[self._selector]
        live = self._copies[selector & 1]
        check = crc32(words[live : live + size], self._selector)
        return words[live] == selector and words[live + size] == check
