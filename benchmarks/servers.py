"""Start real servers, and load them with wrk."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forests import subject

OURS = (sys.executable, "-m", "service")
BARE, ASGI, FLASK, NAIVE = (
    (sys.executable, "-m", "benchmarks.hello", name) for name in ("bare", "asgi", "flask", "naive")
)
EXPERT = (sys.executable, "-m", "benchmarks.expert")

INFER = "/v2/models/isoserve/infer"

_TICK = os.sysconf("SC_CLK_TCK")

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def some_rows(n_rows: int) -> NDArray[np.float64]:
    """Return rows for the small forest, with three decimals as a client might send them."""
    return subject("small").rows[:n_rows].round(3)


def message(n_rows: int) -> bytes:
    """Return a Seldon message of rows for the small forest."""
    rows = some_rows(n_rows).tolist()
    return json.dumps({"data": {"ndarray": rows}}).encode()


def infer_message(n_rows: int) -> bytes:
    """Return the same rows as an Open Inference request."""
    rows = some_rows(n_rows)
    tensor = {"name": "rows", "datatype": "FP64", "shape": list(rows.shape)}
    return json.dumps({"inputs": [{**tensor, "data": rows.ravel().tolist()}]}).encode()


def invocation(n_rows: int) -> bytes:
    """Return the same rows as a request to MLflow's scoring server."""
    return json.dumps({"inputs": some_rows(n_rows).tolist()}).encode()


@dataclass(frozen=True, eq=False)
class Server:
    """A server in a process group of its own."""

    process: subprocess.Popen[bytes]
    port: int
    path: str = "/predict"
    encode: Callable[[int], bytes] = message
    """Returns a request body with some rows."""
    stop: signal.Signals = signal.SIGTERM

    def wait(self, seconds: float = 60) -> None:
        """Wait until it answers a prediction."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            assert self.process.poll() is None, f"{self.process.args!r} has ended"
            with contextlib.suppress(OSError, http.client.HTTPException), self.connect() as client:
                client.post(self.encode(1))
                return
            time.sleep(0.01)
        raise TimeoutError(f"no answer in {seconds} s")

    def connect(self) -> Client:
        """Return a persistent connection."""
        return Client(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), self.path)

    def workers(self) -> list[int]:
        """Return the ids of the worker processes."""
        pid = self.process.pid
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def processor_time(self) -> float:
        """Return the processor time, in seconds, that the workers have used."""
        fields = [Path(f"/proc/{pid}/stat").read_text().split() for pid in self.workers()]
        return sum(int(field[13]) + int(field[14]) for field in fields) / _TICK


@dataclass(frozen=True)
class Client:
    """One connection to a server."""

    connection: http.client.HTTPConnection
    path: str

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()

    def post(self, body: bytes) -> float:
        """Send one request and return how many seconds the answer took."""
        start = time.perf_counter()
        self.connection.request("POST", self.path, body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise ConnectionError(f"{self.path} answers {answer.status}")
        return time.perf_counter() - start


@contextmanager
def served(folder: Path, command: tuple[str, ...], **settings: Any) -> Iterator[Server]:
    """Run a server with these settings until the block ends."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=folder) as state:
        chosen = {
            "port": port,
            "model": folder / "model.pickle",
            "state_dir": state,
            "log_level": "warning",
        }
        variables = {f"ISOSERVE_{name.upper()}": str(x) for name, x in (chosen | settings).items()}
        with running(Server(start(command, variables), port)) as server:
            yield server


def start(
    command: tuple[str, ...], variables: dict[str, str], folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in a process group of its own."""
    return subprocess.Popen(
        command,
        env=os.environ | variables,
        process_group=0,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )


def free_port() -> int:
    """Return a port that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Wait until a server answers, and stop it at the end of the block."""
    try:
        server.wait()
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, server.stop)
        server.process.wait(timeout=30)


@dataclass(frozen=True)
class Load:
    """What wrk measured."""

    seconds: float
    """Per request, over all connections."""
    p99: float
    """The 99th percentile of the latency, in seconds."""


@contextmanager
def loading(
    server: Server, folder: Path, n_rows: int, span: int, connections: int = 8
) -> Iterator[list[Load]]:
    """Load a server with wrk for `span` seconds while the block runs.

    The list has the result after the block, which ends when wrk does.
    """
    script = folder / f"{server.port}-{server.encode.__name__}-{n_rows}.lua"
    if not script.exists():
        script.write_text(
            f"wrk.method = 'POST'\nwrk.body = [=[{server.encode(n_rows).decode()}]=]\n"
            "wrk.headers['Content-Type'] = 'application/json'\n"
        )
    options = ["-t1", f"-c{connections}", f"-d{span}s", "--timeout", "20s", "--latency"]
    url = f"http://127.0.0.1:{server.port}{server.path}"
    process = subprocess.Popen(
        ["wrk", *options, "-s", script, url], stdout=subprocess.PIPE, text=True
    )
    loads: list[Load] = []
    yield loads
    report, _ = process.communicate(timeout=span + 60)
    assert "Non-2xx" not in report, report
    assert "Socket errors" not in report, report
    (rate,) = re.findall(r"Requests/sec: +([\d.]+)", report)
    ((number, unit),) = re.findall(r"99% +([\d.]+)(\w+)", report)
    loads.append(Load(1 / float(rate), float(number) * _UNITS[unit]))


def in_turns(
    servers: dict[str, Server], folder: Path, n_rows: int, rounds: int, span: int
) -> dict[str, list[float]]:
    """Load servers alternately over eight connections; return the seconds per request of each."""
    times: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            with loading(server, folder, n_rows, span) as loads:
                pass
            times[name].append(loads[0].seconds)
    return times


def describe(n_rows: int, workers: int) -> str:
    """Return the name of a case in the table."""
    rows = f"{n_rows:,} row{'s' * (n_rows > 1)}"
    return f"HTTP, {rows}, {workers} worker{'s' * (workers > 1)}"


def private_bytes(pid: int) -> int:
    """Return the memory that a process does not share (USS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
