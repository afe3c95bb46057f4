"""Kill, fill and confuse a real service under load, and count what it counted.

    python tests/storms.py            some minutes
    python tests/storms.py --tenth    a tenth of it

Each storm prints what was sent, what was acknowledged with a 200, and what the service counted.
A request whose connection broke may have been counted or not. The clients' batches have 1, 2, 4,
8, ... rows and the counts are looked at after every kill, so their sum tells which ones were.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import math
import os
import pickle
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from itertools import chain, combinations, cycle
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table
from sklearn import metrics
from sklearn.ensemble import IsolationForest

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import Service

from service.artifact import Card, Feature, Golden, load_model
from service.components import Detector
from service.counts import SCORE_BOUNDS
from service.records import open_records

CLIENTS = 8
PERCENT = np.linspace(0, 1, 101)

# Of the moment: the room that others leave on the disk, and the workers that have started so far.
PASSING = ("isoserve_state_free_bytes", "isoserve_workers")

# A service with a clock that is a day early or late every now and then, and, as a fault, with other
# clocks that follow it.
ODD_CLOCK = """
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

# A service whose files stay below so many bytes, unless they are larger when it starts.
GROWN = 65_536
SMALL_FILES = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, ({GROWN}, {GROWN}))
runpy.run_module("service", run_name="__main__")
"""


@dataclass(frozen=True)
class Tally:
    """Rows, the outliers among them, and how many fell into each interval of the score."""

    rows: int = 0
    outliers: int = 0
    buckets: tuple = (0,) * (len(SCORE_BOUNDS) + 1)

    @classmethod
    def sum(cls, tallies):
        columns = [(t.rows, t.outliers, *t.buckets) for t in tallies]
        if not columns:
            return cls()
        rows, outliers, *buckets = (sum(column) for column in zip(*columns, strict=True))
        return cls(rows, outliers, tuple(buckets))


@dataclass
class Report:
    """What came of a storm."""

    name: str
    sent: int = 0
    acknowledged: int = 0
    counted: int = 0
    broken: int = 0
    broken_counted: int = 0
    worst_wait: float = 0.0
    """Longest time in seconds from a kill to the first answer to a request sent after it."""
    faults: list = field(default_factory=list)

    def check(self, true, fault):
        if not true:
            self.faults.append(fault)


@dataclass(frozen=True)
class Batch:
    """The rows of a request as JSON, and what they must count for."""

    rows: str
    tally: Tally


@dataclass(frozen=True)
class Answer:
    """One acknowledged request: when it was sent and answered, and what it was told."""

    puid: str
    began: float
    ended: float
    tally: Tally
    observation: int
    nb_outliers: int


class Model:
    """A forest in a file with a card, and batches of rows whose scores are known."""

    def __init__(self, folder):
        table = np.random.default_rng(16).lognormal(size=(5000, 2))
        self.forest = IsolationForest(random_state=16).fit(table)
        self.path = folder / "model.pickle"
        self.path.write_bytes(pickle.dumps(self.forest, protocol=5))
        self.baseline = write_card(self.path, self.forest, table)
        self.values = np.random.default_rng(1).lognormal(sigma=1.3, size=(20_000, 2))
        self.scores = self.forest.decision_function(self.values)

    def batch(self, rows, chance):
        start = chance.randrange(len(self.values) - rows)
        scores = self.scores[start : start + rows]
        places = np.searchsorted(SCORE_BOUNDS, scores, side="left")
        buckets = np.bincount(places, minlength=len(SCORE_BOUNDS) + 1).tolist()
        values = json.dumps(self.values[start : start + rows].tolist())
        return Batch(values, Tally(rows, int((scores < 0).sum()), tuple(buckets)))


def write_card(path, forest, table):
    """Write a model's card and return what drift is measured from."""
    features, scores = np.quantile(table, PERCENT, axis=0).T.tolist(), forest.score_samples(table)
    card = Card(
        created="2026-01-01T00:00:00Z",
        dataset="storm",
        rows=len(table),
        features=[Feature(f"f{i}", "float", quantiles) for i, quantiles in enumerate(features)],
        parameters={},
        seed=16,
        offset=forest.offset_,
        training_outlier_share=0.1,
        allow_missing=False,
        score_quantiles=np.quantile(scores - forest.offset_, PERCENT).tolist(),
        golden=Golden(table[:1].tolist(), forest.decision_function(table[:1]).tolist()),
        quality=None,
        versions={},
        files={path.name: hashlib.sha256(path.read_bytes()).hexdigest()},
    )
    path.with_suffix(".json").write_text(card.to_json())
    return Detector(load_model(path)).baseline


class Client(threading.Thread):
    """Posts batches, one after the other on a connection that it keeps, until told to stop."""

    def __init__(self, port, name, batches, again):
        super().__init__(daemon=True)
        self._port, self._name, self._batches, self._again = port, name, batches, again
        self.stop = threading.Event()
        self.answers, self.broken, self.faults = [], [], []

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        with contextlib.closing(connection):
            for serial, batch in enumerate(self._batches):
                if self.stop.is_set() or (self.broken and not self._again):
                    break
                self._post(connection, f"{self._name}-{serial}", batch)

    def _post(self, connection, puid, batch):
        body = f'{{"meta":{{"puid":"{puid}"}},"data":{{"ndarray":{batch.rows}}}}}'
        try:
            if connection.sock is None:
                connection.connect()
        except OSError:  # nothing was sent
            time.sleep(0.01)
            return
        began = time.perf_counter()
        try:
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self.broken.append(batch.tally)
            return
        ended = time.perf_counter()
        if response.status != 200:
            self.faults.append(f"{response.status} {text[:200]!r}")
            return
        meta = json.loads(text)["meta"]
        told = {gauge["key"]: gauge["value"] for gauge in meta["metrics"]}
        if meta["puid"] != puid:
            self.faults.append(f"the answer to {puid} is that to {meta['puid']}")
        self.answers.append(
            Answer(puid, began, ended, batch.tally, told["observation"], told["nb_outliers"])
        )


class Crowd:
    """Eight clients at work: in a `with` block until its end, or until they have sent all."""

    def __init__(self, port, name, batches, again=True):
        self.clients = [
            Client(port, f"{name}-{number}", batches(number), again) for number in range(CLIENTS)
        ]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        for client in self.clients:
            client.stop.set()
        self.finish()

    def finish(self):
        for client in self.clients:
            client.join()

    @property
    def answers(self):
        return [answer for client in self.clients for answer in client.answers]

    @property
    def broken(self):
        return [tally for client in self.clients for tally in client.broken]

    @property
    def faults(self):
        return [fault for client in self.clients for fault in client.faults]


def scrape(service):
    """Return every sample of /metrics by name and labels."""
    status, page = service.request("GET", "/metrics")
    assert status == 200
    families = text_string_to_metric_families(page.decode())
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}


def read_tally(service):
    """Return what the service says that it has counted."""
    samples = scrape(service)
    bounds = [*map(str, SCORE_BOUNDS), "+Inf"]
    running = [int(samples["isoserve_score_bucket", (("le", bound),)]) for bound in bounds]
    return Tally(
        int(samples["isoserve_samples_total", ()]),
        int(samples["isoserve_outliers_total", ()]),
        tuple(np.diff(running, prepend=0).tolist()),
    )


def reconcile(report, before, crowd, service):
    """Compare the counts with what the crowd was told; return them."""
    counted = read_tally(service)
    known = Tally.sum([before, *(answer.tally for answer in crowd.answers)])
    broken = crowd.broken
    subsets = chain.from_iterable(combinations(broken, n) for n in range(len(broken) + 1))
    fitting = [subset for subset in subsets if Tally.sum([known, *subset]) == counted]
    report.check(len(fitting) == 1, f"counted {counted.rows} rows where {known.rows} are known")
    report.faults += crowd.faults
    report.acknowledged += known.rows - before.rows
    report.sent += known.rows - before.rows + sum(tally.rows for tally in broken)
    report.counted = counted.rows
    report.broken += len(broken)
    report.broken_counted += len(fitting[0]) if fitting else 0
    return counted


def powers_of_two(model):
    """Give each client endless batches of a size such that no two sums of sizes are equal."""
    chance = random.Random(16)
    known = [[model.batch(2**number, chance) for _ in range(20)] for number in range(CLIENTS)]
    return lambda number: cycle(known[number])


def check_records(report, model, service):
    """Check that every recorded row is whole: its score is that of its values."""
    rows = open_records(service.state)[0].read()
    right = np.array_equal(model.forest.decision_function(rows["values"]), rows["score"])
    report.check(len(rows) and right, "a record is torn")
    return rows


def check_drift(report, model, service):
    """Check that soon every worker says of the drift what the record says."""
    drift = model.baseline.measure(open_records(service.state)[0].scored_by)
    expected = drift.features | {"": drift.score}
    limit = time.monotonic() + 15
    while read_drift(service) != expected and time.monotonic() < limit:
        time.sleep(0.1)
    said = [read_drift(service) for _ in range(12)]
    report.check(len(expected) == 3 and all(one == expected for one in said), "drift is wrong")


def read_drift(service):
    """Return the drift of each feature that /metrics shows, and of the score as that of ''."""
    return {
        dict(labels).get("feature", ""): value
        for (name, labels), value in scrape(service).items()
        if name.endswith("drift_psi")
    }


def check_log(report, service):
    log = service.log.read_text()
    report.check("set aside" not in log and "damaged" not in log, "a state file was damaged")
    report.check("Traceback" not in log, "the log has a traceback")


def storm_workers(model, start, kills=100):
    """F1: kill random workers, again and again."""
    report, chance = Report(f"{kills} x kill -9 of a worker"), random.Random(1)
    service = start(workers=4)
    counted, batches = Tally(), powers_of_two(model)
    for kill in range(kills):
        with Crowd(service.port, f"w{kill}", batches) as crowd:
            time.sleep(chance.uniform(0.05, 0.3))
            killed = time.perf_counter()
            os.kill(chance.choice(service.workers()), signal.SIGKILL)
            time.sleep(0.25)
        waits = [a.ended - killed for a in crowd.answers if a.began > killed]
        report.check(waits, "no answer after a kill")
        report.worst_wait = max(report.worst_wait, min(waits, default=0.0))
        counted = reconcile(report, counted, crowd, service)
    check_records(report, model, service)
    check_drift(report, model, service)
    service.stop()
    check_log(report, service)
    return report


def storm_group(model, start, kills=30):
    """F2: kill all processes at once and start again on the same folder."""
    report, chance = Report(f"{kills} x kill -9 of the whole group"), random.Random(2)
    service = start(workers=4)
    counted, batches = Tally(), powers_of_two(model)
    for kill in range(kills):
        with Crowd(service.port, f"g{kill}", batches, again=False) as crowd:
            time.sleep(chance.uniform(0.05, 0.5))
            service.kill()
        service = start(workers=4, again=service)
        counted = reconcile(report, counted, crowd, service)
        rows = check_records(report, model, service)
        found = np.unique(rows["puid"], return_counts=True)
        found = dict(zip((puid.decode() for puid in found[0]), found[1], strict=True))
        kept = sorted(crowd.answers, key=lambda answer: -answer.ended)[:100]
        whole = all(found.get(answer.puid) == answer.tally.rows for answer in kept)
        report.check(whole, "an acknowledged row is not recorded")
    service.stop()
    check_log(report, service)
    return report


def storm_disk(model, start, predictions=1000):
    """F4: fill the disk that the state lies on; predict on, restart on it.

    Where no small disk can be mounted, the files of the service may not grow any more instead.
    """
    with tempfile.TemporaryDirectory() as folder, small_disk(folder) as mounted:
        full = "on a full disk" if mounted else "where no file can grow"
        report = Report(f"{predictions} predictions {full}")
        service = start(workers=2, state_dir=folder)
        try:
            if mounted:
                fill(folder)
                report.check(os.statvfs(folder).f_bavail == 0, "the disk is not full")
            else:
                stop_growth(service, GROWN)
            counted, chance = Tally(), random.Random(4)
            for half in range(2):
                sizes = iter([chance.randint(1, 300) for _ in range(predictions // 2)])
                batches = [model.batch(size, chance) for size in sizes]
                shares = lambda number, all_of=batches: all_of[number::CLIENTS]  # noqa: E731
                crowd = Crowd(service.port, f"d{half}", shares)
                for client in crowd.clients:
                    client.start()
                crowd.finish()
                report.check(len(crowd.answers) == predictions // 2, "a prediction failed")
                report.check(mounted or cannot_grow(service), "files can grow")
                counted = reconcile(report, counted, crowd, service)
                if half == 0:
                    service.stop()
                    how = ("-m", "service") if mounted else ("-c", SMALL_FILES)
                    service = start(workers=2, state_dir=folder, again=service, command=how)
            check_records(report, model, service)
            service.stop()
            check_log(report, service)
        finally:
            service.kill()
    return report


@contextlib.contextmanager
def small_disk(folder):
    """Mount a disk of 24 MiB at `folder` and say whether that is allowed here."""
    disk = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "isoserve", folder]
    mounted = subprocess.run(disk, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)


def stop_growth(service, size):
    """Let no file of a service grow beyond a size."""
    for pid in (service.process.pid, *service.workers()):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def fill(folder):
    """Leave no byte free on the disk of a folder."""
    with contextlib.suppress(OSError), (Path(folder) / "fill").open("wb", 0) as file:
        while True:
            file.write(bytes(4096))


def cannot_grow(service):
    pids = service.process.pid, *service.workers()
    return all(resource.prlimit(pid, resource.RLIMIT_FSIZE)[0] == GROWN for pid in pids)


def storm_clock(model, start, seconds=10.0, faults=()):
    """F15: let the clock jump by a day, back and forth.

    All that Python reads as the time of day jumps, not what the kernel counts for durations. That
    the checks would see a service that goes by the former for something is proved by `faults`.
    """
    report = Report(f"{seconds:.0f} s of a clock that jumps by a day")
    service = start(workers=2, command=("-c", ODD_CLOCK, *faults))
    with Crowd(service.port, "c", powers_of_two(model)) as crowd:
        time.sleep(seconds)
    reconcile(report, Tally(), crowd, service)
    name = "isoserve_request_duration_seconds_sum"
    sums = [value for (sample, _), value in scrape(service).items() if sample == name]
    limit = 2 * CLIENTS * (seconds + 60)
    report.check(sums and all(0 <= value < limit for value in sums), "durations follow the clock")
    rows = check_records(report, model, service)
    report.check((np.diff(rows["time"]) < -3600).any(), "the clock did not jump")
    for client in range(CLIENTS):
        ours = [puid.split(b"-") for puid in rows["puid"].tolist()]
        order = [int(serial) for _, number, serial in ours if int(number) == client]
        report.check(order == sorted(order), "the order of the record follows the clock")
    service.stop()
    check_log(report, service)
    return report


def storm_restarts(model, start, restarts=5):
    """F19: restart; every number but those of the scrapes themselves stays."""
    report = Report(f"{restarts} restarts")
    service = start(workers=3)
    counted, batches = Tally(), powers_of_two(model)
    for restart in range(restarts):
        with Crowd(service.port, f"r{restart}", batches) as crowd:
            time.sleep(0.5)
        counted = reconcile(report, counted, crowd, service)
        before = scrape(service)
        report.check(service.stop() == 0, "the service ended with a fault")
        service = start(workers=3, again=service)
        after = scrape(service)
        kept = {key for key in before if not any(word in key[0] for word in ("drift", *PASSING))}
        ours = {key for key in kept if ("route", "/predict") in key[1] or "route" not in str(key)}
        changed = [key for key in ours if before[key] != after.get(key)]
        report.check(not changed, f"a restart changed {changed[:3]}")
    service.stop()
    check_log(report, service)
    return report


def storm_rows(model, start, rows=200_000):
    """No fault at all: 4 workers of 4 threads, mixed batches, every number exact."""
    report = Report(f"{rows:,} rows, 4 workers x 4 threads")
    service = start(workers=4, threads=4)
    shares = [mixed(model, rows // CLIENTS, random.Random(number)) for number in range(CLIENTS)]
    crowd = Crowd(service.port, "x", lambda number: shares[number])
    for client in crowd.clients:
        client.start()
    crowd.finish()
    reconcile(report, Tally(), crowd, service)
    answers = crowd.answers
    report.check(report.acknowledged == rows == report.counted, "rows are missing")
    for told in ("observation", "nb_outliers"):
        wrong = misled(answers, told)
        report.check(not wrong, f"{wrong} answers have a wrong {told}")
    key = "isoserve_requests_total", (("route", "/predict"), ("status", "2xx"))
    check_drift(report, model, service)
    scrapes = [scrape(service) for _ in range(12)]
    report.check(scrapes[0][key] == len(answers), "requests are missing")
    passing = ("route", *PASSING)  # scrapes themselves change those of a route
    ours = [
        {key: value for key, value in one.items() if not any(word in str(key) for word in passing)}
        for one in scrapes
    ]
    report.check(all(one == ours[0] for one in ours), "workers do not say the same")
    recorded = check_records(report, model, service)
    report.check(len(recorded) == min(rows, 100_000), "the record is not full")
    service.stop()
    check_log(report, service)
    return report


def mixed(model, rows, chance):
    """Return batches of 1 to 400 rows that sum up to `rows`."""
    batches = []
    while rows:
        size = min(rows, chance.choice((1, 1, 1, 5, 20, 100, 400)))
        batches.append(model.batch(size, chance))
        rows -= size
    return batches


def misled(answers, told):
    """Count the answers whose totals miss a row answered before, or know one begun after."""
    rows = np.array([a.tally.rows if told == "observation" else a.tally.outliers for a in answers])
    began, ended = np.array([a.began for a in answers]), np.array([a.ended for a in answers])
    said = np.array([getattr(answer, told) for answer in answers])
    by_end, by_begin = np.argsort(ended), np.argsort(began)
    answered = np.concatenate([[0], np.cumsum(rows[by_end])])
    begun = np.concatenate([[0], np.cumsum(rows[by_begin])])
    least = answered[np.searchsorted(ended[by_end], began)] + rows
    most = begun[np.searchsorted(began[by_begin], ended)]
    return int(((said < least) | (said > most)).sum())


class Voice(threading.Thread):
    """Predicts rows and tells the truth about them: for the first time, again, and otherwise.

    It keeps book of what each row's truth may be by now: None stands for nothing.
    """

    def __init__(self, port, name, model, again=True):
        super().__init__(daemon=True)
        self._port, self._name, self._model, self._again = port, name, model, again
        self._chance = random.Random(name)
        self.stop = threading.Event()
        self.labels, self.possible, self.keys = {}, {}, []
        self.sent = self.acknowledged = self.broken = 0
        self.times, self.faults = [], []

    def run(self):
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        with contextlib.closing(self._connection):
            while not self.stop.is_set() and (self._again or not self.broken):
                if self.keys and self._chance.random() < 0.3:
                    self.say(*self._chance.choice(self.keys), [self._chance.randrange(2)])
                else:
                    self.begin(self._chance.choice((1, 1, 1, 3)))

    def begin(self, rows):
        """Predict rows and judge all of them."""
        start = self._chance.randrange(len(self._model.values) - rows)
        puid = f"{self._name}-{len(self.times)}-{start}"
        values = self._model.values[start : start + rows].tolist()
        if self.post("/predict", {"meta": {"puid": puid}, "data": {"ndarray": values}}) is None:
            return
        for row, score in enumerate(self._model.scores[start : start + rows]):
            self.labels[puid, row] = int(score < 0)
            self.possible[puid, row] = {None}
            self.keys.append((puid, row))
        self.say(puid, None, [self._chance.randrange(2) for _ in range(rows)])

    def say(self, puid, row, truths):
        """Tell the truth about one row of a prediction, or about all of them."""
        meta = {"puid": puid} | ({} if row is None else {"tags": {"row": row}})
        body = {"request": {"meta": meta}, "truth": {"data": {"ndarray": truths}}}
        body["reward"] = self._chance.choice((0.1, 0.7, -1, 0))
        keys = [(puid, number if row is None else row) for number in range(len(truths))]
        for key, truth in zip(keys, truths, strict=True):
            self.possible[key] |= {truth}
        self.sent += len(keys)
        if self.post("/send-feedback", body) is None:
            return
        self.acknowledged += len(keys)
        for key, truth in zip(keys, truths, strict=True):
            self.possible[key] = {truth}

    def post(self, path, body):
        """Return the answer, None if it did not come."""
        try:
            if self._connection.sock is None:
                self._connection.connect()
        except OSError:
            self.broken += not self._again
            time.sleep(0.01)
            return None
        began = time.perf_counter()
        try:
            headers = {"Content-Type": "application/json"}
            self._connection.request("POST", path, json.dumps(body), headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self.broken += 1
            return None
        self.times.append((began, time.perf_counter()))
        if response.status != 200:
            self.faults.append(f"{response.status} {text[:200]!r}")
            return None
        return json.loads(text)


@contextlib.contextmanager
def voices(service, name, model, again=True):
    """Let eight voices be heard."""
    threads = [Voice(service.port, f"{name}-{n}", model, again) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.stop.set()
        for thread in threads:
            thread.join()


def ask(service, query):
    """Ask the database of a service, as a stranger would."""
    with contextlib.closing(sqlite3.connect(service.state / "feedback.db", timeout=10)) as database:
        return database.execute(query).fetchall()


def check_feedback(report, service, heard):
    """Compare the table with what was acknowledged, and /metrics with the table."""
    table = {(puid, row): (label, truth) for puid, row, label, truth in ask(
        service, "SELECT puid, row, label, truth FROM truths ORDER BY place")}  # fmt: skip
    possible = dict(chain.from_iterable(voice.possible.items() for voice in heard))
    labels = dict(chain.from_iterable(voice.labels.items() for voice in heard))
    found = {key: table[key][1] if key in table else None for key in possible}
    lost = sum(found[key] not in possible[key] for key in possible)
    report.check(not lost, f"{lost} rows do not have the truth that was acknowledged last")
    wrong = sum(label != labels.get(key) for key, (label, _) in table.items())
    report.check(not wrong, f"{wrong} rows are judged by another label than was answered")
    report.sent = sum(voice.sent for voice in heard)
    report.acknowledged = sum(voice.acknowledged for voice in heard)
    report.broken = sum(voice.broken for voice in heard)
    report.counted = len(table)
    unsure = {key for key, truths in possible.items() if len(truths) > 1}
    report.broken_counted = sum(key in table for key in unsure)
    report.faults += list(chain.from_iterable(voice.faults for voice in heard))[:3]
    check_figures(report, service, list(table.values()))


def check_figures(report, service, pairs):
    """Compare what /metrics says with scikit-learn's functions over (label, truth) pairs."""
    samples = {name: value for (name, labels), value in scrape(service).items() if len(labels) > 2}
    expected = {}
    for suffix, part in (("tot", pairs), ("roll", pairs[-100:])):
        if not part:
            continue
        labels, truths = zip(*part, strict=True)
        expected[f"nb_labels_{suffix}"], expected[f"nb_outliers_{suffix}"] = len(part), sum(truths)
        expected[f"accuracy_{suffix}"] = metrics.accuracy_score(truths, labels)
        if any(labels):
            expected[f"precision_{suffix}"] = metrics.precision_score(truths, labels)
        if any(truths):
            expected[f"recall_{suffix}"] = metrics.recall_score(truths, labels)
            expected[f"f2_{suffix}"] = metrics.fbeta_score(truths, labels, beta=2)
        if any(truths) or any(labels):
            expected[f"f1_{suffix}"] = metrics.f1_score(truths, labels)
        if suffix == "tot":
            matrix = metrics.confusion_matrix(truths, labels, labels=[0, 1]).ravel().tolist()
            names = ("true_negative", "false_positive", "false_negative", "true_positive")
            expected |= dict(zip(names, matrix, strict=True))
    rewards = [reward for (reward,) in ask(service, "SELECT reward FROM rewards")]
    expected["seldon_api_model_feedback_total"] = sum(reward != 0 for reward in rewards)
    expected["seldon_api_model_feedback_reward_total"] = math.fsum(rewards)
    wrong = [name for name, value in expected.items() if samples.get(name) != value]
    report.check(not wrong, f"{wrong} differ from a recount")
    return samples


def storm_feedback_workers(model, start, kills=100):
    """Feedback while random workers are killed."""
    report, chance, heard = Report(f"feedback, {kills} x kill -9 of a worker"), random.Random(6), []
    service = start(workers=4)
    for kill in range(kills):
        with voices(service, f"fw{kill}", model) as speaking:
            time.sleep(chance.uniform(0.05, 0.3))
            killed = time.perf_counter()
            os.kill(chance.choice(service.workers()), signal.SIGKILL)
            time.sleep(0.25)
        waits = [end - killed for v in speaking for began, end in v.times if began > killed]
        report.check(waits, "no answer after a kill")
        report.worst_wait = max(report.worst_wait, min(waits, default=0.0))
        heard += speaking
        check_feedback(report, service, heard)
    service.stop()
    check_log(report, service)
    return report


def storm_feedback_group(model, start, kills=30):
    """Feedback while all processes are killed at once; start again on the same folder."""
    report, chance, heard = (
        Report(f"feedback, {kills} x kill -9 of the group"),
        random.Random(7),
        [],
    )
    service = start(workers=4)
    for kill in range(kills):
        with voices(service, f"fg{kill}", model, again=False) as speaking:
            time.sleep(chance.uniform(0.05, 0.5))
            service.kill()
        service = start(workers=4, again=service)
        heard += speaking
        check_feedback(report, service, heard)
        sound = ask(service, "PRAGMA integrity_check") == [("ok",)]
        report.check(sound, "the database is damaged")
    service.stop()
    check_log(report, service)
    return report


def storm_feedback_repeats(model, start, messages=10_000):
    """Three messages of ten are said before, and half of those otherwise; all in random order."""
    report, chance = (
        Report(f"{messages:,} feedbacks, 30 % of them again or otherwise"),
        random.Random(8),
    )
    service = start(workers=4)
    first = int(messages * 0.7)
    heard = [Voice(service.port, f"fr{n}", model) for n in range(CLIENTS)]
    said = [[] for _ in heard]
    truths = {}
    for number in range(first):
        voice = heard[number % CLIENTS]
        score = model.scores[number % len(model.scores)]
        key = f"r{number}", 0
        voice.labels[key], voice.possible[key] = int(score < 0), {None}
        truths[key] = chance.randrange(2)
        said[number % CLIENTS].append((number, truths[key]))
    for number in chance.sample(range(first), messages - first):
        truth = truths[f"r{number}", 0]
        said[number % CLIENTS].append((number, truth if number % 2 else 1 - truth))

    def speak(voice, sayings):
        voice._connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        with contextlib.closing(voice._connection):
            for number, truth in sayings:
                if voice.possible[f"r{number}", 0] == {None}:
                    values = [model.values[number % len(model.values)].tolist()]
                    body = {"meta": {"puid": f"r{number}"}, "data": {"ndarray": values}}
                    voice.post("/predict", body)
                voice.say(f"r{number}", None, [truth])

    for sayings in said:
        chance.shuffle(sayings)
    threads = [threading.Thread(target=speak, args=pair) for pair in zip(heard, said, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_feedback(report, service, heard)
    report.check(report.acknowledged == messages, "a feedback failed")
    report.check(report.counted == first, "a row is missing, or counted twice")
    revised = ask(service, "SELECT count(*) FROM revisions WHERE truth IS NOT NULL")[0][0]
    otherwise = sum(1 for share in said for number, truth in share if number % 2 == 0) - len(
        range(0, first, 2)
    )
    report.check(revised == otherwise, f"{revised} revisions are kept of {otherwise}")
    service.stop()
    check_log(report, service)
    return report


def storm_feedback_many(model, start, labels=100_000):
    """One feedback takes as long after many as before them."""
    report = Report(f"{labels:,} labels")
    service = start(workers=2)
    heard = [Voice(service.port, "fm", model)]
    voice = heard[0]
    voice._connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)

    def median(count=300):
        before = len(voice.times)
        for _ in range(count):
            voice.begin(1)
        return float(np.median([end - began for began, end in voice.times[before:][1::2]]))

    with contextlib.closing(voice._connection):
        median()
        few = median()
        while len(voice.keys) < labels:
            voice.begin(500)
        many = median()
    print(f"one feedback: {1000 * few:.2f} ms, after {len(voice.keys):,} labels "
          f"{1000 * many:.2f} ms (medians of 300)", flush=True)  # fmt: skip
    report.check(many < 1.5 * few + 0.001, "many labels slow a feedback down")
    check_feedback(report, service, heard)
    service.stop()
    check_log(report, service)
    return report


class Asker(threading.Thread):
    """Posts one body over and over; notes status and seconds of each answer."""

    def __init__(self, port, path, body):
        super().__init__(daemon=True)
        self._port, self._path, self._body = port, path, json.dumps(body)
        self.stop, self.answers = threading.Event(), []

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        with contextlib.closing(connection):
            while not self.stop.is_set():
                began = time.perf_counter()
                connection.request(
                    "POST", self._path, self._body, {"Content-Type": "application/json"}
                )
                response = connection.getresponse()
                response.read()
                waits = response.status == 503 and response.getheader("Retry-After") == "1"
                seconds = time.perf_counter() - began
                self.answers.append((503 if waits else response.status, seconds))
                time.sleep(0.005)


def ask_both(service, seconds):
    """Predict and give feedback for a while, three clients each; return what both were answered."""
    row = {"data": {"ndarray": [[1.0, 2.0]]}}
    feedback = {"request": row, "truth": {"data": {"ndarray": [0]}}}
    threads = [
        Asker(service.port, path, body)
        for path, body in (("/predict", row), ("/send-feedback", feedback))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    for thread in threads:
        thread.stop.set()
    for thread in threads:
        thread.join()
    answers = [thread.answers for thread in threads]
    return list(chain(*answers[:3])), list(chain(*answers[3:]))


def check_refused(report, service, predicted, said):
    """Check that predictions went on, that feedback was told to wait, and that metrics say so."""
    report.sent += len(said)
    report.check({status for status, _ in predicted} == {200}, "a prediction failed")
    report.check({status for status, _ in said} == {503}, "feedback was not told to wait")
    slowest = max(seconds for _, seconds in said)
    report.check(slowest < 2, f"feedback was told to wait after {slowest:.1f} s")
    up = scrape(service)["isoserve_storage_up", ()]
    report.check(up == 0, "the metrics say that the storage is up")
    return slowest


def check_mended(report, service):
    """Check that all is well again a second later, without a restart."""
    predicted, first = ask_both(service, 1.0)
    more, said = ask_both(service, 1.0)
    well = {status for status, _ in predicted + more + said} == {200}
    report.check(well, "it did not mend itself")
    report.check(scrape(service)["isoserve_storage_up", ()] == 1, "the storage is not up again")
    report.acknowledged += sum(status == 200 for status, _ in first + said)
    report.sent += len(first + said)
    pairs = ask(service, "SELECT label, truth FROM truths ORDER BY place")
    report.counted = len(pairs)
    check_figures(report, service, pairs)
    report.check(report.counted == report.acknowledged, "a row is missing, or was stored halfway")


def storm_feedback_locked(model, start, seconds=30):
    """F10: somebody holds the database's lock."""
    report = Report(f"feedback, a lock held for {seconds} s")
    service = start(workers=2)
    ask_both(service, 0.5)
    predicted, said = ask_both(service, max(seconds / 4, 2))
    report.acknowledged = len(ask(service, "SELECT 1 FROM truths"))
    free = np.percentile([seconds for _, seconds in predicted], 99)
    lock = sqlite3.connect(service.state / "feedback.db", isolation_level=None)
    with contextlib.closing(lock):
        lock.execute("BEGIN EXCLUSIVE")
        predicted, said = ask_both(service, seconds)
        slowest = check_refused(report, service, predicted, said)
    held = np.percentile([seconds for _, seconds in predicted], 99)
    print(f"99 % of predictions within {1000 * free:.1f} ms, with the lock held "
          f"{1000 * held:.1f} ms; slowest 503 {slowest:.2f} s", flush=True)  # fmt: skip
    check_mended(report, service)
    service.stop()
    check_log(report, service)
    return report


def storm_feedback_full(model, start, seconds=10):
    """F4: the disk is full."""
    report = Report(f"feedback, a full disk for {seconds} s")
    with tempfile.TemporaryDirectory() as folder, small_disk(folder) as mounted:
        service = start(workers=2, state_dir=folder)
        try:
            ask_both(service, 0.5)
            if mounted:
                fill(folder)
            else:
                stop_growth(service, (service.state / "feedback.db-wal").stat().st_size)
            ask_both(service, 1.0)  # there may be room for some in what the log of SQLite has
            report.acknowledged = len(ask(service, "SELECT 1 FROM truths"))
            predicted, said = ask_both(service, seconds)
            check_refused(report, service, predicted, said)
            if mounted:
                (Path(folder) / "fill").unlink()
            else:
                stop_growth(service, resource.RLIM_INFINITY)
            check_mended(report, service)
            service.stop()
            check_log(report, service)
        finally:
            service.kill()
    return report


STORMS = {
    storm_workers: {"kills": 100},
    storm_group: {"kills": 30},
    storm_disk: {"predictions": 1000},
    storm_clock: {"seconds": 10},
    storm_restarts: {"restarts": 5},
    storm_rows: {"rows": 200_000},
    storm_feedback_workers: {"kills": 100},
    storm_feedback_group: {"kills": 30},
    storm_feedback_repeats: {"messages": 10_000},
    storm_feedback_many: {"labels": 100_000},
    storm_feedback_locked: {"seconds": 30},
    storm_feedback_full: {"seconds": 10},
}


def run(storm, share=1.0, **more):
    """Run a storm, or a share of it, and return its report; nothing that it started is left."""
    started = []
    with tempfile.TemporaryDirectory() as folder:

        def start(again=None, **settings):
            """Start a service; `again` on the folder and port of one that has ended."""
            if again:
                settings = {"port": again.port, "state_dir": again.state} | settings
            state = Path(settings.pop("state_dir", Path(folder) / "state"))
            log = Path(folder) / "service.log"
            service = Service(model.path, log, state_dir=state, log_level="WARNING", **settings)
            service.state = state
            started.append(service)
            service.wait_until_ready()
            return service

        model = Model(Path(folder))
        amounts = {name: max(1, int(n * share)) for name, n in STORMS[storm].items()}
        try:
            return storm(model, start, **amounts, **more)
        finally:
            for service in started:
                service.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tenth", action="store_true", help="a tenth of everything")
    parser.add_argument("--only", default="", metavar="WORD", help="those with a name like this")
    arguments = parser.parse_args()
    share = 0.1 if arguments.tenth else 1.0
    table = Table(
        "storm", "rows sent", "acknowledged", "counted", "connections broken", "of them counted",
        "longest wait", "verdict", box=None,
    )  # fmt: skip
    faults = []
    for storm in (storm for storm in STORMS if arguments.only in storm.__name__):
        started = time.monotonic()
        report = run(storm, share)
        report.check(report.worst_wait < 1.0, "no answer within a second of a kill")
        print(f"{report.name}: {time.monotonic() - started:.0f} s", flush=True)
        numbers = report.sent, report.acknowledged, report.counted
        faults += [f"{report.name}: {fault}" for fault in report.faults]
        table.add_row(
            report.name, *(f"{n:,}" for n in numbers), str(report.broken),
            str(report.broken_counted),
            f"{report.worst_wait:.3f} s" if report.worst_wait else "",
            "WRONG" if report.faults else "exact",
        )  # fmt: skip
    Console(width=140).print(table)
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
