"""The state folder, held by one service at a time, and the quarantine of its damaged files."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import BadSetting

logger = logging.getLogger(__name__)

MOST_QUARANTINED = 3
"""How many mapped files of one name are kept when they cannot be used any more."""


_LOCK_NAME = "service.lock"


class InUse(BadSetting):
    """Another service, whose first process is `owner`, holds the state folder."""

    def __init__(self, path: Path, owner: str) -> None:
        self.owner = owner
        super().__init__(
            f"ISOSERVE_STATE_DIR: {path} is in use by another service (process {owner}); stop that "
            "one, or give this one a folder of its own"
        )


class StateFolder:
    """A folder that this process and the workers it forks hold, and nobody else."""

    def __init__(self, path: Path, patience: float = 5.0) -> None:
        """Make the folder if need be and take hold of it.

        The processes of a killed service need a moment to die: wait for them up to `patience`
        seconds.

        Raises:
            BadSetting: the folder cannot be written.
            InUse: another service holds it.
        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
            # A folder that can be read but not written can still hold an old lock file.
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
        self._hold(patience)
        weakref.finalize(self, os.close, self._file)

    def _hold(self, patience: float) -> None:
        end = time.monotonic() + patience
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


def measure_space(folder: Path) -> tuple[int, int] | None:
    """Return the bytes of a folder's file system, in all and free; None if it cannot be told."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.total, usage.free


def quarantine(
    path: Path, reason: str, keep: int | None = None, beside: Sequence[str] = ()
) -> None:
    """Rename a file that cannot be used to NAME.1, the next one to NAME.2, ..., and say so.

    Of the files set aside the last `keep` stay, all of them by default. What is `beside` the file
    under its name and one of these endings goes with it.
    """
    before = quarantined(path)
    number = 1 + int(before[-1].suffix[1:]) if before else 1
    other = path.with_name(f"{path.name}.{number}")
    path.rename(other)
    for ending in beside:
        with suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{other}{ending}")
    logger.warning("%s is set aside as %s: %s; a new one is begun", path, other.name, reason)
    for old in before[: max(0, len(before) + 1 - keep)] if keep else ():
        old.unlink()
        logger.warning("%s is deleted: the last %d set aside are kept", old, keep)


def quarantined(path: Path) -> list[Path]:
    """Return the files that were once `path` and are quarantined, the oldest first."""
    found = [one for one in path.parent.glob(f"{path.name}.*") if one.suffix[1:].isdecimal()]
    return sorted(found, key=lambda one: int(one.suffix[1:]))
