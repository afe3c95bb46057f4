"""Run a function in a child process, because it could crash this one.

The child is a fork: everything is imported already, and it starts in milliseconds. It closes all
inherited files, can open none, and the kernel stops it if it takes too much time or memory.
"""

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

_CLOCK = 2  # seconds of elapsed time for each second of processor time
_PAGE = resource.getpagesize()

_DEATHS = {
    signal.SIGSEGV: "read or wrote memory that is not its own",
    signal.SIGBUS: "read or wrote memory that is not its own",
    signal.SIGABRT: "damaged its own memory",
    signal.SIGFPE: "divided by zero",
    signal.SIGILL: "ran an illegal instruction",
    signal.SIGXCPU: "took more than {seconds} of processor time",
    signal.SIGKILL: "was killed by the system, perhaps for lack of memory",
}


class ChildFailed(Exception):
    """The child returned nothing; the text is the rest of a sentence, "the child process ..."."""


def run_sandboxed(act: Callable[[], Any], seconds: int, memory: int) -> Any:
    """Call `act` in a child process and return its result, which passes through JSON.

    `seconds` limits the processor time, and twice that the elapsed time; `memory` is the number of
    bytes that it may allocate.

    Raises:
        ChildFailed: it crashed, exceeded a limit, or raised an exception.
    """
    reading, writing = os.pipe()
    child = _fork()
    if child == 0:
        _run(act, writing, seconds, memory)
    os.close(writing)
    try:
        output = _read(reading, _CLOCK * seconds)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it has written everything, or is too late
        _, status = os.waitpid(child, 0)
    if not output:
        raise ChildFailed(_describe(status, seconds))
    failure, result = json.loads(output)
    if failure:
        raise ChildFailed(failure)
    return result


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns that a lock of another thread stays locked in the child. `act` should take
        # none; if it does, the time limit ends it.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _run(act: Callable[[], Any], writing: int, seconds: int, memory: int) -> NoReturn:
    """Do the child's work, and exit."""
    code = 1
    try:
        gc.disable()  # no finalizer of the parent's objects, such as its database, may run here
        faulthandler.disable()
        signal.setitimer(signal.ITIMER_REAL, _CLOCK * seconds + 1)  # even if the parent is gone
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        os.closerange(0, writing)
        os.closerange(writing + 1, 2**20)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
        _limit(resource.RLIMIT_AS, used + memory)
        _limit(resource.RLIMIT_CPU, seconds)
        for nothing in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            _limit(nothing, 0)
        failure = result = None
        try:
            result = act()
        except MemoryError:
            failure = "needed far more memory than a forest of this size should"
        except Exception as error:
            failure = f"failed ({type(error).__name__}: {error})"
        os.write(writing, json.dumps([failure, result]).encode())
        code = 0
    finally:
        os._exit(code)


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _read(file: int, seconds: int) -> bytes:
    """Read to the end of a pipe; ChildFailed if the end does not come in time."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    end, output = time.monotonic() + seconds, b""
    while True:
        if not poll.poll(1000 * max(0.0, end - time.monotonic())):
            raise ChildFailed(
                f"took more than {count(seconds, 'second')} (on a busy machine a sound file may, "
                "too: then try again)"
            )
        part = os.read(file, 2**16)
        if not part:
            return output
        output += part


def _describe(status: int, seconds: int) -> str:
    """Return what ended a child that wrote nothing."""
    if not os.WIFSIGNALED(status):
        return "ended without a result"
    number = signal.Signals(os.WTERMSIG(status))
    text = _DEATHS.get(number, f"was ended by {number.name}")
    return text.format(seconds=count(seconds, "second"))
