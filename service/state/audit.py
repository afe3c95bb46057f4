"""The operator's changes while the service runs: an audit log and the chosen threshold.

Both are files in the state folder that only their owner may read. `audit.jsonl` grows by one sealed
line of JSON for each change, which is on the disk before the change is made. `threshold.json`
contains the chosen threshold, and the model file and the setting that it was chosen for. The choice
is valid while both are the same, also after a restart; a share in its place suits every model.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import BadSetting
from ..threshold_choice import ThresholdChoice
from .files import Damaged, open_file, quarantine, read_file, replace_file, seal, unseal, writing

logger = logging.getLogger(__name__)

AUDIT_NAME = "audit.jsonl"
CHOICE_NAME = "threshold.json"

_FIELDS = ("when", "who", "what", "old", "new")

# The most bytes of each file: a line has some 300, a choice some 150.
MOST_AUDIT, _MOST_CHOICE = 2**28, 2**16


class AuditLog:
    """The two files in a state folder."""

    def __init__(self, folder: Path) -> None:
        """Use the files in `folder`; keep only the sound lines of a damaged log.

        Raises:
            BadSetting: the log cannot be read or written.
        """
        self._audit, self._choice = folder / AUDIT_NAME, folder / CHOICE_NAME
        try:
            self._check_lines()
        except OSError as error:
            raise BadSetting(
                f"ISOSERVE_STATE_DIR: {self._audit} cannot be used ({error.strerror})"
            ) from error

    @contextmanager
    def recording(self, who: str, *changes: tuple[str, Any, Any]) -> Iterator[None]:
        """Append a line for each change (what, old, new); take them back if the block fails.

        The lines are on the disk before the block begins. Unavailable if they cannot be written.
        """
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        lines = (seal(dict(zip(_FIELDS, (when, who, *change), strict=True))) for change in changes)
        with writing(self._audit):
            size = _append(self._audit, b"".join(lines))
        try:
            yield
        except BaseException:
            with suppress(OSError):
                os.truncate(self._audit, size)
            raise

    def read(self) -> list[dict[str, Any]]:
        """Return all changes, the oldest first: when, who, what, old and new; none if unreadable.

        A line that is damaged, or being written, is left out.
        """
        lines: list[bytes] = []
        with suppress(OSError, Damaged):
            lines = read_file(self._audit, MOST_AUDIT).splitlines(keepends=True)
        sound = (json.loads(line) for line in lines if _is_sound(line))
        return [{name: change[name] for name in _FIELDS} for change in sound]

    def report_missing(self, changes: int) -> None:
        """Log if there are fewer lines than changes: whole lines are lost."""
        lines = 0
        with suppress(OSError, Damaged):
            lines = read_file(self._audit, MOST_AUDIT).count(b"\n")
        if lines < changes:
            logger.warning(
                "%s has %d lines, and %d changes were made: the others are lost",
                self._audit, lines, changes,
            )  # fmt: skip

    def choose(self, choice: ThresholdChoice | None, sha256: str, setting: ThresholdChoice) -> None:
        """Store what was chosen instead of `setting` while the model file `sha256` was served.

        None deletes an earlier choice. Unavailable if it cannot be written.
        """
        with writing(self._choice):
            if choice is None:
                self._choice.unlink(missing_ok=True)
                return
            stored = {"threshold": choice.to_json(), "sha256": sha256, "setting": setting.to_json()}
            replace_file(self._choice, [seal(stored)])

    def chosen(self, sha256: str, setting: ThresholdChoice) -> tuple[ThresholdChoice | None, str]:
        """Return what was chosen, or None and why an earlier choice is no longer valid.

        A share is valid for every model. The reason is empty if nothing was ever chosen.
        """
        try:
            return _read_choice(self._choice, sha256, setting)
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{self._choice} cannot be read ({error.strerror})"
        except Damaged as error:
            quarantine(self._choice, str(error))
            return None, f"{self._choice} was damaged"

    def _check_lines(self) -> None:
        """Quarantine a log with damaged lines, and begin a new one with the sound lines."""
        sound, damaged = [], []
        try:
            lines = read_file(self._audit, MOST_AUDIT).splitlines(keepends=True)
        except FileNotFoundError:
            return
        except Damaged as error:
            quarantine(self._audit, str(error))
            return
        for number, line in enumerate(lines, 1):
            if _is_sound(line):
                sound.append(line)
            else:
                damaged.append(str(number))
        if damaged:
            which = ", ".join(damaged[:5]) + (", ..." if len(damaged) > 5 else "")
            reason = f"of its {len(lines)} lines these are damaged: {which}; the others are kept"
            quarantine(self._audit, reason)
            replace_file(self._audit, sound)


def read_choice(folder: Path, sha256: str, setting: ThresholdChoice) -> ThresholdChoice:
    """Return what a service with this state folder flags by; nothing is written."""
    with suppress(OSError, Damaged):
        return _read_choice(folder / CHOICE_NAME, sha256, setting)[0] or setting
    return setting


def _read_choice(
    path: Path, sha256: str, setting: ThresholdChoice
) -> tuple[ThresholdChoice | None, str]:
    """Read `AuditLog.chosen` from its file. OSError or Damaged if it cannot be read."""
    stored = unseal(read_file(path, _MOST_CHOICE))
    choice, before = map(ThresholdChoice.from_json, (stored["threshold"], stored["setting"]))
    if choice.share is None and stored["sha256"] != sha256:
        return None, f"it was chosen for the model {stored['sha256'][:12]}"
    if before != setting:
        return None, f"it was chosen instead of the setting {before}, which is {setting} now"
    return choice, ""


def _is_sound(line: bytes) -> bool:
    """Return whether a line is sealed, or as an earlier version wrote it."""
    with suppress(Damaged):
        unseal(line)
        return True
    try:
        return tuple(json.loads(line)) == _FIELDS and line.endswith(b"}\n")
    except (ValueError, TypeError, RecursionError):
        return False


def _append(path: Path, data: bytes) -> int:
    """Append whole lines, all or none, and wait until they are on the disk.

    Return the size of the file before. A last line that was not written to its end stays a line.
    """
    file = open_file(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        before = os.fstat(file).st_size
        if before and os.pread(file, 1, before - 1) != b"\n":
            data = b"\n" + data
        if os.write(file, data) != len(data):
            os.ftruncate(file, before)
            raise OSError(None, "the disk is full")
        os.fsync(file)
        return before
    finally:
        os.close(file)
