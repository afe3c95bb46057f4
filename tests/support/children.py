"""Processes that a test forks."""

import os


def in_child(action):
    """Start `action` in a forked process and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        action()
        status = 0
    finally:
        os._exit(status)


def wait_for(*pids):
    """Wait until these processes have ended, each without a failure."""
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
