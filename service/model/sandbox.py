"""A child process that does first what could end this one.

The child is a fork: it has everything imported already, and begins in milliseconds. It closes every
file it came with, opens none, and is stopped by the kernel when it takes too much time or memory.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..errors import count

_FAILED = "failed"
_CLOCK = 2  # seconds by the clock for each of a processor
_PAGE = resource.getpagesize()

_DEATHS = {
    signal.SIGSEGV: "read or wrote memory that is not its own",
    signal.SIGBUS: "read or wrote memory that is not its own",
    signal.SIGABRT: "damaged its own memory",
    signal.SIGFPE: "divided by zero",
    signal.SIGILL: "ran what is no code",
}


class ChildFailed(Exception):
    """The child did not come to an end of its own; the text says what became of it."""


def run_sandboxed(act: Callable[[], Any], seconds: int, memory: int) -> Any:
    """Call `act` in a child process and return what it returned, as JSON would.

    It may use `seconds` of a processor (twice that by the clock), and `memory` bytes beside what
    this process has.

    Raises:
        ChildFailed: it crashed, took too much, or raised an exception.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns that a lock may be held by another thread for ever. `act` takes none, and if
        # it does all the same, the clock ends it.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _run(act, writing, seconds, memory)
    os.close(writing)
    try:
        told = _read(reading, _CLOCK * seconds)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it has told all that it will
        _, status = os.waitpid(child, 0)
    if told is None:
        raise ChildFailed(
            f"took more than {count(_CLOCK * seconds, 'second')} (on a busy machine a sound file "
            "may, too: then try again)"
        )
    if not told:
        raise ChildFailed(_end(status, seconds))
    result = json.loads(told)
    if isinstance(result, dict) and _FAILED in result:
        raise ChildFailed(result[_FAILED])
    return result


def _run(act: Callable[[], Any], writing: int, seconds: int, memory: int) -> NoReturn:
    """Be the child."""
    code = 1
    try:
        # Nothing of the parent is let go of here: not its sockets, nor its database.
        gc.disable()
        faulthandler.disable()
        signal.setitimer(signal.ITIMER_REAL, _CLOCK * seconds + 1)  # even if the parent is gone
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        os.closerange(0, writing)
        os.closerange(writing + 1, 2**20)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
        _limit(resource.RLIMIT_AS, used + memory)
        _limit(resource.RLIMIT_CPU, seconds)
        _limit(resource.RLIMIT_NOFILE, 0)
        _limit(resource.RLIMIT_FSIZE, 0)
        _limit(resource.RLIMIT_CORE, 0)
        try:
            result = act()
        except MemoryError:
            result = {_FAILED: "needed far more memory than a forest of its size"}
        except Exception as error:
            result = {_FAILED: f"failed ({type(error).__name__}: {error})"}
        os.write(writing, json.dumps(result).encode())
        code = 0
    finally:
        os._exit(code)


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, hard))


def _read(file: int, seconds: float) -> bytes | None:
    """Read to the end; None when there is none in time."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    end, told = time.monotonic() + seconds, b""
    while True:
        if not poll.poll(1000 * max(0.0, end - time.monotonic())):
            return None
        part = os.read(file, 2**16)
        if not part:
            return told
        told += part


def _end(status: int, seconds: int) -> str:
    if not os.WIFSIGNALED(status):
        return "failed in a way it could not tell"
    number = os.WTERMSIG(status)
    if number == signal.SIGXCPU:
        return f"took more than {count(seconds, 'second')} of a processor"
    if number == signal.SIGKILL:
        return "was ended by the system, as for want of memory"
    return _DEATHS.get(signal.Signals(number), f"ended by {signal.Signals(number).name}")
