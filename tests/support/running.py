"""A real service, in processes of its own."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families


class Service:
    """A real service: `python -m service` on a port of its own, in a process group of its own."""

    def __init__(self, model, log, command=("-m", "service"), **settings):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = settings.pop("port", probe.getsockname()[1])
        variables = {f"ISOSERVE_{name.upper()}": str(value) for name, value in settings.items()}
        variables = {"ISOSERVE_DRAIN_SECONDS": "0"} | variables  # nobody looks at its readiness
        variables |= {"ISOSERVE_MODEL": str(model), "ISOSERVE_PORT": str(self.port)}
        self.log = log
        with log.open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=Path(__file__).parents[2],
                process_group=0,
                env=os.environ | {"ISOSERVE_STATE_DIR": str(log.with_suffix(""))} | variables,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self, seconds=60):
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                if self.request("GET", "/ready")[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"not ready in {seconds} s: {self.log.read_text()}")

    def request(self, method, path, body=None, headers=None):
        """Return (status, body) of one request on a connection of its own."""
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


def read_samples(page):
    """Return every sample of a page of metrics by name and labels."""
    families = text_string_to_metric_families(page)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}


@contextlib.contextmanager
def serving(model, log, **settings):
    """Serve a model for as long as the block lasts; nothing of the service is left."""
    service = Service(model, log, **settings)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.kill()
