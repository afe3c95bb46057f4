"""The cost of a prediction over HTTP, against other applications on the same gunicorn."""

from __future__ import annotations

import pickle
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

from .forests import subject
from .measure import Absent, AtMost, Figure, Ratio, Result
from .servers import (
    ASGI,
    BARE,
    EXPERT,
    FLASK,
    INFER,
    NAIVE,
    OURS,
    Server,
    describe,
    in_turns,
    infer_message,
    invocation,
    loading,
    message,
    private_bytes,
    served,
)

OTHERS = {
    "bare WSGI": BARE,
    "bare ASGI": ASGI,
    "Flask hello": FLASK,
    "naive": NAIVE,
    "an expert's afternoon": EXPERT,
}
"""Bare WSGI, Flask and the naive service run on gunicorn's threaded worker, bare ASGI on ours."""

ROUTES = {"V2 infer": (INFER, infer_message), "/invocations": ("/invocations", invocation)}
"""The other protocols, which are compared with bare WSGI for one row."""

TARGETS = {
    (1, "bare WSGI"): 1.6,
    (1, "bare ASGI"): 0.4,
    (1, "naive"): 15.0,
}
"""By rows in a request and the other server, for one worker."""


def run(short: bool) -> Iterator[Result]:
    """Compare ours with hello and the naive service; then measure ours alone."""
    if shutil.which("wrk") is None:
        yield Absent("HTTP", "wrk is not installed; most systems have it as a package")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.pickle").write_bytes(pickle.dumps(subject("small").forest))
        for workers in [1] if short else [1, 2]:
            yield from against_others(folder, workers, *((2, 1) if short else (9, 2)))
        yield from beside_batches(folder, 2 if short else 20)
        yield from weight(folder, *((2, 400) if short else (5, 1000)))
        yield starts(folder, 2 if short else 5)


def against_others(folder: Path, workers: int, rounds: int, span: int) -> Iterator[Result]:
    """Load all servers alternately, with 1 row per request and with 1,000."""
    others = dict(OTHERS)
    if find_spec("granian") is None or find_spec("coniferest") is None:
        del others["an expert's afternoon"]
        what = f"{describe(1, workers)}, an expert's afternoon"
        yield Absent(what, "granian and coniferest are not installed; `make bench` brings them")
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(served(folder, command, workers=workers))
            for name, command in {**others, "ours": OURS}.items()
        }
        ours, bare = servers["ours"], servers["bare WSGI"]
        routes = {name: replace(ours, path=path, encode=encode)
                  for name, (path, encode) in ROUTES.items()}  # fmt: skip
        times = in_turns({**routes, "bare WSGI": bare}, folder, 1, rounds, span)
        for name in routes:
            what = f"{describe(1, workers)}, {name}"
            yield Ratio(what, "bare WSGI", times[name], times["bare WSGI"], 1.4)
        for n_rows in (1, 1000):
            times = in_turns(servers, folder, n_rows, rounds, span)
            for name in others:
                target = TARGETS.get((n_rows, name)) if workers == 1 else None
                yield Ratio(describe(n_rows, workers), name, times["ours"], times[name], target)


def beside_batches(folder: Path, span: int) -> Iterator[Result]:
    """Send single rows for some seconds, without and with a client that sends large batches."""
    with served(folder, OURS, workers=2) as server:
        alone = latencies(server, span)
        with loading(server, folder, 100_000, span + 1, connections=1) as batches:
            beside = latencies(server, span)
    yield Figure("HTTP, 1 row, 2 workers: p50, p99", in_words(alone))
    batch = f"{batches[0].seconds * 1000:.0f} ms a batch"
    yield Figure("the same beside 100,000-row batches", f"{in_words(beside)}; {batch}")
    yield AtMost("p99 of 1 row beside 100,000-row batches", percentile(beside, 99) * 1000, 15, "ms")


def latencies(server: Server, span: int) -> list[float]:
    """Time single rows, one after another, over eight connections to any of the workers."""
    body, found = message(1), []
    with ExitStack() as stack:
        clients = cycle([stack.enter_context(server.connect()) for _ in range(8)])
        stop = time.monotonic() + span
        while time.monotonic() < stop:
            found.append(next(clients).post(body))
            time.sleep(0.001)
    return found


def weight(folder: Path, rounds: int, requests: int) -> Iterator[Result]:
    """Measure the workers' memory after many single rows, and their processor time."""
    with served(folder, OURS, workers=2) as ours, served(folder, NAIVE, workers=2) as naive:
        times: dict[Server, list[float]] = {ours: [], naive: []}
        private: dict[Server, float] = {}
        for _ in range(rounds):
            for server, took in times.items():
                took.append(processor_time(server, requests))
                private.setdefault(server, max(map(private_bytes, server.workers())) / 2**20)
    yield AtMost(f"a worker's own memory after {requests:,} rows", private[ours], 12, "MB")
    yield Figure("the same of the naive service", f"{private[naive]:.3g} MB")
    yield Ratio("a worker's processor time, 1 row", "naive", times[ours], times[naive])


def processor_time(server: Server, requests: int) -> float:
    """Return the workers' processor time, in seconds per single row, as a mean over many."""
    body, before = message(1), server.processor_time()
    for _ in range(8):  # several connections, so that both workers get requests
        with server.connect() as client:
            for _ in range(requests // 8):
                client.post(body)
    return (server.processor_time() - before) / requests


def starts(folder: Path, rounds: int) -> Ratio:
    """Time from the command to the first answer."""
    times: dict[tuple[str, ...], list[float]] = {OURS: [], NAIVE: []}
    for _ in range(rounds):
        for command, took in times.items():
            start = time.perf_counter()
            with served(folder, command, workers=2):
                took.append(time.perf_counter() - start)
    return Ratio("from the command to the first answer", "naive", times[OURS], times[NAIVE])


def in_words(found: list[float]) -> str:
    """Return the median and the 99th percentile as text."""
    return f"{statistics.median(found) * 1000:.2f} ms, {percentile(found, 99) * 1000:.2f} ms"


def percentile(found: list[float], percent: int) -> float:
    """Return a percentile of the times."""
    return statistics.quantiles(found, n=100, method="inclusive")[percent - 1]
