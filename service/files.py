"""Open and read regular files, and nothing that could keep a reader waiting."""

import errno
import os
import stat
from pathlib import Path

_NOT_REGULAR = {errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.ELOOP}


class NotRegular(OSError):
    """A pipe, a device, a socket or a folder stands in the place of a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file", str(path))


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file and return its descriptor.

    The opening never blocks, because a pipe without a writer would block for ever.

    Raises:
        NotRegular: it is something else.
        OSError: it cannot be opened.
    """
    try:
        file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, mode)
    except OSError as error:
        if error.errno in _NOT_REGULAR:
            raise NotRegular(path) from error
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise NotRegular(path)
    return file


def read_regular(path: Path, most: int) -> bytes:
    """Read a whole regular file; OSError if it has more than `most` bytes."""
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return content
