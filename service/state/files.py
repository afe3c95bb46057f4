"""Write, prove, open and quarantine the files of the state folder: one way for every kind.

A file is written whole under another name and then renamed. When it is opened it must prove that it
is a regular file of the right kind, complete and unchanged; else `Damaged` says why. The owner of
the file then quarantines it, keeps what is sound, and goes on with a new one.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging import getLogger
from pathlib import Path
from typing import Any
from zlib import crc32

from ..errors import BadSetting, Unavailable
from ..files import NotRegular, open_regular, read_regular

logger = getLogger(__name__)

MOST_QUARANTINED = 3
"""How many quarantined files are kept for each mapped file."""

# The end of a quarantined file's name: when it was renamed, or a number from an earlier version.
_WHEN = r"\.(\d{4}-\d\d-\d\dT\d{6}-\d{6}Z|\d+)"


class Damaged(ValueError):
    """A state file is not as it was written; the text is the reason, such as "it is cut short"."""


def open_file(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a state file; Damaged if it is not a regular file, OSError if it cannot be opened."""
    try:
        return open_regular(path, flags)
    except NotRegular as error:
        raise Damaged(error.strerror) from error


def read_file(path: Path, most: int) -> bytes:
    """Read a state file; raises as `open_file` does, and Damaged if it is larger than `most`."""
    size = path.stat().st_size
    if size > most:
        raise Damaged(f"it has {size:,} bytes, more than {most:,}")
    try:
        return read_regular(path, most)
    except NotRegular as error:
        raise Damaged(error.strerror) from error


def replace_file(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file whole or not at all, and wait until it is on the disk; OSError if it fails."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(file)
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def seal(fields: dict[str, Any]) -> bytes:
    """Return a JSON object on one line that ends with its own check sum.

    >>> seal({"threshold": 0.5}).decode().rstrip()
    '{"threshold": 0.5, "check": "32a03a7a"}'
    """
    text = json.dumps(fields, allow_nan=False)
    return f'{text[:-1]}, "check": "{crc32(text.encode()):08x}"}}\n'.encode()


def unseal(line: bytes) -> dict[str, Any]:
    """Return the fields of a sealed line; Damaged if any byte is not as it was written."""
    try:
        fields = json.loads(line)
        del fields["check"]
        if seal(fields) == line:
            return dict(fields)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise Damaged("its check sum is wrong")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise Unavailable if `path` cannot be written: the change must not be made.

    The path is for the log only: a client may not learn it.
    """
    try:
        yield
    except (OSError, Damaged) as error:
        reason = getattr(error, "strerror", None) or str(error)
        logger.error("%s cannot be written (%s), so nothing was changed", path, reason)
        raise Unavailable(
            f"{path.name} cannot be written ({reason}), so nothing was changed"
        ) from error


def quarantine(
    path: Path, reason: str, keep: int | None = None, beside: Sequence[str] = ()
) -> Path:
    """Rename an unusable file to NAME.TIME, with the time in UTC; log it and return the new path.

    Keep the last `keep` quarantined files, by default all. Files with the same name and one of the
    endings in `beside` are renamed together with it.

    Raises:
        BadSetting: the file cannot be renamed.
    """
    other = next_quarantine(path)
    before = quarantined(path)
    try:
        for ending in ("", *beside):
            with suppress(FileNotFoundError):
                Path(f"{path}{ending}").rename(f"{other}{ending}")
        logger.warning(
            "%s is quarantined as %s: %s; a new file is created", path, other.name, reason
        )
        for old in before[: max(0, len(before) + 1 - keep)] if keep else ():
            delete(old)
            logger.warning("%s is deleted: only the last %d quarantined are kept", old, keep)
    except OSError as error:
        raise BadSetting(
            f"ISOSERVE_STATE_DIR: {path} cannot be used ({reason}) nor quarantined "
            f"({error.strerror}); move it away"
        ) from error
    return other


def next_quarantine(path: Path) -> Path:
    """Return the name under which `path` would be quarantined now."""
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S-%fZ")
    return path.with_name(f"{path.name}.{when}")


def quarantined(path: Path) -> list[Path]:
    """Return the quarantined files of `path`, the oldest first."""
    ours = re.compile(re.escape(path.name) + _WHEN)
    found = [one for one in path.parent.glob(f"{path.name}.*") if ours.fullmatch(one.name)]
    return sorted(found, key=lambda one: (not one.suffix[1:].isdecimal(), _order(one)))


def count_quarantined(folder: Path) -> int | None:
    """Return how many quarantined files a folder has; None if it cannot be read."""
    try:
        return sum(re.search(_WHEN + "$", one.name) is not None for one in folder.iterdir())
    except OSError:
        return None


def delete(path: Path) -> None:
    """Delete a file, or whatever has its name; OSError if that fails."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _order(path: Path) -> tuple[int, str]:
    number = path.suffix[1:]
    return (int(number), "") if number.isdecimal() else (0, path.name)
