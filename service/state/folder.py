"""The state folder, used by one service at a time, and the quarantine of its damaged files."""

import fcntl
import logging
import os
import shutil
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import BadSetting, Unavailable

logger = logging.getLogger(__name__)

MOST_QUARANTINED = 3
"""How many quarantined files are kept for each mapped file."""

_LOCK_NAME = "service.lock"


class InUse(BadSetting):
    """Another service, whose first process is `owner`, uses the state folder."""

    def __init__(self, path: Path, owner: str) -> None:
        self.owner = owner
        super().__init__(
            f"ISOSERVE_STATE_DIR: {path} is in use by another service (process {owner}); stop that "
            "one, or give this one a folder of its own"
        )


class StateFolder:
    """A folder that is locked for this process and the workers it forks."""

    def __init__(self, path: Path, wait_seconds: float = 5.0) -> None:
        """Create the folder if it does not exist, and lock it.

        Wait up to `wait_seconds` for the lock: the processes of a killed service take a moment to
        end.

        Raises:
            BadSetting: the folder cannot be written.
            InUse: another service has locked it.
        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
            # A read-only folder can still contain a lock file that can be opened.
            probe = path / f".probe-{os.getpid()}"
            probe.touch(mode=0o600)
            probe.unlink()
        except OSError as error:
            raise BadSetting(
                f"ISOSERVE_STATE_DIR: {path} cannot be written ({error.strerror}); "
                "name a folder that this user may write"
            ) from error
        if path.stat().st_mode & 0o077:
            logger.warning("the state folder %s is open to other users: chmod 700 it", path)
        self._lock(wait_seconds)
        weakref.finalize(self, os.close, self._file)

    def _lock(self, wait_seconds: float) -> None:
        end = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    owner = os.pread(self._file, 20, 0).decode() or "unknown"
                    os.close(self._file)
                    raise InUse(self.path, owner) from error
                time.sleep(0.05)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise Unavailable if `path` cannot be written: the change must not be made."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be written ({error.strerror}), so nothing was changed"
        ) from error


def measure_space(folder: Path) -> tuple[int, int] | None:
    """Return the total and the free bytes of a folder's file system, or None if unknown."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.total, usage.free


def quarantine(
    path: Path, reason: str, keep: int | None = None, beside: Sequence[str] = ()
) -> None:
    """Rename an unusable file to NAME.1, the next one to NAME.2, and so on, and log it.

    Keep the last `keep` quarantined files, by default all. Files with the same name and one of the
    endings in `beside` are renamed together with it.
    """
    before = quarantined(path)
    number = 1 + int(before[-1].suffix[1:]) if before else 1
    other = path.with_name(f"{path.name}.{number}")
    path.rename(other)
    for ending in beside:
        with suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{other}{ending}")
    logger.warning("%s is set aside as %s: %s; a new file is created", path, other.name, reason)
    for old in before[: max(0, len(before) + 1 - keep)] if keep else ():
        old.unlink()
        logger.warning("%s is deleted: only the last %d set aside are kept", old, keep)


def quarantined(path: Path) -> list[Path]:
    """Return the quarantined files of `path`, the oldest first."""
    found = [one for one in path.parent.glob(f"{path.name}.*") if one.suffix[1:].isdecimal()]
    return sorted(found, key=lambda one: int(one.suffix[1:]))
