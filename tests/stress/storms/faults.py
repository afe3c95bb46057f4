"""Faults: a small disk, files that cannot grow, a jumping clock, killed workers."""

import contextlib
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

# Runs a service whose time of day jumps by a day. The names of other clocks as arguments make those
# follow it: a fault that the checks must detect.
JUMPING_CLOCK = """
import random, runpy, sys, time
real = time.time
time.time = lambda: real() + random.choice((-86_400, 0, 86_400))
if "perf_counter" in sys.argv:
    time.perf_counter = time.time
if "monotonic_ns" in sys.argv:
    time.monotonic_ns = lambda: int(time.time() * 1e9)
sys.argv[1:] = []
runpy.run_module("service", run_name="__main__")
"""

# Runs a service whose files cannot grow beyond so many bytes.
SIZE_LIMIT = 65_536
SMALL_FILES = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, ({SIZE_LIMIT}, {SIZE_LIMIT}))
runpy.run_module("service", run_name="__main__")
"""


@contextlib.contextmanager
def small_disk(folder):
    """Mount a disk of 24 MiB at `folder`; yield whether this user may mount one."""
    disk = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "isoserve", folder]
    mounted = subprocess.run(disk, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)


def stop_growth(service, size):
    """Limit the size of a running service's files."""
    for pid in (service.process.pid, *service.workers()):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def fill(folder):
    """Fill the disk of a folder completely."""
    with contextlib.suppress(OSError), (Path(folder) / "fill").open("wb", 0) as file:
        while True:
            file.write(bytes(4096))


def cannot_grow(service):
    pids = service.process.pid, *service.workers()
    return all(resource.prlimit(pid, resource.RLIMIT_FSIZE)[0] == SIZE_LIMIT for pid in pids)


def kill_a_worker(service, chance):
    """Kill a worker at a random moment, wait 0.25 s, and return the time of the kill."""
    time.sleep(chance.uniform(0.05, 0.3))
    killed = time.perf_counter()
    os.kill(chance.choice(service.workers()), signal.SIGKILL)
    time.sleep(0.25)
    return killed
