"""A real control group with a limit of memory, where this machine lets tests make one."""

import contextlib
import os
import time
from pathlib import Path

import pytest

_TOP = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_group(limit):
    """Yield the file that takes a process into a new group of `limit` bytes; skip where none is."""
    version_2 = (_TOP / "cgroup.controllers").exists()
    name = "memory.max" if version_2 else "memory.limit_in_bytes"
    group = (_TOP if version_2 else _TOP / "memory") / f"isoserve-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text(str(limit))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group for memory can be made here ({error})")
    try:
        yield group / "cgroup.procs"
    finally:
        for _ in range(100):  # until its processes have ended
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)
