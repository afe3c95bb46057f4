"""Functions that end their child process in every way."""

import ctypes
import os
import threading
import time
from pathlib import Path

import pytest

from service.model.sandbox import ChildFailed, run_sandboxed

MEMORY = 2**28


def test_the_childs_result_is_returned():
    assert run_sandboxed(lambda: {"pid": os.getpid() != 0, "n": [1, 2]}, 2, MEMORY) == {
        "pid": True,
        "n": [1, 2],
    }


def crash():
    ctypes.string_at(0)


def spin():
    while True:
        pass


def nothing_but_sleep():
    time.sleep(60)


def fill_memory():
    return len(bytearray(2**40))


def end():
    os._exit(0)


def fail():
    raise KeyError("x")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (crash, "read or wrote memory that is not its own"),
        (os.abort, "damaged its own memory"),
        (spin, r"took more than (1 second of processor time|2 seconds)"),
        (nothing_but_sleep, r"took more than 2 seconds \(on a busy machine"),
        (fill_memory, "needed far more memory"),
        (end, "ended without a result"),
        (fail, r"failed \(KeyError: 'x'\)"),
    ],
)
def test_the_error_says_why_a_child_returned_nothing(act, words):
    with pytest.raises(ChildFailed, match=words):
        run_sandboxed(act, 1, MEMORY)


def test_the_child_can_neither_write_nor_create_a_file(tmp_path):
    open_file = (tmp_path / "open").open("w")

    def write():
        faults = []
        for attempt in (lambda: os.write(open_file.fileno(), b"x"), (tmp_path / "new").touch):
            try:
                attempt()
            except OSError as error:
                faults.append(error.strerror)
        return faults

    assert run_sandboxed(write, 2, MEMORY) == ["Bad file descriptor", "Too many open files"]
    open_file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["open"]
    assert (tmp_path / "open").read_bytes() == b""


def test_the_sandbox_works_beside_threads_of_the_parent():
    held, done = threading.Lock(), threading.Event()
    with held:
        thread = threading.Thread(target=done.wait)
        thread.start()
        assert run_sandboxed(threading.active_count, 2, MEMORY) == 1
    done.set()
    thread.join()


def test_no_child_process_is_left():
    run_sandboxed(lambda: 1, 1, MEMORY)
    own = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    states = [Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in own]
    assert "Z" not in states
