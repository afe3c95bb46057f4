"""Find the least memory limit under which a service starts.

    python -m benchmarks.limits

It prints the table of docs/operate/doctor.md, for which it makes a control group and so needs root.
A service has a group of its own and does not check the limit itself. It has started if it is ready,
has all of its workers, and the kernel has killed none of its processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from service.capacity import memory_needed

from .forests import subject
from .servers import free_port
from .sizes import MODELS, write

TRIALS = (
    ("small", 1, True), ("small", 2, True), ("small", 8, True), ("small", 2, False),
    ("seldon", 2, True), ("deep", 1, True),
)  # fmt: skip
"""Model, workers, and whether the scorer's machine code is kept from an earlier start."""

STEP = 2
"""MiB: a limit that is as much lower was too little."""

SETTLE = 1.0
"""Seconds in which workers allocate what they need before the first request."""

_MB = 2**20
_CGROUPS = Path("/sys/fs/cgroup")

# Enters the group, and becomes a service that leaves the check of its limit to the kernel.
_START = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
from service.commands import serve
serve.require_memory = lambda *_, **__: None
serve.serve()
"""


def main() -> None:
    """Print the table in Markdown, a row as soon as it is known."""
    print("| model | file | workers | machine code | least limit | figure |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, workers, is_kept in TRIALS:
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            write(folder, subject(name))
            size = (folder / "model.pickle").stat().st_size
            figure = memory_needed(size, workers, compiles=not is_kept) // _MB
            least = find_least(folder, workers, is_kept, figure)
        kept = "kept" if is_kept else "compiled"
        sizes = f"{size / _MB:.1f} MiB | {workers} | {kept} | {least} MiB | {figure} MiB"
        print(f"| {MODELS[name]} | {sizes} |", flush=True)


def find_least(folder: Path, workers: int, is_kept: bool, guess: int) -> int:
    """Return the least limit in MiB, to within STEP, under which a service becomes ready."""
    enough = guess * 3 // 2
    if not starts(folder, workers, is_kept, enough):
        raise SystemExit(f"no start with {enough} MiB of memory, which is far above the figure")
    too_little = guess // 2
    while enough - too_little > STEP:
        middle = (enough + too_little) // 2
        if starts(folder, workers, is_kept, middle):
            enough = middle
        else:
            too_little = middle
    return enough


def starts(folder: Path, workers: int, is_kept: bool, limit: int) -> bool:
    """Return whether a service becomes ready in a group of `limit` MiB; end it."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=folder) as own, group(limit * _MB) as control:
        variables = {
            "ISOSERVE_PORT": str(port),
            "ISOSERVE_WORKERS": str(workers),
            "ISOSERVE_MODEL": str(folder / "model.pickle"),
            "ISOSERVE_STATE_DIR": f"{own}/state",
            "NUMBA_CACHE_DIR": str(folder / "cache") if is_kept else f"{own}/cache",
        }
        command = [sys.executable, "-c", _START, str(control / "cgroup.procs")]
        environment = os.environ | variables
        nothing = subprocess.DEVNULL
        with subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=nothing, stderr=nothing
        ) as process:
            try:
                if not becomes_ready(process, port):
                    return False
                while len((control / "cgroup.procs").read_text().split()) <= workers:
                    if killed(control):
                        return False
                    time.sleep(0.05)
                time.sleep(SETTLE)
                return not killed(control)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def becomes_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """Return whether a service is ready before it ends, or before two minutes have passed."""
    limit = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < limit:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError, HTTPException):
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return True
        connection.close()
        time.sleep(0.05)
    return False


def killed(control: Path) -> bool:
    """Return whether the kernel has killed a process of a control group."""
    for name in ("memory.events", "memory.oom_control"):  # of version 2, and of version 1
        with suppress(FileNotFoundError):
            lines = (control / name).read_text().splitlines()
            return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)
    raise SystemExit(f"{control} does not tell how many processes were killed")


@contextmanager
def group(limit: int) -> Iterator[Path]:
    """Yield the folder of a new control group of `limit` bytes."""
    is_second = (_CGROUPS / "cgroup.controllers").exists()
    folder = _CGROUPS / ("" if is_second else "memory") / f"isoserve-limits-{os.getpid()}"
    folder.mkdir()
    try:
        name = "memory.max" if is_second else "memory.limit_in_bytes"
        (folder / name).write_text(str(limit))
        yield folder
    finally:
        for _ in range(100):  # until its processes have ended
            with suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.05)


if __name__ == "__main__":
    main()
