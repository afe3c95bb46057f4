"""Seldon's wrapper and MLServer, with the same forest, against ours: `make bench`.

Each peer runs in an environment of its own (requirements/seldon.in and mlserver.in).
"""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from .forests import subject
from .measure import Absent, Ratio, Result
from .servers import OURS, Server, describe, free_port, in_turns, running, served, some_rows, start

ROOT = Path(__file__).parents[1]
SELDON = ROOT / ".venv-seldon/bin/seldon-core-microservice"
MLSERVER = ROOT / ".venv-mlserver/bin/mlserver"

# The component that Seldon's documentation recommends.
COMPONENT = """
import pickle

class Component:
    def __init__(self):
        with open("model.pickle", "rb") as file:
            self.forest = pickle.load(file)

    def predict(self, X, features_names=None):
        return self.forest.predict(X)
"""

TARGETS = {
    (1, "Seldon's wrapper"): 50.0,
    (1000, "Seldon's wrapper"): 12.0,
    (1, "MLServer"): 15.0,
    (1000, "MLServer"): 5.0,
}
"""By rows in a request and peer; MLServer's is for both ways, with and without batching."""


def run(short: bool) -> Iterator[Result]:
    """Load all servers alternately, with 1 row per request and with 1,000."""
    if not (shutil.which("wrk") and SELDON.exists() and MLSERVER.exists()):
        yield Absent("peers", "`make bench` installs them; wrk is a package of most systems")
        return
    rounds, span = (2, 1) if short else (7, 2)
    with tempfile.TemporaryDirectory() as path, ExitStack() as stack:
        folder = Path(path)
        (folder / "model.pickle").write_bytes(pickle.dumps(subject("small").forest))
        batching = {"max_batch_size": 32, "max_batch_time": 0.002}
        servers = {
            "ours": stack.enter_context(served(folder, OURS, workers=1)),
            "Seldon's wrapper": stack.enter_context(running(seldon(folder))),
            "MLServer": stack.enter_context(running(mlserver(folder, {}))),
            "MLServer, batching": stack.enter_context(running(mlserver(folder, batching))),
        }
        for n_rows in (1, 1000):
            times = in_turns(servers, folder, n_rows, rounds, span)
            for name in servers.keys() - {"ours"}:
                target = TARGETS.get((n_rows, name.split(",")[0]))
                yield Ratio(describe(n_rows, 1), name, times["ours"], times[name], target)


def seldon(folder: Path) -> Server:
    """Start Seldon's wrapper with its defaults: one worker."""
    (folder / "Component.py").write_text(COMPONENT)
    port = free_port()
    ports = {"--http-port": port, "--metrics-port": free_port(), "--grpc-port": free_port()}
    options = [str(part) for pair in ports.items() for part in pair]
    command = (str(SELDON), "Component", *options, "--log-level", "ERROR")
    # Only SIGKILL stops it.
    return Server(start(command, {}, folder), port, stop=signal.SIGKILL)


def mlserver(folder: Path, batching: dict[str, float]) -> Server:
    """Start MLServer with one worker process."""
    home = Path(tempfile.mkdtemp(dir=folder))
    (home / "model.pickle").symlink_to(folder / "model.pickle")
    port = free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 1,
        "debug": False,
    }
    model = {
        "name": "forest",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.pickle"},
        **batching,
    }
    (home / "settings.json").write_text(json.dumps(settings))
    (home / "model-settings.json").write_text(json.dumps(model))
    process = start((str(MLSERVER), "start", "."), {}, home)
    return Server(process, port, "/v2/models/forest/infer", encode_v2, signal.SIGKILL)


def encode_v2(n_rows: int) -> bytes:
    """Return a request of the Open Inference Protocol."""
    rows = some_rows(n_rows)
    tensor = {"name": "x", "shape": rows.shape, "datatype": "FP64", "data": rows.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()
