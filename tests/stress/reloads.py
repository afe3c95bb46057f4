"""Replace models under load, for `make nightly`.

There are two models of one table, A and B, with known scores for some rows. Clients send requests
without a pause and check every answer: its status is 200, it names the model, and its scores are
exactly that model's.
"""

import contextlib
import functools
import hashlib
import json
import os
import pickle
import random
import signal
import threading
import time
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import IsolationForest

from tests.support import hostile
from tests.support.callers import Caller, Crowd, Unanswered
from tests.support.cards import make_card
from tests.support.running import serving
from tests.support.tally import Tally

TOKEN = "a token for nothing but tests"
CLIENTS = 8
ROWS = np.random.default_rng(1).lognormal(size=(100, 2)).tolist()
LATEST = 1.0
"""The longest time in seconds that an answer may take while models are replaced."""


@dataclass(frozen=True)
class Known:
    """A model file, its card, and the scores of ROWS."""

    content: bytes
    card: bytes
    scores: list

    @property
    def version(self):
        return hashlib.sha256(self.content).hexdigest()[:12]


@functools.cache
def make(seed):
    """Return a model of one table; each seed gives another."""
    table = np.random.default_rng(16).lognormal(size=(2000, 2))
    forest = IsolationForest(n_estimators=50, random_state=seed).fit(table)
    content = pickle.dumps(forest, protocol=5)
    card = make_card(content, forest, table, n_golden=32, seed=seed)
    scores = forest.decision_function(np.array(ROWS)).tolist()
    return Known(content, card.to_json().encode(), scores)


class Pair:
    """Models A and B, and the path that one of them is served from."""

    def __init__(self, folder):
        self.path = folder / "model.pickle"
        self.rows = ROWS
        self.a, self.b = make(1), make(2)
        self.known = {model.version: model for model in (self.a, self.b)}

    def put(self, model):
        """Replace the model and its card as training does: the card last, each by renaming."""
        for path, data in (
            (self.path, model.content),
            (self.path.with_suffix(".json"), model.card),
        ):
            part = path.with_suffix(".part")
            part.write_bytes(data)
            part.rename(path)

    def put_alone(self, content):
        """Replace the model by a file without a card."""
        self.path.with_suffix(".json").unlink(missing_ok=True)
        part = self.path.with_suffix(".part")
        part.write_bytes(content)
        part.rename(self.path)


class ScoringClient(Caller):
    """A client that requests the scores of one to four rows repeatedly."""

    def __init__(self, port, pair, seed):
        super().__init__(port)
        self.pair, self.random = pair, random.Random(seed)
        self.broken = []
        """When a connection broke."""
        self.seen = []
        """(sent, answered, version) of each answer."""
        self.faults = []
        self.rows = 0
        """How many rows were answered with 200."""

    def call(self):
        """Request scores of some rows, with or without the scores of each row."""
        start, size = self.random.randrange(96), self.random.choice((1, 1, 4))
        rows = self.pair.rows[start : start + size]
        path = "/predict" if size == 1 else "/predict?scores=1"
        try:
            reply = self.post(path, json.dumps({"data": {"ndarray": rows}}))
        except Unanswered:
            self.broken.append(time.perf_counter())
            return
        version = reply.headers["X-Model-Version"]
        self.seen.append((reply.sent, reply.ended, version))
        if reply.status != 200:
            self.faults.append(f"{reply.status} {reply.body[:200]!r}")
            return
        self.rows += size
        meta = json.loads(reply.body)["meta"]
        if size == 1:  # the mean of one score
            scores = [g["value"] for g in meta["metrics"] if g["key"] == "anomaly_score"]
        else:
            scores = meta["tags"]["anomaly-scores"]
        model = self.pair.known.get(version)
        if model is None or scores != model.scores[start : start + size]:
            self.faults.append(f"version {version} does not score {scores}")


class Load(Crowd):
    """Clients that send requests to a service during a `with` block."""

    def __init__(self, service, pair, clients=CLIENTS):
        super().__init__(ScoringClient(service.port, pair, seed) for seed in range(clients))

    def judge(self, tally, may_break=False):
        """Count every request in a tally."""
        seen, faults, broken = self.all("seen"), self.all("faults"), self.all("broken")
        for fault in faults:
            tally.note("request", fault)
        tally.tried += len(seen) - len(faults)
        tally.held += len(seen) - len(faults)
        tally.worst = max([tally.worst, *(answered - sent for sent, answered, _ in seen)])
        if broken and not may_break:
            tally.note("request", f"{len(broken)} connections broke")
        tally.found["requests"] += len(seen)
        if tally.worst > LATEST:
            tally.faults.append(f"an answer took {tally.worst:.2f} s")

    def judge_versions(self, tally, moment, version):
        """Check that every request sent after `moment` was answered by one version."""
        others = {v for sent, _, v in self.all("seen") if sent > moment and v != version}
        if others:
            tally.faults.append(f"after a swap to {version}, {others} answered")


@contextlib.contextmanager
def served(folder, pair, **settings):
    """Serve model A of a pair, and stop at the end."""
    pair.put(pair.a)
    chosen = {"admin_token": TOKEN, "log_level": "WARNING", "workers": 2} | settings
    with serving(pair.path, folder / "service.log", **chosen) as service:
        yield service


def load(service):
    """Load the model file; return the status and the answer."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    path = "/v2/repository/models/isoserve/load"
    status, body = service.request("POST", path, b"", headers)
    return status, json.loads(body)


def failures(service):
    """Return how many models were refused, by the service's own count."""
    name = "isoserve_model_load_failures_total"
    return sum(value for (sample, _), value in service.scrape().items() if sample == name)


def stress_swaps(folder, swaps=20):
    """Load A and B in turn under load: each load is answered when all workers serve the model."""
    tally, pair = Tally("swaps under load"), Pair(folder)
    with served(folder, pair, workers=4) as service, Load(service, pair) as crowd:
        for number in range(swaps):
            model = (pair.b, pair.a)[number % 2]
            time.sleep(0.3)
            pair.put(model)
            status, answer = load(service)
            moment = time.perf_counter()
            right = status == 200 and answer["model_version"] == model.version and answer["changed"]
            tally.note(f"swap {number}", "" if right else f"{status} {answer}", found="swaps")
            time.sleep(0.3)
            crowd.judge_versions(tally, moment, model.version)
    crowd.judge(tally)
    return tally


def stress_flips(folder, flips=1000):
    """Replace the files while requests and the watch load them: answers are A's or B's."""
    tally, pair = Tally("file flips while reloading"), Pair(folder)
    done = threading.Event()

    def flip():
        rng = random.Random(1)
        for number in range(flips):
            pair.put((pair.b, pair.a)[number % 2])
            time.sleep(rng.uniform(0.0, 0.06))
        done.set()

    with served(folder, pair, watch=1) as service, Load(service, pair, clients=4) as crowd:
        writer = threading.Thread(target=flip)
        writer.start()
        while not done.is_set():
            status, answer = load(service)
            fault = "" if status == 200 else f"{status} {answer}"
            changed = status == 200 and answer["changed"]
            tally.note(
                "load", fault, found="loads that swapped" if changed else "loads of the same"
            )
        writer.join()
    tally.found["flips"] = flips
    crowd.judge(tally)
    return tally


def stress_kills(folder, rounds=10):
    """Kill each worker in turn after a swap; new workers begin with the new model."""
    tally, pair = Tally("kill -9 of each worker after a swap"), Pair(folder)
    with served(folder, pair, workers=3) as service:
        for number in range(rounds):
            model = (pair.b, pair.a)[number % 2]
            pair.put(model)
            load(service)
            moment = time.perf_counter()
            with Load(service, pair, clients=4) as crowd:
                for worker in service.workers():
                    os.kill(worker, signal.SIGKILL)
                    time.sleep(0.5)
            tally.found["workers killed"] += 3
            crowd.judge_versions(tally, moment, model.version)
            crowd.judge(tally, may_break=True)
            end = time.monotonic() + 10
            while len(service.workers()) != 3 and time.monotonic() < end:
                time.sleep(0.1)
            alive = len(crowd.all("seen")) > 0 and len(service.workers()) == 3
            tally.note(f"round {number}", "" if alive else "the service did not recover")
    return tally


def stress_refusals(folder, files=100):
    """Load hostile and damaged files; A answers exactly as before."""
    tally, pair = Tally("refused loads under load"), Pair(folder)
    (folder / "attacks").mkdir()
    attacks = [content for _, content in hostile.attacks(folder / "attacks" / "sentinel")]
    rng = random.Random(16)
    with served(folder, pair) as service, Load(service, pair, clients=2) as crowd:
        for number in range(files):
            damaged = next(hostile.mutations([pair.a.content], 1, seed=number))
            content = rng.choice((damaged, rng.choice(attacks)))
            pair.put_alone(content)
            started = time.perf_counter()
            status, answer = load(service)
            seconds = time.perf_counter() - started
            # A damaged file that can be scored has no card and so other column names than A.
            fault = "" if status in (400, 409) else f"{status} {answer}"
            tally.note(f"file {number}", fault or ("" if seconds < 5 else f"{seconds:.1f} s"))
            tally.found[f"answered {status}"] += 1
        refused = failures(service)
    if refused != files:
        tally.faults.append(f"{refused} failures are counted")
    if list((folder / "attacks").iterdir()) != [folder / "attacks" / "nested.pickle"]:
        tally.faults.append("an attack left something behind")
    crowd.judge(tally)
    return tally
