"""Look at what a service needs of its machine: versions, memory, limits, variables, the cache."""

import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_NPROC, getrlimit

from ..capacity import (
    ROOT,
    find_limit,
    find_room,
    memory_needed,
    processes_needed,
    require_memory,
    show_bytes,
)
from ..model.kernels import are_compiled
from ..model.pickles.formats import estimate_size
from ..model.scorer import CompiledForest
from ..server import MOST_CONNECTIONS, most_connections
from ..settings import LABELS, PARAMETERS, PREFIX, SELDON_VARIABLES, Settings
from .report import Report

# Variables that other programs read, or that look as if they were read here.
_NO_EFFECT = {
    "PORT": "ISOSERVE_PORT is the port",
    "WEB_CONCURRENCY": "ISOSERVE_WORKERS is the number of workers",
    "GUNICORN_CMD_ARGS": "isoserve configures gunicorn itself",
    "PROMETHEUS_MULTIPROC_DIR": "counts are in ISOSERVE_STATE_DIR",
}
_HARMFUL = {
    "NUMBA_DISABLE_JIT": "the forest must be compiled",
    "NUMBA_CACHE_LOCATOR_CLASSES": "machine code may be compiled again at each start",
    "PYTHONPATH": "modules there come before those of isoserve and its libraries",
    "LD_PRELOAD": "it changes the libraries that isoserve runs with",
}

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)((?:[<>=~]+[0-9.]+,?)*)\Z")
_BOUND = re.compile(r"([<>=~]+)([0-9.]+)")


def look_at_versions(report: Report) -> None:
    """Compare Python and the libraries with what isoserve requires."""
    name = f"Python {platform.python_version()} on {platform.machine()}"
    try:
        installed = metadata.distribution("isoserve")
    except metadata.PackageNotFoundError:
        report.add("ok", "versions", f"{name}; isoserve runs from its source")
        return
    if not _satisfies(platform.python_version(), installed.metadata["Requires-Python"]):
        wanted = installed.metadata["Requires-Python"]
        report.add("fault", "versions", f"{name}: isoserve needs Python {wanted}")
    wrong = [text for text in installed.requires or () if _is_wrong(text)]
    for text in wrong:
        report.add(
            "fault",
            "versions",
            f"{text} is required, and {_version(text) or 'none'} is installed: install "
            "requirements/serve.txt",
        )
    if not wrong:
        report.add("ok", "versions", f"{name}, isoserve {installed.version}, its libraries fit")


def look_at_memory(report: Report, settings: Settings, root: Path = ROOT) -> bool:
    """Compare the limit of memory with what a start and a change of the model take.

    Return whether there is room to load the model now, perhaps beside the running service.
    """
    size, workers = estimate_size(settings.model), settings.workers
    compiles, limit = not are_compiled(), find_limit("memory", root)
    needed = memory_needed(size, workers, compiles)
    changes = memory_needed(size, workers) + 2 * size * workers
    with report.about("memory") as said:
        require_memory(size, workers, compiles, root)
        allowed = show_bytes(limit.value) if limit else "no limit"
        said.append(f"{allowed}; a start takes about {show_bytes(needed)}, and requests more")
    can_change = settings.watch or settings.read_admin_token()
    if limit and needed <= limit.value < changes and can_change:
        report.add(
            "warning",
            "memory",
            f"{limit.file} allows {show_bytes(limit.value)}, and loading another model while this "
            f"one is served takes about {show_bytes(changes)}: raise the limit",
        )
    room = find_room(root)
    if room is not None and room < memory_needed(size, 1, compiles):
        report.add(
            "warning",
            "memory",
            f"{show_bytes(room)} are free under that limit, too few to load the model here: model "
            "and state are not looked at",
        )
        return False
    return True


def look_at_limits(
    report: Report, settings: Settings, sizes: Mapping[str, int], root: Path = ROOT
) -> None:
    """Compare the limits of files and processes with what a service uses."""
    files = getrlimit(RLIMIT_NOFILE)[0]
    if (kept := most_connections()) < MOST_CONNECTIONS:
        report.add(
            "warning",
            "files",
            f"{files} open files allow {kept} connections for each worker: raise the limit to "
            f"{MOST_CONNECTIONS + 100} (ulimit -n)",
        )
    else:
        report.add("ok", "files", f"{files} may be open, and {kept} are for connections")
    _look_at_processes(report, settings, root)
    most, largest = getrlimit(RLIMIT_FSIZE)[0], max(sizes.values(), default=0)
    if most != RLIM_INFINITY and most < largest:
        text = f"no file may be larger than {most:,} bytes, and records.bin has {largest:,}"
        report.add("fault", "files", f"{text}: raise the limit (ulimit -f)")


def look_at_variables(report: Report, variables: Mapping[str, str] = os.environ) -> None:
    """Name the variables of other programs that are read here, or that look so."""
    before = len(report.findings)
    for name, why in _HARMFUL.items():
        if variables.get(name):
            report.add("warning", "variables", f"{name} is set: {why}; unset it")
    for name, why in _NO_EFFECT.items():
        if variables.get(name):
            report.add("warning", "variables", f"{name} has no effect: {why}")
    taken = [
        f"{name}={variables[name]}"
        for name, field in SELDON_VARIABLES.items()
        if variables.get(name, "").strip() and not variables.get(PREFIX + field.upper())
    ]
    taken += [name for name in (PARAMETERS, LABELS) if variables.get(name)]
    if taken:
        report.add("ok", "variables", f"from Seldon: {', '.join(taken)}")
    elif len(report.findings) == before:
        report.add("ok", "variables", "none of another program's is read")


def look_at_cache(report: Report, scorer: CompiledForest) -> None:
    """Tell whether machine code is kept, or compiled again at each start."""
    folder = scorer.cache
    if folder is None:
        report.add(
            "warning",
            "cache",
            "the scorer is compiled again at each start and in each worker, because no folder for "
            "its machine code can be written: name one in NUMBA_CACHE_DIR",
        )
    else:
        report.add("ok", "cache", f"the machine code of the scorer is kept in {folder}")


def _look_at_processes(report: Report, settings: Settings, root: Path) -> None:
    needed = processes_needed(settings.workers, settings.threads)
    limits = [(limit.value, str(limit.file))] if (limit := find_limit("pids", root)) else []
    of_user = getrlimit(RLIMIT_NPROC)[0]
    if of_user != RLIM_INFINITY and os.geteuid() != 0:  # it does not hold for root
        limits.append((of_user, "ulimit -u"))
    most, where = min(limits, default=(needed, ""))
    if most < needed:
        text = f"{where} allows {most} processes and threads, and {needed} may be needed"
        report.add("fault", "processes", f"{text}: raise it, or lower ISOSERVE_THREADS")
    else:
        report.add("ok", "processes", f"{needed} processes and threads may be started")


def _version(requirement: str) -> str | None:
    found = _REQUIREMENT.match(requirement)
    try:
        return metadata.version(found[1]) if found else None
    except metadata.PackageNotFoundError:
        return None


def _is_wrong(requirement: str) -> bool:
    """Return whether a library is missing, or has another version; extras do not count."""
    found = _REQUIREMENT.match(requirement)
    if found is None:  # with a marker: of an extra, which serving does not need
        return False
    version = _version(requirement)
    return version is None or not _satisfies(version, found[2])


def _satisfies(version: str, bounds: str) -> bool:
    """Return whether a version lies within bounds such as ">=3.1,<4" or "~=27.0".

    >>> _satisfies("27.3.1", "~=27.0"), _satisfies("4.0", ">=3.1,<4"), _satisfies("3.1rc1", ">=3")
    (True, False, True)
    """
    found = _numbers(version)
    for sign, bound in _BOUND.findall(bounds):
        wanted = _numbers(bound)
        if sign in {">=", "~="} and found < wanted:
            return False
        if sign == "<" and found >= wanted:
            return False
        if sign == "~=" and found[: len(wanted) - 1] != wanted[:-1]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"[0-9.]*[0-9]", version)
    return tuple(map(int, found[0].split("."))) if found else ()
