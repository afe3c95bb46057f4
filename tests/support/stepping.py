"""Stop a process after single machine instructions, as a `kill -9` could.

By default it stops after every seventh instruction; with ISOSERVE_TEST_NIGHTLY=1 after each.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Iterator
from zlib import crc32

import pytest

_TRACEME, _KILL, _SINGLESTEP = 0, 8, 9  # requests of ptrace(2)

EVERY = 1 if os.environ.get("ISOSERVE_TEST_NIGHTLY") == "1" else 7

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _ptrace(request: int, pid: int) -> int:
    return int(_libc.ptrace(request, pid, None, None))


def steps(
    action: Callable[[], object], prepare: Callable[[], object], every: int = EVERY
) -> Iterator[int]:
    """Run `prepare` and then `action` in a child; yield after each `every`th instruction of it.

    Shared memory then contains what killing the child there would leave. The first
    instruction depends on the test's name only. Closing the iterator kills the child.
    """
    first = crc32(os.environ.get("PYTEST_CURRENT_TEST", "").encode()) % every
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            prepare()
            if _ptrace(_TRACEME, 0) == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
                action()
                status = 0
            elif ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
                status = 77
        finally:
            os._exit(status)
    alive = True
    try:
        number = 0
        while True:
            _, status = os.waitpid(pid, 0)
            if not os.WIFSTOPPED(status):
                alive = False
                break
            if number and number % every == first:
                yield number
            number += 1
            _ptrace(_SINGLESTEP, pid)
    finally:
        if alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) == 77:
        pytest.skip("this machine does not let a process trace its child")
    assert os.waitstatus_to_exitcode(status) == 0
