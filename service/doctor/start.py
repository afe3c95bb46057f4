"""Look at what a start reads: settings, port, model and state. The code of a start does it.

The state is looked at in a copy, so nothing is changed, and a service may use it meanwhile.
"""

import os
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from ..app import load_first, model_source, open_state
from ..capacity import ROOT
from ..errors import BadSetting
from ..probe import ask
from ..server import OPEN, is_open, listen
from ..serving.detector import Detector
from ..serving.reload import ModelSource
from ..settings import Settings, unknown_variables
from ..state.backup import NAMES, restore_backup, write_backup
from ..state.feedback.store import begin_feedback
from ..state.files import count_quarantined
from ..state.folder import InUse, StateFolder, file_system, measure_space
from ..state.records import MAX_BYTES
from .report import Report

_FOREVER = 100_000  # days; with them the clock is checked, and nothing is deleted
_DAY = 86_400  # seconds

_MORE = "free some, or name a folder on another disk in ISOSERVE_STATE_DIR"

_NEARLY_FULL = 0.1, 10e9  # share and bytes, as the alert IsoserveDiskNearlyFull has it


class Loaded(NamedTuple):
    """A model that was loaded as at the start."""

    source: ModelSource
    detector: Detector


def look_at_settings(report: Report) -> Settings | None:
    """Read the settings and the secrets; None if they are wrong."""
    settings = None
    with report.about("settings") as said:
        found = Settings.read()
        said.append("every variable has a valid value")
        for secret in (found.read_api_key, found.read_admin_token):
            secret()
        settings = found
    for sentence in unknown_variables():
        report.add("warning", "settings", f"{sentence}; it has no effect")
    if settings and is_open(settings):
        report.add("warning", "settings", f"ISOSERVE_HOST={settings.host}: {OPEN}")
    return settings


def look_at_port(report: Report, settings: Settings, runs: bool) -> None:
    """Listen on the port, or ask the service that does."""
    with report.about("port") as said:
        where = f"{settings.host} port {settings.port}"
        if runs:
            ready, answer = ask(settings.host, settings.port)
            if not ready:
                raise BadSetting(
                    f"a service runs with this state folder, and does not answer on {where} "
                    f"({answer}); give this command the settings of that service, or read its log"
                )
            said.append(f"the service answers on {where}: {answer}")
        else:
            listen(settings).close()
            said.append(f"{where} is free")


def look_at_model(report: Report, settings: Settings) -> Loaded | None:
    """Load the model and its card, and score a row."""
    loaded = None
    with report.about("model") as said:
        source = model_source(settings)
        loaded = Loaded(source, load_first(source, settings))
        model = loaded.detector.model
        said.append(f"{settings.model}, version {model.version}, is sound and scores a row")
    return loaded


def look_at_folder(report: Report, settings: Settings, root: Path = ROOT) -> bool | None:
    """Lock the state folder, look at its owner and its disk; return whether a service runs.

    None if the folder cannot be used.
    """
    folder, existed, runs = settings.state_dir, settings.state_dir.exists(), None
    with report.about("folder") as said:
        try:
            StateFolder(folder, wait_seconds=0)
            runs = False
            said.append(f"{folder.absolute()} can be written")
        except InUse as error:
            runs = True
            said.append(f"{folder.absolute()} is used by the running service {error.owner}")
        finally:
            if not existed and folder.exists():
                _remove_empty(folder)
    if runs is not None:
        if existed:
            _look_at_owners(report, folder)
        _look_at_disk(report, folder, root)
    return runs


def look_at_state(report: Report, settings: Settings, loaded: Loaded) -> dict[str, int]:
    """Begin with a copy of the state as the start does; return the sizes of its files."""
    folder, sizes = settings.state_dir, dict[str, int]()
    with tempfile.TemporaryDirectory(prefix="isoserve-doctor-", dir=_scratch(folder)) as scratch:
        copy = Path(scratch) / "state"
        with report.about("state", replace=(str(copy), str(folder))) as said:
            if _has_state(folder):
                write_backup(folder, file := Path(scratch) / "backup")
                with file.open("rb") as stream:
                    restore_backup(stream, copy)
            chosen = settings.model_copy(update={"state_dir": copy})
            open_state(chosen, *loaded)
            with closing(begin_feedback(copy, settings.window, settings.feedback_days or _FOREVER)):
                pass
            sizes = {one.name: one.stat().st_size for one in copy.iterdir()}
            said.append("every file is sound" if _has_state(folder) else "there is none yet")
    if quarantined := count_quarantined(folder):
        report.add(
            "warning",
            "state",
            f"{quarantined} damaged or outdated files are quarantined in {folder}: read the log of "
            "that time, then delete them",
        )
    return sizes


def look_at_space(report: Report, folder: Path, sizes: dict[str, int]) -> None:
    """Compare the free space with what the files of a start take."""
    space = measure_space(_existing(folder))
    if space is None:
        return
    total, free = space
    missing = sum(
        size for name, size in sizes.items() if not (folder / name).exists()
    )  # files that are there have all of their blocks
    share, most = _NEARLY_FULL
    if free < missing:
        text = f"{free:,} bytes are free, and a start needs {missing:,}: {_MORE}"
        report.add("fault", "space", f"{folder}: {text}")
    elif free < share * total and free < most:
        text = f"less than a tenth is free ({free:,} bytes): {_MORE}"
        report.add("warning", "space", f"{folder}: {text}")
    else:
        report.add("ok", "space", f"{free:,} bytes are free, and a start needs {missing:,}")


def look_at_clock(report: Report, settings: Settings) -> None:
    """Compare the clock with the times of the model file and the state files."""
    latest = 0.0
    for path in (settings.model, *(settings.state_dir / name for name in NAMES)):
        if path.exists():
            latest = max(latest, path.stat().st_mtime)
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
    if now < latest - _DAY:
        when = time.strftime("%Y-%m-%d", time.gmtime(latest))
        text = f"it says {shown} UTC, and files were written on {when}: set it right"
        report.add("fault", "clock", text)
    else:
        report.add("ok", "clock", f"{shown} UTC is after the last change of all files")


def _look_at_owners(report: Report, folder: Path) -> None:
    owner = folder.stat().st_uid
    others = [one for one in folder.iterdir() if one.lstat().st_uid != owner]
    if others:
        names = ", ".join(one.name for one in others[:3])
        report.add(
            "fault",
            "owner",
            f"{names}: owned by user {others[0].lstat().st_uid}, and the folder by {owner}, which "
            f"cannot use them: chown -R {owner} {folder}",
        )


def _look_at_disk(report: Report, folder: Path, root: Path) -> None:
    kind, risk = file_system(_existing(folder), root)
    if risk:
        level, text = risk
        report.add(level, "disk", f"{folder} is on {kind}: {text}")
    else:
        report.add("ok", "disk", f"the state folder is on {kind or 'a local file system'}")


def _existing(folder: Path) -> Path:
    """Return the folder, or the one in which it would be created."""
    folder = folder.absolute()
    return next(one for one in (folder, *folder.parents) if one.exists())


def _scratch(folder: Path) -> Path:
    """Return where a copy is written: the usual folder, or the state folder if it has no room."""
    here = _existing(folder)
    try:
        usual = Path(tempfile.gettempdir())
    except FileNotFoundError:  # none can be written
        return here
    used = sum(path.stat().st_size for path in here.glob("*") if path.name in NAMES)
    needed = 2 * used + MAX_BYTES  # a backup and its copy, and records that a start would create
    free = [space[1] if (space := measure_space(one)) else needed for one in (usual, here)]
    return here if free[0] < min(needed, free[1]) and os.access(here, os.W_OK) else usual


def _has_state(folder: Path) -> bool:
    return any((folder / name).exists() for name in NAMES)


def _remove_empty(folder: Path) -> None:
    """Remove a folder that only the lock of this look has created."""
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
