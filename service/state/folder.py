"""The state folder, used by one service at a time."""

import fcntl
import logging
import os
import shutil
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ..errors import BadSetting
from ..files import open_regular

logger = logging.getLogger(__name__)

LOCK_NAME = "service.lock"

Risk = tuple[Literal["warning", "fault"], str]
"""How bad a file system is for state, and what to do."""

_RISKS: dict[tuple[str, ...], Risk] = {
    ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "fuse.s3fs"): (
        "fault",
        "locks and memory maps are not reliable over a network; use a local disk",
    ),
    ("tmpfs", "ramfs"): ("warning", "a restart of the machine empties it; use a disk"),
    ("overlay", "aufs"): (
        "warning",
        "it is deleted with the container; mount a volume there",
    ),
    ("btrfs", "zfs"): (
        "warning",
        "when it is full, even numbers that exist cannot be changed, and the service can end; "
        "watch its space",
    ),
}

RESTORING = "restore.new"
"""A folder in the state folder, there from the beginning of a restore to its end."""


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

    def __init__(self, path: Path, wait_seconds: float = 5.0, restoring: bool = False) -> None:
        """Create the folder if it does not exist, and lock it.

        Wait up to `wait_seconds` for the lock: the processes of a killed service take a moment to
        end. `restoring`: a restore that did not end may have left its files.

        Raises:
            BadSetting: the folder cannot be written, or holds half a restore.
            InUse: another service has locked it.
        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = open_regular(path / LOCK_NAME, os.O_RDWR | os.O_CREAT)
            # A read-only folder can still contain a lock file that can be opened.
            probe = path / f".probe-{os.getpid()}"
            probe.touch(mode=0o600)
            probe.unlink()
        except OSError as error:
            raise BadSetting(
                f"ISOSERVE_STATE_DIR: {path} cannot be written ({error.strerror}); "
                "name a folder that this user may write"
            ) from error
        owner = path.stat().st_uid
        if owner != os.geteuid():
            logger.warning(
                "the state folder %s belongs to user %d, and this process is user %d: run it as "
                "that user, or give the folder and its files to this one (chown)",
                path, owner, os.geteuid(),
            )  # fmt: skip
        if path.stat().st_mode & 0o077:
            logger.warning("the state folder %s is open to other users: chmod 700 it", path)
        self._lock(wait_seconds)
        weakref.finalize(self, os.close, self._file)
        if (path / RESTORING).exists() and not restoring:
            raise BadSetting(
                f"ISOSERVE_STATE_DIR: a restore into {path} did not end; "
                "run `python -m service state restore FILE` again"
            )

    def _lock(self, wait_seconds: float) -> None:
        end = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    owner = os.pread(self._file, 20, 0).decode(errors="replace")
                    os.close(self._file)
                    raise InUse(self.path, owner if owner.isdecimal() else "unknown") from error
                time.sleep(0.05)
        with suppress(OSError):  # on a full disk the number is missing, and nothing else
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(os.getpid()).encode(), 0)


def file_system(path: Path, root: Path = Path("/")) -> tuple[str, Risk | None]:
    """Return the type of the file system that holds a path, and what is wrong with it for state.

    The type is empty where the kernel does not tell.
    """
    kind, longest = "", 0
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/self/mountinfo").read_text().splitlines():
            mount, rest = line.split(" - ", 1)
            point = Path(mount.split()[4].replace("\\040", " "))
            if path.absolute().is_relative_to(point) and len(point.parts) >= longest:
                kind, longest = rest.split()[0], len(point.parts)
    return kind, next((risk for kinds, risk in _RISKS.items() if kind in kinds), None)


def measure_space(folder: Path) -> tuple[int, int] | None:
    """Return the total and the free bytes of a folder's file system, or None if unknown."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.total, usage.free
