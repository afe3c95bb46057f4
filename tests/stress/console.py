"""Measure the console of a service with 100,000 recorded rows, and refresh it 1,000 times.

    python -m tests.stress.console            some three minutes
    python -m tests.stress.console --seconds 5 --refreshes 100

Bytes, requests and memory must keep their goals; times are printed, because they are the machine's.
"""

import argparse
import gzip
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager, nullcontext
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

from tests.support.browsing import CHROMIUM, Visitor, chromium, train
from tests.support.running import serving

VIEWS = ("now", "review", "threshold", "try", "drift", "model")
_ROWS, _COLUMNS = 100_000, 9
_BYTES, _REQUESTS = 60_000, 4  # goals
_GROWTH = 1.1  # of memory over the last half of the refreshes
_PAIRS = 11
_CONSOLES, _POLL = 20, 5  # open at once; seconds between two questions of one

_REFRESH = """async (times) => {
    const came = () => performance.getEntriesByType("resource").length > 0;
    for (let i = 0; i < times; i++) {
        document.dispatchEvent(new Event("visibilitychange"));
        while (!came()) await new Promise((done) => setTimeout(done, 1));
        performance.clearResourceTimings();
    }
}"""


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4, help="of each half of a pair")
    parser.add_argument("--refreshes", type=int, default=1000)
    options = parser.parse_args(arguments)
    if CHROMIUM is None:
        print("no chromium here: NOT measured")
        return 77
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        model, rows = make_model(Path(folder))
        with serving(model, Path(folder) / "service.log") as service:
            fill(service, rows)
            kept = [
                measure_first_page(service, browser),
                measure_memory(service, browser, options.refreshes),
            ]
            measure_server(service)
            measure_refresh(service)
            measure_loss(service, rows, options.seconds)
    return 0 if all(kept) else 1


def make_model(folder):
    chance = np.random.default_rng(16)
    rows = np.round(chance.lognormal(size=(20_000, _COLUMNS)), 3)
    names = [f"column {i}" for i in range(_COLUMNS)]
    return train(folder, names, rows[:5000].tolist(), trees=100), rows


def fill(service, rows):
    for _ in range(_ROWS // len(rows)):
        assert service.post("/invocations", {"inputs": rows.tolist()})[0] == 200
    time.sleep(6)  # drift is measured every 5 seconds


def measure_first_page(service, browser):
    """Print bytes, requests and first paint of the first page; return whether goals are kept."""
    paints, firsts = [], []
    for _ in range(7):
        visitor, requests = Visitor(browser, service.port), []
        visitor.page.on("requestfinished", lambda request, seen=requests: seen.append(request))
        visitor.page.goto(visitor.home, wait_until="networkidle")
        script = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        paints.append(visitor.page.evaluate(script))
        began = requests[0].timing["startTime"]
        firsts.append([r for r in requests if r.timing["startTime"] - began < paints[-1]])
        size = sum(request.sizes()["responseBodySize"] for request in requests)
        first = sum(request.sizes()["responseBodySize"] for request in firsts[-1])
        visitor.context.close()
    print(
        f"first page: {len(firsts[-1])} requests and {first:,} bytes until it is painted, "
        f"{len(requests)} and {size:,} in all (the moving lines, the icon)"
    )
    print(f"first paint: median {statistics.median(paints):.0f} ms of {len(paints)}")
    return size <= _BYTES and len(firsts[-1]) <= _REQUESTS


def measure_server(service):
    """Print how long the service takes for each view."""
    with closing(HTTPConnection("127.0.0.1", service.port)) as connection:
        for view in VIEWS:
            times = []
            for _ in range(31):
                began = time.perf_counter()
                connection.request("GET", f"/console/{view}", headers={"Accept-Encoding": "gzip"})
                answer = connection.getresponse()
                body = answer.read()
                times.append(1000 * (time.perf_counter() - began))
                assert answer.status == 200
            size, plain = len(body), len(gzip.decompress(body))
            print(
                f"{view}: median {statistics.median(times):.1f} ms, least {min(times):.1f} ms; "
                f"{plain:,} bytes, {size:,} packed"
            )


def measure_refresh(service):
    """Print what the workers do for one refresh of Now: the time of the processor."""
    before, refreshes = used(service), 400
    with closing(HTTPConnection("127.0.0.1", service.port)) as connection:
        for _ in range(refreshes):
            connection.request("GET", "/console/now.html", headers={"Accept-Encoding": "gzip"})
            connection.getresponse().read()
    cost = (used(service) - before) / refreshes
    print(
        f"a refresh: {1000 * cost:.1f} ms of processor time; every 5 seconds that is "
        f"{100 * cost / 5:.2f} % of a core"
    )


def measure_memory(service, browser, refreshes):
    """Print the browser's memory while Now is refreshed; return whether it stays flat."""
    visitor = Visitor(browser, service.port)
    page = visitor.go("now")
    developer = visitor.context.new_cdp_session(page)
    heaps = []
    page.evaluate("performance.clearResourceTimings()")
    for _ in range(10):
        page.evaluate(_REFRESH, refreshes // 10)
        developer.send("HeapProfiler.collectGarbage")
        heaps.append(developer.send("Runtime.getHeapUsage")["usedSize"])
    nodes = developer.send("Memory.getDOMCounters")["nodes"]
    visitor.context.close()
    shown = ", ".join(f"{heap / 1e6:.2f}" for heap in heaps)
    print(f"memory over {refreshes} refreshes: {shown} MB; {nodes:,} nodes")
    return not visitor.faults and heaps[-1] <= _GROWTH * heaps[len(heaps) // 2]


def measure_loss(service, rows, seconds):
    """Print what a prediction costs the service with the console open and without, in pairs.

    It is the time of the processor, which other programs on the machine change less than the
    clock. As many consoles as `_CONSOLES` ask, without their browsers, so that the loss is larger
    than the noise; of every second pair the second half is without.
    """
    losses, costs = [], []
    for pair in range(_PAIRS):
        halves = {}
        for is_watched in (False, True) if pair % 2 else (True, False):
            with watching(service) if is_watched else nullcontext():
                halves[is_watched] = cost(service, rows, seconds)
        costs.append(1e6 * halves[False])
        losses.append(100 * (halves[True] / halves[False] - 1) / _CONSOLES)
    print(
        f"a prediction: {statistics.median(costs):.0f} us of processor time alone; with the "
        f"console open {statistics.median(losses):+.2f} % (median of {_PAIRS} pairs, each with "
        f"{_CONSOLES} consoles: {', '.join(f'{loss:+.2f}' for loss in sorted(losses))})"
    )


@contextmanager
def watching(service):
    """Ask for Now as often as `_CONSOLES` browsers do."""
    ended = threading.Event()

    def ask():
        with closing(HTTPConnection("127.0.0.1", service.port)) as connection:
            while not ended.wait(_POLL / _CONSOLES):
                connection.request("GET", "/console/now.html", headers={"Accept-Encoding": "gzip"})
                connection.getresponse().read()

    watcher = threading.Thread(target=ask)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def cost(service, rows, seconds):
    """Return the seconds of processor time of the workers for each prediction."""
    before = used(service)
    done = predict(service, rows, seconds)
    return (used(service) - before) / done


def used(service):
    """Return the seconds of processor time that the workers have used."""
    ticks = 0
    for pid in service.workers():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system: see proc_pid_stat(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def predict(service, rows, seconds):
    """Return how many one-row predictions two clients get."""
    done = [0, 0]

    def send(number):
        body = b'{"data":{"ndarray":[%s]}}' % str(rows[number].tolist()).encode()
        headers = {"Content-Type": "application/json"}
        with closing(HTTPConnection("127.0.0.1", service.port)) as connection:
            while time.perf_counter() < end:
                connection.request("POST", "/predict", body, headers)
                assert connection.getresponse().read()
                done[number] += 1

    end = time.perf_counter() + seconds
    clients = [threading.Thread(target=send, args=(number,)) for number in (0, 1)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return sum(done)


if __name__ == "__main__":
    sys.exit(main())
