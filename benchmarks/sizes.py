"""Measure what a replica needs: memory by workers and model, disk, and what one core does.

    python -m benchmarks.sizes

It prints the two tables of docs/operate/scale.md. Memory is the sum of all processes' PSS: what
they have alone, and their share of what they have together.
"""

from __future__ import annotations

import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from .forests import Subject, subject
from .servers import OURS, Server, free_port, running, start

MODELS = {
    "small": "100 trees of 256 rows, 2 columns",
    "seldon": "100 trees of 40,000 skewed rows, 18 columns",
    "deep": "100 trees of 40,000 uniform rows, 18 columns",
}
WORKERS = (1, 2, 4)
LARGEST = 15 * 2**20
"""Bytes of the largest request that is tried; the service takes 16 MiB."""
ROUNDS = 3


def main() -> None:
    """Print both tables in Markdown."""
    print("| model | file | workers | idle | in use | beside 15 MiB requests | state folder |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    speeds = []
    for name in MODELS:
        with tempfile.TemporaryDirectory() as text:
            folder, one = Path(text), subject(name)
            write(folder, one)
            for workers in WORKERS:
                print(f"| {' | '.join(memory(folder, one, workers))} |", flush=True)
            speeds.append(speed(folder, one))
    print("\n| model | requests of 1 row | rows, 1,000 in a request |\n| --- | --- | --- |")
    for cells in speeds:
        print(f"| {' | '.join(cells)} |")


def write(folder: Path, one: Subject) -> None:
    """Write the model and its card as a user would."""
    (folder / "model.pickle").write_bytes(pickle.dumps(one.forest, protocol=5))
    names = ",".join(f"c{number}" for number in range(one.rows.shape[1]))
    table = folder / "table.csv"
    np.savetxt(table, one.rows[:5000], fmt="%.3f", delimiter=",", header=names, comments="")
    model = str(folder / "model.pickle")
    command = [sys.executable, "-m", "training.describe", model, str(table)]
    subprocess.run(command, check=True, capture_output=True)


def encode(one: Subject) -> Callable[[int], bytes]:
    """Return a function that makes a Seldon message of some rows."""
    rows = one.rows.round(3)

    def message(n_rows: int) -> bytes:
        return json.dumps(
            {"data": {"ndarray": np.resize(rows, (n_rows, rows.shape[1])).tolist()}}
        ).encode()

    return message


@contextmanager
def served(folder: Path, one: Subject, workers: int) -> Iterator[tuple[Server, Path]]:
    """Run the service with an empty state folder; yield it and the folder."""
    with tempfile.TemporaryDirectory(dir=folder) as state:
        port = free_port()
        chosen = {
            "port": port, "workers": workers, "state_dir": state, "log_level": "error",
            "model": folder / "model.pickle",
        }  # fmt: skip
        variables = {f"ISOSERVE_{name.upper()}": str(value) for name, value in chosen.items()}
        with running(Server(start(OURS, variables), port, encode=encode(one))) as server:
            yield server, Path(state)


def memory(folder: Path, one: Subject, workers: int) -> list[str]:
    """Return the cells of one row of the first table."""
    with served(folder, one, workers) as (server, state):
        idle = resident(server)
        body = server.encode(1000)
        many(server, [body] * 100)
        used = resident(server)
        size = LARGEST // (len(server.encode(1000)) // 1000)
        largest = server.encode(min(size, 200_000))
        with Peak(server) as peak:
            many(server, [largest] * 2 * workers, at_once=2 * workers)
        disk = sum(path.stat().st_blocks * 512 for path in state.rglob("*"))
        file = (folder / "model.pickle").stat().st_size
    sizes = [megabytes(value) for value in (idle, used, peak.value, disk)]
    return [MODELS[one.name], megabytes(file), str(workers), *sizes]


def speed(folder: Path, one: Subject) -> list[str]:
    """Return the cells of one row of the second table: work in a second of processor time."""
    cells = [MODELS[one.name]]
    with served(folder, one, 1) as (server, _):
        for n_rows, number in ((1, 5000), (1000, 400)):
            body, rates = server.encode(n_rows), []
            many(server, [body] * (number // 10))
            for _ in range(ROUNDS):
                before = server.processor_time()
                many(server, [body] * number)
                rates.append(number * n_rows / (server.processor_time() - before))
            cells.append(f"{round(statistics.median(rates), -2):,.0f}")
    return cells


def many(server: Server, bodies: list[bytes], at_once: int = 8) -> None:
    """Send requests over some connections; a refused one is sent again, as 503 asks for."""

    def send(share: list[bytes]) -> None:
        with server.connect() as client:
            for body in share:
                for _ in range(100):
                    try:
                        client.post(body)
                        break
                    except ConnectionError:
                        time.sleep(0.3)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(send, [bodies[number::at_once] for number in range(at_once)]))


class Peak:
    """The highest memory of a server while a `with` block runs, looked at every 20 ms."""

    def __init__(self, server: Server) -> None:
        self._server, self._ended, self.value = server, threading.Event(), 0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.value = max(self.value, resident(self._server))


def resident(server: Server) -> int:
    """Return the bytes of all processes of a server (PSS)."""
    total = 0
    for pid in (server.process.pid, *server.workers()):
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def megabytes(size: int) -> str:
    """Return a size in MB, with a decimal where it is small.

    >>> megabytes(1_260_000), megabytes(167_400_000)
    ('1.3 MB', '167 MB')
    """
    return f"{size / 1e6:.1f} MB" if size < 10e6 else f"{size / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()
