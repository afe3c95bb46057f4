"""Start a real service for a test."""

import atexit
import contextlib
import functools
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]


class ForkServer:
    """The process that forks others: see `forkserver`."""

    def __init__(self):
        command = [sys.executable, "-m", "tests.support.forkserver"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=ROOT, process_group=0, **pipes)
        self._lock = threading.Lock()
        atexit.register(self.close)

    def order(self, **order):
        """Send an order and return its answer, a number."""
        with self._lock:
            print(json.dumps(order), file=self._process.stdin, flush=True)
            return int(self._process.stdout.readline())

    def close(self):
        """Stop it, and every process that it has forked."""
        with self._process:
            self._process.stdin.close()


fork_server = functools.cache(ForkServer)


class Python:
    """A process that runs `python *command` from a fork; used like `subprocess.Popen`."""

    def __init__(self, command, environment, stdout, stderr):
        self.args, self.returncode = command, None
        self.pid = fork_server().order(
            command=command, environment=environment, stdout=str(stdout), stderr=str(stderr)
        )
        self._handle = os.pidfd_open(self.pid)

    def poll(self):
        """Return the exit code if the process has ended, else None."""
        if self.returncode is None and select.select([self._handle], [], [], 0)[0]:
            self.returncode = fork_server().order(wait=self.pid)
            os.close(self._handle)
        return self.returncode

    def wait(self, timeout=None):
        """Return the exit code once the process has ended."""
        if self.returncode is None and not select.select([self._handle], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()

    def send_signal(self, number):
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def run_python(command, folder, **variables):
    """Run `python *command` from a fork until it ends, and return what it wrote and its code."""
    outputs = folder / "stdout", folder / "stderr"
    for path in outputs:
        path.write_text("")
    process = Python(command, os.environ | variables, *outputs)
    try:
        code = process.wait(timeout=60)
    finally:
        process.send_signal(signal.SIGKILL)
    return subprocess.CompletedProcess(command, code, *(path.read_text() for path in outputs))


class Service:
    """A real service: `python -m service` on a free port, in its own process group.

    It is forked from a process that has imported everything, or, if `cold`, a new Python.
    """

    def __init__(self, model, log, command=("-m", "service"), cold=False, **settings):
        self.port = settings.pop("port", None) or free_port()
        variables = {f"ISOSERVE_{name.upper()}": str(value) for name, value in settings.items()}
        variables = {"ISOSERVE_DRAIN_SECONDS": "0"} | variables  # no test waits for the drain
        variables |= {"ISOSERVE_MODEL": str(model), "ISOSERVE_PORT": str(self.port)}
        environment = os.environ | {"ISOSERVE_STATE_DIR": str(log.with_suffix(""))} | variables
        self.log = log
        start = start_cold if cold else Python
        self.process = start(command, environment, log, log)

    def wait_until_ready(self, seconds=60):
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                if self.request("GET", "/ready")[0] == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"not ready in {seconds} s: {self.log.read_text()}")

    def request(self, method, path, body=None, headers=None):
        """Return (status, body) of one request on a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def post(self, path, value):
        body = json.dumps(value)
        status, text = self.request("POST", path, body, {"Content-Type": "application/json"})
        return status, json.loads(text)

    def workers(self):
        """Return the process ids of the workers."""
        pid = self.process.pid
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self, with_signal=signal.SIGTERM):
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=30)

    def kill(self):
        """Kill every process of the service at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def scrape(self):
        """Return every sample of /metrics by name and labels."""
        status, page = self.request("GET", "/metrics")
        assert status == 200
        return read_samples(page.decode())


def start_cold(command, environment, log, _):
    """Start a new Python with all output in one file."""
    with log.open("a") as output:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            process_group=0,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def free_port():
    """Return a port that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_samples(page):
    """Return every sample of a page of metrics by name and labels."""
    families = text_string_to_metric_families(page)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}


@contextlib.contextmanager
def serving(model, log, **settings):
    """Serve a model until the `with` block ends, then stop every process."""
    service = Service(model, log, **settings)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.kill()
    expect_no_traceback(log)


def find_traceback(log):
    """Return the traceback in the log of a service; nothing is right: a sentence is due instead."""
    _, _, found = log.read_text(errors="replace").partition("Traceback (most recent call last)")
    return found[:3000]


def expect_no_traceback(log):
    """Raise AssertionError if a service has logged a traceback."""
    assert not find_traceback(log), f"{log} has a traceback: {find_traceback(log)}"
