"""How much memory and how many processes a service needs, and what its control group allows.

Containers are control groups of Linux. Both versions of these are read, as
https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/memory.html describe them.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .errors import BadSetting, count

ROOT = Path("/")

_MB = 2**20

# Measured: the least limit under which services of 1 to 8 workers and models of 1 to 212 MB start.
_ALONE, _WORKER = 106 * _MB, 10.3 * _MB  # bytes without a model; more for each worker
_SHARED = 1.5  # bytes for each byte of the model, in memory that all workers share
_LOADER, _LOADING = 80 * _MB, 3.6  # the same while the model is loaded, before there are workers
_COMPILING = 32 * _MB  # more, where no machine code is cached

_THREADS = 10  # of a worker, besides those that answer requests

_UNLIMITED = 2**62  # version 1 has no word for it, and writes the largest number of pages

_FILES = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max", "pids.max")}
"""The file with the limit of a controller, in version 2 and in version 1."""


# Limit, usage, and the part of it that the kernel takes back, in version 2 and in version 1.
_USAGE = (
    ("memory.max", "memory.current", "file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
)


class Limit(NamedTuple):
    """A limit of a control group, and the file that sets it."""

    value: int
    file: Path


def memory_needed(model_bytes: int, workers: int, compiles: bool = False) -> int:
    """Return about how many bytes of memory a start takes, before the first request.

    `model_bytes` are those of the model file, decompressed. `compiles`: no machine code is cached.
    """
    serving = _ALONE + _WORKER * workers + _SHARED * model_bytes
    loading = _LOADER + _LOADING * model_bytes
    return round(max(serving, loading)) + _COMPILING * compiles


def processes_needed(workers: int, threads: int) -> int:
    """Return how many processes and threads a service has at most."""
    return 2 + workers * (_THREADS + 2 * threads + (os.cpu_count() or 1))


def find_limit(controller: str, root: Path = ROOT) -> Limit | None:
    """Return the lowest limit of "memory" (bytes) or "pids" for this process; None without one."""
    return min(_limits(controller, root), default=None)


def require_memory(
    model_bytes: int, workers: int, compiles: bool = False, root: Path = ROOT
) -> None:
    """Raise BadSetting if the memory limit is below what a start takes: see `memory_needed`.

    The kernel would kill the service without a word. Swap that is free counts as memory.
    """
    limit, needed = find_limit("memory", root), memory_needed(model_bytes, workers, compiles)
    if limit and limit.value + _free_swap(root) < needed:
        model = f"a model of {show_bytes(model_bytes)}"
        compiling = ", and the scorer to compile first," if compiles else ""
        raise BadSetting(
            f"a start with {count(workers, 'worker')} and {model}{compiling} takes about "
            f"{show_bytes(needed)} of memory, and {limit.file} allows {show_bytes(limit.value)}; "
            "raise that limit" + (", or lower ISOSERVE_WORKERS" if workers > 1 else "")
        )


def find_room(root: Path = ROOT) -> int | None:
    """Return the bytes that this process's own group may still take; None without a limit."""
    for folder, _ in _groups("memory", root):
        for limit, usage, files in _USAGE:
            with suppress(OSError, ValueError):
                allowed, used = (int((folder / name).read_text()) for name in (limit, usage))
                lines = (folder / "memory.stat").read_text().splitlines()
                stat = dict(line.split(maxsplit=1) for line in lines)
                return allowed - used + int(stat[files]) if allowed < _UNLIMITED else None
    return None


def show_bytes(number: int) -> str:
    """Return a number of bytes as it is best read.

    >>> show_bytes(130_000_000), show_bytes(2**31), show_bytes(1000)
    ('124 MiB', '2.0 GiB', '1 KiB')
    """
    if number >= 2**30:
        return f"{number / 2**30:.1f} GiB"
    return f"{number / _MB:.0f} MiB" if number >= _MB else f"{-(-number // 1024)} KiB"


def _limits(controller: str, root: Path) -> Iterator[Limit]:
    """Yield the limits of this process's group and of those above it."""
    for folder, name in _groups(controller, root):
        with suppress(OSError, ValueError):  # "max" is no number
            value = int((folder / name).read_text())
            if value < _UNLIMITED:
                yield Limit(value, folder / name)


def _groups(controller: str, root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folder of each group, and the name of the file in it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, names, path = line.split(":", 2)
        if number == "0" or controller in names.split(","):
            is_second = number == "0"
            top = root / "sys/fs/cgroup" / ("" if is_second else controller)
            group = top / path.lstrip("/")  # of the host, where the group's own is at the top
            for folder in (group, *group.parents):
                yield folder, _FILES[controller][0 if is_second else 1]
                if folder == top:
                    break


def _free_swap(root: Path) -> int:
    with suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("SwapFree:"):
                return int(line.split()[1]) * 1024
    return 0
