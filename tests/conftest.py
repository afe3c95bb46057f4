"""Shared fixtures: a forest whose answers can be worked out by hand, and a service around it."""

import contextlib
import hashlib
import http.client
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from service.app import create_app
from service.artifact import Card, Feature, Golden
from service.ids import new_id
from service.settings import LABELS, PARAMETERS, PREFIX, SELDON_VARIABLES, Settings


def pytest_collection_modifyitems(items):
    """Mark the tests that start real services, each of which takes seconds."""
    for item in items:
        if "serve" in item.fixturenames:
            item.add_marker(pytest.mark.server)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Keep the variables of the shell that runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith(PREFIX) or name in {*SELDON_VARIABLES, PARAMETERS, LABELS}:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def samples():
    """5,000 samples of two right-skewed features."""
    return np.random.default_rng(16).lognormal(size=(5000, 2))


@pytest.fixture(scope="session")
def forest(samples):
    """Five trees, fitted once."""
    return IsolationForest(n_estimators=5, random_state=16).fit(samples)


@pytest.fixture
def folder(tmp_path, forest):
    """A folder with `model.pickle`, without a card."""
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(forest, protocol=5))
    return tmp_path


@pytest.fixture
def write_card(folder, forest, samples):
    """Write a card for the model in `folder`: columns mean and sd, and what a test asks for."""

    def write(**changes):
        content = (folder / "model.pickle").read_bytes()
        golden = Golden(samples[:3].tolist(), forest.decision_function(samples[:3]).tolist())
        fields = {
            "created": "2026-01-01T00:00:00Z",
            "dataset": "test",
            "rows": 5000,
            "features": [Feature(name, "float", [0.0] * 101) for name in ("mean", "sd")],
            "parameters": {},
            "seed": 16,
            "offset": -0.5,
            "training_outlier_share": 0.125,
            "allow_missing": False,
            "score_quantiles": [0.0] * 101,
            "golden": golden,
            "quality": None,
            "versions": {},
            "files": {"model.pickle": hashlib.sha256(content).hexdigest()},
        }
        card = Card(**fields | changes)
        (folder / "model.json").write_text(card.to_json())
        return card

    return write


@pytest.fixture
def make_client(folder):
    """Build the service with some settings, in a state folder of its own; return a test client."""

    def make(make_puid=new_id, **settings):
        chosen = {"model": folder / "model.pickle", "state_dir": Path(tempfile.mkdtemp(dir=folder))}
        return create_app(Settings(**chosen | settings), make_puid).test_client()

    return make


@pytest.fixture
def client(make_client):
    return make_client()


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
                cwd=Path(__file__).parents[1],
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


@pytest.fixture
def serve(tmp_path):
    """Start real services; what still runs at the end of the test is killed."""
    started = []

    def start(model, **settings):
        service = Service(model, tmp_path / f"service-{len(started)}.log", **settings)
        started.append(service)
        service.wait_until_ready()
        return service

    yield start
    for service in started:
        service.kill()
