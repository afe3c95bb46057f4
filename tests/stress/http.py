"""Malformed bodies, framing attacks, overload, slow clients and stops."""

import contextlib
import http.client
import itertools
import json
import logging
import os
import pickle
import random
import re
import select
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from service.app import create_app
from service.protocols import mlflow
from service.settings import Settings
from service.state.counts import OTHER
from service.web.health import LIVENESS, READINESS
from tests.support import framing
from tests.support.callers import JSON, Caller, Crowd, Unanswered
from tests.support.running import read_samples, serving
from tests.support.tally import Tally

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parents[1] / "corpus"
V2_ROW = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP64","data":[1,2]}]}'
ONE_ROW = b'{"data":{"ndarray":[[1,2]]}}'
KINDS = ("application/json", "text/csv", "application/x-www-form-urlencoded", "text/plain", "")

cells = st.one_of(
    st.floats(), st.floats(-100, 100), st.integers(-(10**400), 10**400), st.text(max_size=3),
    st.none(), st.booleans(), st.lists(st.integers(), max_size=2),
)  # fmt: skip
tables = st.one_of(
    st.lists(st.lists(st.floats(-100, 100), min_size=2, max_size=2), min_size=1, max_size=20),
    st.lists(st.lists(cells, max_size=3), max_size=4),
)
names = st.one_of(st.none(), st.just(["mean", "sd"]), st.lists(st.text(max_size=4), max_size=3))
shapes = st.lists(st.integers(-2, 2**70), max_size=3)
anything = st.recursive(
    cells, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=9
)
metas = st.dictionaries(st.sampled_from(["puid", "tags", "metrics", "requestPath"]), anything)
seldon = st.fixed_dictionaries(
    {"data": st.one_of(
        st.fixed_dictionaries({"ndarray": tables}, optional={"names": names}),
        st.fixed_dictionaries({"tensor": st.fixed_dictionaries(
            {"shape": shapes, "values": st.lists(cells, max_size=6)})}),
        anything)},
    optional={"meta": metas},
)  # fmt: skip
v2 = st.fixed_dictionaries(
    {"inputs": st.lists(st.fixed_dictionaries(
        {"name": st.text(max_size=4), "shape": shapes, "data": st.one_of(tables, anything),
         "datatype": st.sampled_from(["FP64", "FP32", "INT64", "BYTES", "x"])}), max_size=3)},
)  # fmt: skip
tables_of_mlflow = st.fixed_dictionaries(
    {}, optional={key: st.one_of(tables, anything) for key in
                  ("dataframe_split", "dataframe_records", "inputs", "instances")},
)  # fmt: skip
feedback = st.fixed_dictionaries(
    {}, optional={"request": seldon, "truth": seldon, "reward": cells, "response": seldon}
)
messages = st.one_of(seldon, v2, tables_of_mlflow, feedback, anything)
made_up = st.one_of(
    messages.map(lambda message: json.dumps(message).encode()),
    messages.map(lambda message: json.dumps(message)[:-1].encode()),
    st.text().map(lambda text: text.encode("utf-16", "surrogatepass")),
    st.binary(max_size=300),
)


def save_model(folder):
    """Save a forest of two columns, and return its path."""
    table = np.random.default_rng(16).lognormal(size=(2000, 2))
    path = folder / "model.pickle"
    path.write_bytes(pickle.dumps(IsolationForest(n_estimators=50, random_state=16).fit(table), 5))
    return path


def served(folder, **chosen):
    """Serve a model until the `with` block ends."""
    return serving(save_model(folder), folder / "service.log", **chosen)


def quiet():
    """Silence the logs of the service in this process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger().setLevel(logging.CRITICAL)


def stress_bodies(folder, bodies=10_000):
    """Send malformed bodies to every route: each is answered or refused in the right shape."""
    quiet()
    app = create_app(Settings(model=save_model(folder), state_dir=folder / "state"))
    client = app.test_client()
    taking = [rule for rule in app.url_map.iter_rules() if "POST" in rule.methods]
    paths = [rule.rule.replace("<model>", "isoserve").replace("<version>", "1") for rule in taking]
    chance, tally = random.Random(16), Tally("malformed bodies answered or refused")

    def ask(name, path, body, kind):
        started = time.process_time()
        answer = client.post(path, data=body, content_type=kind)
        seconds = time.process_time() - started
        fault = fault_of(path, answer) or ("" if seconds < 5 else f"took {seconds:.1f} s")
        tally.note(f"{name} to {path}", fault, seconds, str(answer.status_code))

    for file in sorted(CORPUS.iterdir()):
        for path in paths:
            ask(file.name, path, file.read_bytes(), "application/json")

    @settings(max_examples=bodies, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(made_up)
    def try_out(body):
        ask(repr(body[:200]), chance.choice(paths), body, chance.choice(KINDS))

    try_out()
    return tally


def fault_of(path, answer):
    """Return what is wrong with an answer from a path, if anything."""
    if answer.status_code >= 500:
        return f"{answer.status_code} {answer.data[:200]!r}"
    if answer.headers.get("X-Content-Type-Options") != "nosniff":
        return "no security headers"
    if answer.mimetype != "application/json":
        is_page = path.startswith("/console") and answer.mimetype == "text/html"
        sound = is_page or answer.status_code < 400
        return "" if sound else f"a refusal of type {answer.mimetype}"
    try:
        value = json.loads(answer.data, parse_constant=_refuse_constant)
    except ValueError as error:
        return f"no JSON: {error}"
    mark = "error" if path.startswith("/v2") else "error_code" if path in mlflow.PATHS else "status"
    if answer.status_code >= 400 and not (isinstance(value, dict) and mark in value):
        return f"not in a protocol's shape: {answer.data[:200]!r}"
    return "" if b"Traceback" not in answer.data else "a stack trace"


def _refuse_constant(text):
    raise ValueError(f"{text} is no number")


def stress_framing(folder):
    """Send requests with contradictory framing: one refusal each, and only JSON in the log."""
    tally = Tally("framing attacks refused")
    with served(folder, access_log=1) as service:
        for name, (request, statuses) in framing.ATTACKS.items():
            answer = framing.send(service.port, request)
            tally.note(
                name, framing.fault_of(request, answer, statuses), found=answer[9:12].decode()
            )
        fault = "" if service.request("GET", "/live")[0] == 200 else "/live does not answer"
        tally.note("liveness afterwards", fault)
        for line in service.log.read_text().splitlines():
            try:
                fault = "" if isinstance(json.loads(line), dict) else f"a forged line: {line!r}"
            except ValueError:
                fault = f"a line that is not JSON: {line!r}"
            tally.note("log line", fault)
    return tally


AT_THE_EDGE = {
    "HTTP/2.0 without its preface": (b"GET /live HTTP/2.0\r\nHost: x\r\n\r\n", {505}),
    "a probe without a host": (b"GET /live HTTP/1.0\r\n\r\n", {200}),
    "garbage": (b"GARBAGE\r\n\r\n", {400}),
    "no path": (b"GET  HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    "TLS where none is spoken": (b"\x16\x03\x01" + b"a" * 20 + b"\r\n\r\n", {400}),
    "a broken escape": (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    "another method": (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", {400, 405}),
    "a long header": (framing.HEAD + b"X: " + b"a" * 40_000 + b"\r\n\r\n", {400, 494}),
}
"""Requests to nginx, and the statuses that are allowed in the answer."""


def stress_edge(folder):
    """Send invalid requests to nginx: it refuses them in JSON, and speaks TLS."""
    tally = Tally("invalid requests refused by the proxy")
    if not shutil.which("nginx"):
        tally.missing = "nginx"
        return tally
    with served(folder) as service, edge(folder, service.port) as port:
        for name, (request, statuses) in AT_THE_EDGE.items():
            answer = framing.send(port, request)
            status = int(answer[9:12] or 0)
            fault = "" if status in statuses else f"{status}"
            refused = (
                b'{"status":{"code":-1,' in answer and b"\r\nX-Content-Type-Options: " in answer
            )
            if status >= 400 and not refused:
                fault = f"not in Seldon's shape: {answer[-200:]!r}"
            tally.note(name, fault, found=str(status))
    with served(folder) as service:
        with edge(folder, service.port, EDGE_MAX_BODY="100") as port:
            _refuse_in_shape(tally, port, 413, b" " * 101)
        with edge(folder, service.port, EDGE_RATE="1") as port:
            for _ in range(150):
                ask(port, "/predict")
            _refuse_in_shape(tally, port, 429, ONE_ROW)
            _check_health(tally, port, "beside a flood")
        with edge(folder, service.port, EDGE_REQUESTS="3") as port:
            _hold_requests(tally, port, 3)
        with edge(folder, service.port, command=FULL) as port:
            _refuse_in_shape(tally, port, 503, b" " * 200_000)
            tally.note("a body that fits", "" if ask(port, "/predict") == 200 else "not answered")
        _speak_tls(tally, folder, service)
        service.kill()
        with edge(folder, service.port) as port:
            _refuse_in_shape(tally, port, 503, ONE_ROW)
    return tally


SHAPES = {"/predict": "status", "/v2/models/isoserve/infer": "error", "/invocations": "error_code"}
"""The key that an error has in each protocol."""

CODES = {403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED", 503: "TEMPORARILY_UNAVAILABLE"}
"""MLflow's error codes for statuses of nginx; the others have BAD_REQUEST."""


FULL = ("sh", "-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\"")
"""Runs a command that cannot write files of more than 50 kB, as on a full disk."""


def _hold_requests(tally, port, number):
    """Check that nginx limits the requests of one address, and takes more when those end."""
    with contextlib.ExitStack() as held:
        for _ in range(number):
            slow = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            slow.sendall(framing.HEAD + b"Content-Length: 99\r\n\r\n{")
        time.sleep(0.2)
        _refuse_in_shape(tally, port, 429, ONE_ROW)
        _check_health(tally, port, "beside held requests")
    time.sleep(0.2)
    tally.note("after held requests", "" if ask(port, "/predict") == 200 else "not answered")


def _refuse_in_shape(tally, port, status, body, context=None):
    """Check that nginx refuses in the shape of each path's protocol."""
    for path, key in SHAPES.items():
        got, headers, text = call(port, path, body, context)
        refusal = json.loads(text)
        fault = "" if got == status and key in refusal else f"{got} {text[:100]!r}"
        if key == "error_code" and refusal.get(key) != CODES.get(status, "BAD_REQUEST"):
            fault = fault or f"{refusal} is not MLflow's for {status}"
        if headers["Content-Type"] != "application/json" or headers["Server"] != "nginx":
            fault = fault or f"not of nginx: {headers}"
        if (status in (429, 503)) != ("Retry-After" in headers):
            fault = fault or "Retry-After"
        tally.note(f"{status} for {path}", fault, found=str(got))


def _check_health(tally, port, when):
    """Check that every health route answers."""
    for path in (*sorted(READINESS | LIVENESS), "/v2/models/isoserve/ready"):
        status, _, text = call(port, path)
        tally.note(f"{path} {when}", "" if status == 200 else f"{status} {text[:100]!r}")
        status, _, text = call(port, path, b" " * 20_000)  # not counted against EDGE_REQUESTS
        fault = "" if status == 413 else f"{status} {text[:100]!r}"
        tally.note(f"{path} with a body {when}", fault, found=str(status))


def _speak_tls(tally, folder, service):
    """Check that with a certificate nginx speaks TLS 1.2 and 1.3 and refuses plain HTTP."""
    certificates = folder / "certs"
    certificates.mkdir()
    certificate, key = certificates / "tls.crt", certificates / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        tls_port = probe.getsockname()[1]
    chosen = {"EDGE_CERTS": str(certificates), "EDGE_TLS_PORT": f"127.0.0.1:{tls_port}"}
    with edge(folder, service.port, **chosen) as port:
        trusting = ssl.create_default_context(cafile=certificate)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            trusting.minimum_version = trusting.maximum_version = version
            for path in SHAPES:
                body = V2_ROW if path.startswith("/v2") else ONE_ROW
                body = b'{"inputs":[[1,2]]}' if path == "/invocations" else body
                status, _, text = call(tls_port, path, body, trusting)
                tally.note(f"{path} over {version.name}", "" if status == 200 else f"{text}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated TLS versions
            trusting.minimum_version = ssl.TLSVersion.TLSv1
            trusting.maximum_version = ssl.TLSVersion.TLSv1_1
        try:
            fault = f"{call(tls_port, '/live', None, trusting)[0]} over TLS 1.1"
        except ssl.SSLError:
            fault = ""
        tally.note("an old version of TLS", fault)
        _refuse_in_shape(tally, port, 403, ONE_ROW)
        _check_health(tally, port, "in the clear")
        tally.note("health in the clear", "" if ask(port, "/live") == 200 else "not answered")
        answer = framing.send(tls_port, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        tally.note("no TLS where it is spoken", "" if answer[9:12] == b"400" else f"{answer[:99]}")


def call(port, path, body=None, context=None):
    """Return status, headers and body of a request, over TLS if `context` is given."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
        if context
        else http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    )
    with contextlib.closing(connection):
        connection.request("POST" if body else "GET", path, body, JSON)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


ROUTES = (
    "/x{}", "/predict/{}", "/docs/{}", "/v2/{}", "/v2/models/{}", "/v2/models/{}/ready",
    "/v2/models/{}/versions/{}/infer", "/v2/models/isoserve/versions/{}", "/v2/models/isoserve/{}",
    "/v2/repository/models/{}/load", "/predict?{}={}", "/api/v1.0/{}",
)  # fmt: skip
"""Paths to request, with random text in their gaps."""


def stress_labels(folder, requests=10_000):
    """Send random names in paths, headers and bodies: none becomes a label of a series."""
    quiet()
    app = create_app(Settings(model=save_model(folder), state_dir=folder / "state"))
    client, chance = app.test_client(), random.Random(16)
    tally = Tally("label growth refused")
    routes = {rule.rule for rule in app.url_map.iter_rules()} | {OTHER}

    def word():
        return "".join(chance.choices("abcdefgh/%.0129", k=chance.randrange(1, 20)))

    def ask_at_random():
        path = chance.choice(ROUTES).format(word(), word())
        method = chance.choice(("GET", "POST", "PUT", "PATCH", word().upper(), "DELETE", "OPTIONS"))
        data = {"meta": {"puid": word(), "tags": {word(): word()}},
                "data": {"names": [word(), word()], "ndarray": [[1, chance.random()]]}}  # fmt: skip
        headers = {"X-Request-ID": word(), "Origin": word(), "User-Agent": word()}
        answer = client.open(path, method=method, json=data, headers=headers)
        tally.note(
            f"{method} {path}", fault_of(answer.request.path, answer), found=str(answer.status_code)
        )

    def series():
        return {(name, labels) for name, labels in read_samples(client.get("/metrics").text)}

    version = client.get("/v2/models/isoserve").json["versions"][0]
    for rule in sorted(routes - {OTHER}):  # create every possible series first
        right = rule.replace("<model>", "isoserve").replace("<version>", version)
        for path, method in itertools.product((right, rule), ("GET", "POST", "PUT", "OPTIONS")):
            client.open(path, method=method)
    for _ in range(requests // 2):
        ask_at_random()
    half = series()
    for _ in range(requests // 2):
        ask_at_random()
    found = series()
    tally.note("growth", "" if found == half else f"{sorted(found - half)[:9]} came with time")
    tally.note("series", "" if len(found) < 500 else f"{len(found)} series")
    asked = {dict(labels).get("route", OTHER) for _, labels in found}
    tally.note("routes", "" if asked <= routes else f"routes {sorted(asked - routes)[:9]}")
    tally.found["series"] = len(found)
    return tally


LEAST_FUZZED = 100
"""The number of inputs from which atheris tries more than the files it was given."""

FUZZ_ROUND = 60
"""Seconds of one process of atheris: its own memory grows by a few kB with each input."""


def stress_fuzz(folder, seconds=600):
    """Fuzz bodies and model files with atheris, guided by code coverage: no crash."""
    tally = Tally("inputs of atheris survived")
    model = save_model(folder)
    for target in ("parser", "loader"):
        seeds = folder / target
        seeds.mkdir()
        files = sorted(CORPUS.iterdir()) if target == "parser" else [model]
        for file in files:
            if file.stat().st_size < 65536 or target == "loader":
                shutil.copy(file, seeds)
        left = max(5, seconds // 2)
        while left > 0 and _fuzz(tally, target, seeds, min(left, FUZZ_ROUND)):
            left -= FUZZ_ROUND
    tally.held = tally.tried - len(tally.faults)
    return tally


def _fuzz(tally, target, seeds, seconds):
    """Fuzz in one process, which adds inputs to `seeds`; return whether it was without a crash."""
    least = max(LEAST_FUZZED, len(list(seeds.iterdir())))
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress.fuzz", target, seeds,
         f"-max_total_time={seconds}", "-rss_limit_mb=4096", "-timeout=20",
         f"-artifact_prefix={seeds.parent}/", "-max_len=200000", "-print_final_stats=1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77:
        tally.missing = "atheris"
        return False
    found = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    runs = int(found[1]) if found else 0
    tally.found[target] += runs
    tally.tried += runs
    if done.returncode:  # atheris ends at the first crash
        tally.faults.append(f"{target}: {done.stderr[-2000:]}")
    elif runs <= least:
        tally.faults.append(f"{target}: only {runs} inputs were made")
    return not done.returncode


class Client(Caller):
    """Sends requests until stopped or until the event `heed` is set; each answer is a `Reply`."""

    def __init__(self, port, body, pause, heed):
        super().__init__(port)
        self.body, self.pause, self.heed = body, pause, heed
        self.answers, self.broken = [], []

    def call(self):
        if self.heed and self.heed.is_set():
            self.stop.set()
            return
        try:
            self.answers.append(self.post("/predict", self.body))
        except Unanswered as error:
            self.broken.append(error)
            return
        if self.pause:
            self.stop.wait(self.pause)


def clients(port, number, body, pause=0.0, heed=None):
    """Return clients that send requests continuously."""
    return Crowd(Client(port, body, pause, heed) for _ in range(number))


def p99(seconds):
    """Return the 99th percentile."""
    return sorted(seconds)[int(len(seconds) * 0.99)] if seconds else float("inf")


@dataclass
class Flood:
    """The result of requests at a fixed rate, sent by a separate process."""

    answers: list
    broken: int
    late: float
    """The delay of sending in seconds, 99th percentile."""

    def seconds(self, status, since=0.0):
        """Return the seconds that each answer with this status took."""
        return [took for sent, got, took in self.answers if got == status and sent >= since]


def flood(port, rate, seconds, rows):
    command = [sys.executable, "-m", "tests.stress.flood", port, rate, seconds, rows]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return Flood(**json.loads(done.stdout))


LONG = 30
"""The shortest flood, in seconds, whose 99th percentiles are checked, not its medians."""


def stress_overload(folder, seconds=LONG):
    """Send four times the capacity: accepted requests are in time, others are refused quickly."""
    tally, seconds = Tally("requests of a flood answered or refused in time"), max(15, seconds)
    with served(folder) as service:
        for rows in (5_000, 20_000):
            _overload(tally, service, rows, seconds)
    return tally


def _overload(tally, service, rows, seconds):
    """Load a service lightly, then with four times its capacity, then lightly again."""
    table = np.round(np.random.default_rng(16).lognormal(size=(rows, 2)), 3).tolist()
    body = json.dumps({"data": {"ndarray": table}}).encode()
    with clients(service.port, 4, body) as busy:
        time.sleep(4)
    capacity = sum(answer.status == 200 for answer in busy.all("answers")) / 4
    calm = flood(service.port, capacity / 5, 10, rows).seconds(200)
    waits, over = [], threading.Event()

    def look():
        while not over.is_set():
            started = time.perf_counter()
            status, _ = service.request("GET", "/live")
            waits.append(time.perf_counter() - started)
            fault = "" if status == 200 and waits[-1] < 0.5 else f"{status}, {waits[-1]:.2f} s"
            tally.note(f"liveness under {rows} rows a request", fault, waits[-1])
            over.wait(0.1)

    looking = threading.Thread(target=look)
    looking.start()
    under = flood(service.port, 4 * capacity, seconds, rows)
    after = flood(service.port, capacity / 5, 5, rows)
    over.set()
    looking.join()
    taken, refused = under.seconds(200), under.seconds(503)
    for _, status, took in under.answers:
        tally.note(f"flood of {rows} rows a request",
                   "" if status in (200, 503) else str(status), took, str(status))  # fmt: skip
    summary = (
        f"{rows:,} rows a request, {4 * capacity:,.0f} requests a second: p99 of {len(taken):,} "
        f"taken {p99(taken) * 1000:.1f} ms, of {len(calm):,} calm {p99(calm) * 1000:.1f}; p99 of "
        f"{len(refused):,} refused {p99(refused) * 1000:.1f} ms; liveness at worst "
        f"{max(waits) * 1000:.1f} ms; the client was late by {under.late * 1000:.1f} ms"
    )
    print(f"  {summary}", flush=True)
    judge = p99 if seconds >= LONG else statistics.median
    judge_taken = p99 if rows >= 20_000 else judge
    tally.note("calm", "" if calm else "nothing was answered under light load")
    tally.note("taken", "" if judge_taken(taken) < 3 * judge_taken(calm) else summary)
    tally.note("refused", "" if refused and judge(refused) < 0.05 else summary)
    back = judge(after.seconds(200, since=4))
    tally.note("after", "" if back < 2 * judge(calm) else f"{back:.3f} s after it; {summary}")
    tally.note("broken", "" if not under.broken else f"{under.broken} broken connections")


def stress_stops(folder, stops=20):
    """Stop a service under 16 clients that look at /ready, and under 16 that do not."""
    tally = Tally("stops without a lost answer")
    for number in range(stops):
        for heeds in (True, False):
            with served(folder, drain_seconds=2 if heeds else 1) as service:
                stopping = threading.Event()
                with clients(service.port, 16, ONE_ROW, heed=stopping if heeds else None) as some:
                    time.sleep(0.3)
                    started = time.monotonic()
                    service.process.send_signal(signal.SIGTERM)
                    if heeds:
                        while service.request("GET", "/ready")[0] == 200:
                            time.sleep(0.02)
                        stopping.set()
                    code = service.process.wait(timeout=30)
                    took = time.monotonic() - started
                answers, broken = some.all("answers"), some.all("broken")
                begun = sum(error.began for error in broken)
                statuses = {answer.status for answer in answers}
                fault = ""
                if code:
                    fault = f"exit code {code}"
                elif took > 10:
                    fault = f"took {took:.1f} s"
                elif statuses != {200}:
                    fault = f"answers {statuses}"
                elif broken if heeds else begun:
                    fault = f"{len(broken)} lost, {begun} of them begun"
                who = "look at /ready" if heeds else "do not"
                tally.note(f"stop {number} under clients that {who}", fault, took)
                tally.found["answers"] += len(answers)
    return tally


def stress_slow(folder, clients=200):
    """Connect slow and idle clients to nginx: every health check is answered at once."""
    tally = Tally("health checks answered beside slow clients")
    if not shutil.which("nginx"):
        tally.missing = "nginx"
        return tally
    with served(folder) as service, edge(folder, service.port) as port:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n"
        starts = [b"", head, head + b"Content-Type: application/json\r\n\r\n"]
        with contextlib.ExitStack() as held:
            slow = []
            for i in range(clients):
                one = socket.create_connection(("127.0.0.1", port), timeout=10)
                held.enter_context(one)
                one.sendall(starts[i % 3])
                slow.append(one)
            for turn in range(max(20, clients // 4)):
                for i, one in enumerate(slow):
                    if i % 3 == 2 and turn % 5 == 0:
                        with contextlib.suppress(OSError):  # nginx has closed the connection
                            one.sendall(b" ")
                for path in ("/live", "/predict"):
                    started = time.perf_counter()
                    status = ask(port, path)
                    seconds = time.perf_counter() - started
                    fault = "" if status == 200 and seconds < 0.5 else f"{status}, {seconds:.2f} s"
                    tally.note(f"{path} in turn {turn}", fault, seconds, str(status))
                if turn == 0:
                    held_up = [one for one in slow if not is_closed(one)]
                    tally.found["held"] = len(held_up)
                    tally.note("clients held", "" if len(held_up) == clients else f"{len(held_up)}")
                time.sleep(0.05)
            limit = time.monotonic() + 20  # nginx closes silent connections after 5
            while (left := sum(not is_closed(one) for one in slow)) and time.monotonic() < limit:
                time.sleep(0.2)
            tally.note("clients disconnected", f"{left} are still there" if left else "")
    return tally


def is_closed(connection):
    """Return whether the other side has closed a connection."""
    poll = select.poll()  # `select` takes no descriptor over 1023
    poll.register(connection, select.POLLIN)
    try:
        return bool(poll.poll(0)) and not connection.recv(65536)
    except OSError:
        return True


def ask(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        if path == "/predict":
            connection.request("POST", path, ONE_ROW, JSON)
        else:
            connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status


@contextlib.contextmanager
def edge(folder, service_port, command=(), **chosen):
    """Run nginx in front of a service as the container `edge` does; yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "EDGE_SERVICE": f"127.0.0.1:{service_port}", "EDGE_PORT": f"127.0.0.1:{port}",
        "EDGE_DIR": str(folder / "edge"), **chosen,
    }  # fmt: skip
    # If this is root, nginx runs its workers as nobody, who must be able to enter the folder.
    for parent in (folder, *folder.parents[:1]):
        with contextlib.suppress(OSError):
            parent.chmod(parent.stat().st_mode | 0o011)
    with (folder / "edge.log").open("w") as log:
        nginx = subprocess.Popen(
            [*command, ROOT / "deploy/edge/start"], env=os.environ | variables, stderr=log
        )
    try:
        limit = time.monotonic() + 10
        while time.monotonic() < limit and nginx.poll() is None:
            with contextlib.suppress(OSError):
                ask(port, "/live")
                break
            time.sleep(0.05)
        assert nginx.poll() is None, (folder / "edge.log").read_text()
        yield port
    finally:
        nginx.send_signal(signal.SIGQUIT)
        try:
            nginx.wait(5)
        except subprocess.TimeoutExpired:
            nginx.send_signal(signal.SIGTERM)
            nginx.wait(10)
