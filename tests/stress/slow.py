"""Silent connections and dripping ones: other clients are answered as quickly as ever."""

import multiprocessing
import socket
import time
from pathlib import Path

from tests.stress.http import LONG, ask, is_closed, p99, served
from tests.support.tally import Tally

SPAWN = multiprocessing.get_context("spawn")


def stress_silent(folder, seconds=600, silent=1000, dripping=200):
    """Hold silent connections, and heads that come byte by byte, while others are answered."""
    tally = Tally("answers beside silent and dripping clients")
    with served(folder, workers=2) as service:
        quiet = latencies(service.port, max(10, seconds / 4), tally)
        before = open_files(service)
        over, again = SPAWN.Event(), SPAWN.Value("i", 0)
        arguments = service.port, silent, dripping, over, again
        holder = SPAWN.Process(target=hold, args=arguments, daemon=True)
        holder.start()
        time.sleep(2)
        beside = latencies(service.port, seconds, tally)
        held = open_files(service) - before
        over.set()
        holder.join()
        tally.found["opened again"] = again.value
        limit = time.monotonic() + 20
        while (left := open_files(service) - before) > 10 and time.monotonic() < limit:
            time.sleep(0.5)
        tally.note("files left open", f"{left}" if left > 10 else "")
    print(f"  p99 {p99(beside) * 1000:.1f} ms beside {held} connections, {p99(quiet) * 1000:.1f} "
          f"without; {len(beside):,} predictions", flush=True)  # fmt: skip
    slow = seconds >= 10 * LONG and p99(beside) > 2 * p99(quiet)
    tally.note("p99", f"{p99(beside):.4f} s, {p99(quiet):.4f} without" if slow else "")
    return tally


def latencies(port, seconds, tally):
    """Send predictions and health checks, twenty a second; return the predictions' times."""
    found, stop = [], time.monotonic() + seconds
    while time.monotonic() < stop:
        for path in ("/live", "/predict"):
            started = time.perf_counter()
            try:
                status = ask(port, path)
            except OSError as error:
                status = repr(error)
            took = time.perf_counter() - started
            tally.note(f"{path}", "" if status == 200 else f"{status}", took, str(status))
            if path == "/predict":
                found.append(took)
        time.sleep(0.05)
    return found


def hold(port, silent, dripping, over, again):
    """Keep so many connections open, replacing closed ones; send a byte a second on some."""
    connections = {}
    for at in range(silent + dripping):
        connections[at] = socket.create_connection(("127.0.0.1", port), timeout=10)
    while not over.wait(1):
        for at, one in connections.items():
            try:
                if at >= silent:
                    one.sendall(b"P")
                if is_closed(one):
                    raise ConnectionResetError
            except OSError:
                one.close()
                connections[at] = socket.create_connection(("127.0.0.1", port), timeout=10)
                again.value += 1
    for one in connections.values():
        one.close()


def open_files(service):
    """Return how many files the workers have open together."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in service.workers())
