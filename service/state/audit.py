"""The operator's changes while the service runs: an audit log and the chosen threshold.

Both are files in the state folder that only their owner may read. `audit.jsonl` grows by one JSON
line for each change, which is on the disk before the change is made. `threshold.json` contains the
chosen threshold, and the model file and the setting that it was chosen for. The choice is valid
while both are the same, also after a restart.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .folder import writing

AUDIT_NAME = "audit.jsonl"
CHOICE_NAME = "threshold.json"


class AuditLog:
    """The two files in a state folder."""

    def __init__(self, folder: Path) -> None:
        self._audit, self._choice = folder / AUDIT_NAME, folder / CHOICE_NAME

    def write(self, who: str, what: str, old: Any, new: Any) -> None:
        """Append a line and wait until it is on the disk; Unavailable if it cannot be written."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"when": when, "who": who, "what": what, "old": old, "new": new}
        with writing(self._audit):
            _append(self._audit, json.dumps(line).encode() + b"\n")

    def choose(self, threshold: float | None, sha256: str, setting: float) -> None:
        """Store the threshold chosen instead of `setting` for the model file `sha256`.

        None deletes an earlier choice. Unavailable if it cannot be written.
        """
        with writing(self._choice):
            if threshold is None:
                self._choice.unlink(missing_ok=True)
                return
            choice = {"threshold": threshold, "sha256": sha256, "setting": setting}
            unfinished = self._choice.with_suffix(".new")
            unfinished.unlink(missing_ok=True)
            _append(unfinished, json.dumps(choice).encode())
            unfinished.rename(self._choice)

    def chosen(self, sha256: str, setting: float) -> tuple[float | None, str]:
        """Return the chosen threshold, or None and why an earlier choice is no longer valid.

        The reason is empty if no threshold was ever chosen.
        """
        try:
            choice = json.loads(self._choice.read_bytes())
            threshold = float(choice["threshold"])
            former = choice["sha256"], choice["setting"]
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            return None, f"{self._choice} is damaged ({type(error).__name__})"
        if former[0] != sha256:
            return None, f"it was chosen for the model {str(former[0])[:12]}"
        if former[1] != setting:
            return None, f"it was chosen instead of the setting {former[1]}, which is {setting} now"
        return threshold, ""


def _append(path: Path, data: bytes) -> None:
    """Append bytes to a file, all or none, and wait until they are on the disk."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        before = os.fstat(file).st_size
        if os.write(file, data) != len(data):
            os.ftruncate(file, before)
            raise OSError(None, "the disk is full")
        os.fsync(file)
    finally:
        os.close(file)
