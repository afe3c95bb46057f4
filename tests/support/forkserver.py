"""Run Python commands in forks of a process that has already imported the service and its kernels.

    python -m tests.support.forkserver

A cold start of the service takes seconds, a fork milliseconds. `running.Python` starts this once in
each test process and sends it orders, one line of JSON each:

    {"command": [...], "environment": {...}, "stdout": path, "stderr": path}    answer: process id
    {"wait": process id}                                                        answer: exit code

A child does what a new `python` with these arguments would do, in its own process group. When the
orders end, all remaining children are killed.
"""

import contextlib
import gc
import json
import os
import runpy
import signal
import sys
import warnings

COMMANDS = (
    "counts", "doctor", "feedback", "model", "records", "score", "serve", "state", "threshold"
)  # fmt: skip
PRELOAD = "service.app", *(f"service.commands.{name}" for name in COMMANDS)
"""All imports of `service.__main__`; that module itself runs anew in each child."""


def main():
    """Fork a child for each order, and run its command there."""
    for module in PRELOAD:
        __import__(module)
    sys.modules["service.model.scorer"].compile_kernels()
    gc.collect()
    gc.freeze()  # a collection in a child would copy all memory that the two share
    running = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            running.discard(order["wait"])
            print(os.waitstatus_to_exitcode(status), flush=True)
        elif pid := fork():
            with contextlib.suppress(OSError):  # the child has done this itself, or has ended
                os.setpgid(pid, pid)
            running.add(pid)
            print(pid, flush=True)
        else:
            become(**order)
            return
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def fork():
    with warnings.catch_warnings():  # Python 3.12 warns of the threads of numpy's BLAS
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def become(command, environment, stdout, stderr):
    """Run a command in this process; an exception ends the process as usual."""
    os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(environment)
    write = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for number, (path, flags) in enumerate([(os.devnull, 0), (stdout, write), (stderr, write)]):
        os.dup2(file := os.open(path, flags, 0o644), number)
        os.close(file)
    kind, what, *arguments = command
    sys.argv = [what if kind == "-m" else kind, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
