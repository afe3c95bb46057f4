"""Three replicas on one machine, behind nginx: a rolling restart and a new model, under load."""

import hashlib
import os
import shutil
import subprocess
import time
from contextlib import ExitStack, suppress

from tests.stress.http import edge
from tests.stress.reloads import ROWS, Pair, ScoringClient
from tests.support.callers import Crowd
from tests.support.prometheus import Prometheus
from tests.support.running import ROOT, Service, find_traceback, free_port
from tests.support.tally import Tally

REPLICAS, CLIENTS, DRAIN = 3, 4, 2


class Replica:
    """A service with a port and a state folder of its own, which it keeps after a restart."""

    def __init__(self, folder, number):
        self.name, self.port = f"replica-{number}", free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._folder = folder

    def start(self, path):
        """Serve one model file, pinned by its SHA-256."""
        self.service = Service(
            path, self._folder / f"{self.name}.log", port=self.port, log_level="WARNING",
            state_dir=self._folder / self.name, drain_seconds=DRAIN,
            model_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )  # fmt: skip
        self.service.wait_until_ready()

    def value(self, name):
        """Return the sum of a metric over its labels."""
        return sum(v for (sample, _), v in self.service.scrape().items() if sample == name)


def order(folder, *words):
    """Take a replica out of the running nginx, or put it back."""
    subprocess.run(
        [ROOT / "deploy/edge/start", *words],
        env=os.environ | {"EDGE_DIR": str(folder / "edge")}, check=True,
    )  # fmt: skip


def roll(tally, folder, replicas, path):
    """Restart one replica after the other with a model: out of nginx, drain, start, back."""
    for replica in replicas:
        order(folder, "out", replica.address)
        code = replica.service.stop()
        tally.note(f"{replica.name} stops", "" if code == 0 else f"exit code {code}")
        replica.start(path)
        order(folder, "back", replica.address)


def give_feedback(tally, replicas):
    """Send feedback by puid to each replica, and feedback with its request to another one."""
    first, second, _ = replicas
    rows, truth = ROWS[:2], {"data": {"ndarray": [0, 1]}}

    def predict(puid):
        request = {"meta": {"puid": puid}, "data": {"ndarray": rows}}
        return request, first.service.post("/predict", request)[1]

    def labels():
        return [int(replica.value("nb_labels_tot")) for replica in replicas]

    predict("monday-1")
    alone = {"response": {"meta": {"puid": "monday-1"}}, "truth": truth}
    codes = [replica.service.post("/send-feedback", alone)[0] for replica in replicas]
    right = codes == [200, 404, 404] and labels() == [2, 0, 0]
    tally.note("feedback by puid", "" if right else f"{codes}, {labels()} labels")
    request, response = predict("monday-2")
    whole = {"request": request, "response": response, "truth": truth}
    codes = [second.service.post("/send-feedback", whole)[0] for _ in range(2)]
    right = codes == [200, 200] and labels() == [2, 2, 0]
    tally.note("feedback with its request", "" if right else f"{codes}, {labels()} labels")
    return 2 * len(rows)


def compare_sums(tally, replicas, prometheus, rows):
    """The counts of the replicas add up to the rows that were answered, in Prometheus, too."""
    counted = [int(replica.value("isoserve_samples_total")) for replica in replicas]
    tally.note("sum of counts", "" if sum(counted) == rows else f"{counted}, answered {rows}")
    tally.note("all replicas were asked", "" if all(counted) else f"{counted}")
    if prometheus is None:
        return
    said, limit = {}, time.monotonic() + 20
    expected = {"sum(isoserve_samples_total)": rows, "sum(up)": len(replicas)}
    while said != expected and time.monotonic() < limit:
        time.sleep(0.2)
        with suppress(OSError, ValueError):
            said = {query: prometheus.value(query) for query in expected}
    tally.note("sums in Prometheus", "" if said == expected else f"{said}, not {expected}")


def stress_replicas(folder, rolls=2):
    """Restart all replicas, the last time with another model, while clients ask nginx."""
    tally, pair = Tally("requests to three replicas, restarted one by one"), Pair(folder)
    if not shutil.which("nginx"):
        tally.missing = "nginx"
        return tally
    paths = write_models(folder, pair)
    replicas = [Replica(folder, number) for number in range(REPLICAS)]
    with ExitStack() as running:
        for replica in replicas:
            replica.start(paths[0])
            running.callback(lambda one=replica: one.service.kill())
        prometheus = None
        if shutil.which("prometheus"):
            prometheus = Prometheus(folder, [replica.address for replica in replicas])
            running.callback(prometheus.stop)
        addresses = " ".join(replica.address for replica in replicas)
        port = running.enter_context(edge(folder, 0, EDGE_SERVICE=addresses, EDGE_RATE="100000"))
        with Crowd(ScoringClient(port, pair, seed) for seed in range(CLIENTS)) as crowd:
            for number in range(rolls):
                time.sleep(1)
                roll(tally, folder, replicas, paths[number == rolls - 1])
            moment = time.perf_counter()
            time.sleep(1)
        report(tally, crowd, moment, pair.b.version)
        for replica in replicas:
            tally.note(f"the log of {replica.name}", find_traceback(replica.service.log))
        rows = sum(client.rows for client in crowd.callers)
        compare_sums(tally, replicas, prometheus, rows + give_feedback(tally, replicas))
    return tally


def write_models(folder, pair):
    """Write both models and their cards, each into a folder of its own; return their paths."""
    paths = [folder / name / "model.pickle" for name in "ab"]
    for path, model in zip(paths, (pair.a, pair.b), strict=True):
        path.parent.mkdir()
        path.write_bytes(model.content)
        path.with_suffix(".json").write_bytes(model.card)
    return paths


def report(tally, crowd, moment, version):
    """Count every request: none has failed, and all after the rollout had the new model."""
    seen, broken = crowd.all("seen"), crowd.all("broken")
    for fault in crowd.all("faults"):
        tally.note("request", fault)
    if broken:
        tally.note("connections", f"{len(broken)} broke")
    tally.tried += len(seen)
    tally.held += len(seen)
    tally.found["requests"] += len(seen)
    tally.worst = max(answered - sent for sent, answered, _ in seen)
    others = {v for sent, _, v in seen if sent > moment and v != version}
    tally.note("the new model everywhere", f"{others} answered" if others else "")
