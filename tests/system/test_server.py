"""Real services: processes, ports and signals."""

import contextlib
import gzip
import hashlib
import http.client
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.support import framing
from tests.support.cards import make_card
from tests.support.running import free_port, run_python, serving


@pytest.fixture
def start(tmp_path):
    """Run `python -m service` until it ends."""

    defaults = {"ISOSERVE_STATE_DIR": str(tmp_path / "state"), "ISOSERVE_PORT": str(free_port())}

    def run(**environment):
        return run_python(("-m", "service"), tmp_path, **defaults | environment)

    return run


@pytest.fixture(scope="module")
def shared(tmp_path_factory, forest, samples):
    """One service, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("shared")
    content = pickle.dumps(forest, protocol=5)
    (folder / "model.pickle").write_bytes(content)
    (folder / "model.json").write_text(make_card(content, forest, samples).to_json())
    settings = {"state_dir": folder / "state", "max_body_bytes": 100}
    with serving(folder / "model.pickle", folder / "service.log", **settings) as service:
        service.folder, service.version = folder, hashlib.sha256(content).hexdigest()[:12]
        yield service


def test_a_service_starts_answers_logs_json_and_stops(folder, serve):
    service = serve(folder / "model.pickle", cold=True, access_log=1)
    status, answer = service.post("/predict", {"data": {"ndarray": [[1, 1], [60, 40]]}})
    assert (status, answer["data"]["ndarray"]) == (200, [0, 1])
    asked = {"Origin": "http://a.page", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "content-type, x-api-key"}  # fmt: skip
    url = f"http://127.0.0.1:{service.port}/predict"
    preflight = urllib.request.Request(url, None, asked, method="OPTIONS")
    with urllib.request.urlopen(preflight) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Access-Control-Allow-Headers"] == "content-type, x-api-key"
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert service.stop() == 0
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert "model loaded" in events
    assert any(event.startswith("Listening at") for event in events)
    logged = next(line for line in lines if line.get("route") == "/predict")
    assert (logged["method"], logged["status"]) == ("POST", 200)


def test_ctrl_c_stops_at_once_with_requests_in_flight(folder, serve):
    service = serve(folder / "model.pickle")
    stopped = threading.Event()

    def hammer():
        while not stopped.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                service.request("GET", "/live")

    clients = [threading.Thread(target=hammer) for _ in range(8)]
    for client in clients:
        client.start()
    time.sleep(0.5)
    try:
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=10) == 0
    finally:
        stopped.set()
        for client in clients:
            client.join()


def test_a_client_that_sends_half_a_body_does_not_delay_a_stop(folder, serve):
    service = serve(folder / "model.pickle")
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(head + b"Content-Length: 99\r\n\r\n{")
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=15) == 0  # the grace period of docker compose


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_accepts_the_metrics_page(shared):
    shared.post("/predict", {"data": {"ndarray": [[1, 1], [60, 40]]}})
    _, page = shared.request("GET", "/metrics")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_connections_are_kept_alive(shared):
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=10)
    with contextlib.closing(connection):
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("GET", "/live")
            assert connection.getresponse().read() == b'{"live":true}'
            assert connection.sock is first


def chunked(size):
    """A request whose body comes in chunks, without a length."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    body = b'{"data":{"ndarray":[[1,1]]}}'.ljust(size)
    return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (size, body)


def test_a_chunked_body_is_limited_and_its_errors_are_4xx(shared):
    cases = [
        (chunked(100), b"200"),
        (chunked(101), b"413"),
        (chunked(5000), b"413"),
        (chunked(100).replace(b"\r\n64\r\n", b"\r\n-64\r\n"), b"400"),
        (chunked(100).replace(b"\r\n64\r\n", b"\r\nzz\r\n"), b"400"),
    ]
    for request, status in cases:
        with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as connection:
            connection.sendall(request)
            assert connection.recv(65536).split()[1] == status
    # A client that reads only after it has sent everything gets the answer, too.
    assert (
        shared.request("POST", "/predict", b"x" * 300, {"Content-Type": "application/json"})[0]
        == 413
    )


def test_the_body_limit_holds_on_every_route_for_every_encoding(shared):
    document = json.loads(shared.request("GET", "/openapi.json")[1])
    taking = [
        path for path, item in document["paths"].items() if "requestBody" in item.get("post", {})
    ]
    assert len(taking) > 8
    kind, packed = {"Content-Type": "application/json"}, gzip.compress(b" " * 50_000)
    assert len(packed) < 100
    for rule in taking:
        path = rule.replace("{model}", "isoserve").replace("{version}", shared.version)
        in_chunks = iter([b"x" * 50] * 20)
        assert shared.request("POST", path, b"x" * 101, kind)[0] == 413, path
        assert shared.request("POST", path, in_chunks, kind)[0] == 413, path
        status, _ = shared.request("POST", path, packed, kind | {"Content-Encoding": "gzip"})
        unpacks = path.startswith("/v2/") or path == "/invocations"
        assert status == (413 if unpacks else 400), path


LONG = b"a" * 9000


@pytest.mark.parametrize(
    ("request_line", "rest", "status"),
    [
        (b"GET /v2/" + LONG + b" HTTP/1.1", b"", "414"),
        (b"nonsense", b"", "400"),
        (b"get /v2 HTTP/1.1", b"", "400"),
        (b"GET / HTTP/1.1", b"X: " + LONG, "431"),
        (b"GET /v2 HTTP/3.0", b"", "400"),
        (b"GET /v2/models HTTP/1.1", b"X\0: a", "400"),
        (b"POST /predict HTTP/1.1", b"Content-Length: -1", "400"),
        (b"POST /predict HTTP/1.1", b"Content-Length: " + b"9" * 19, "413"),
        (b"POST /predict HTTP/1.1", b"Transfer-Encoding: x", "501"),
    ],
)
def test_what_is_no_request_is_refused_by_the_server(shared, request_line, rest, status):
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as connection:
        connection.sendall(request_line + b"\r\nHost: x\r\n" + rest + b"\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert str(answer.status) == status, answer.read()


@pytest.mark.parametrize(
    "name",
    [
        "a broken chunk that nobody reads",
        "a host in a trailer that nobody reads",
        "a header that says where the service lies",
        "headers that say two schemes",
    ],
)
def test_contradictory_framing_gets_one_refusal(shared, name):
    request, statuses = framing.ATTACKS[name]
    assert framing.fault_of(request, framing.send(shared.port, request, silence=1), statuses) == ""


def test_an_invalid_setting_ends_the_start_with_one_sentence(start):
    done = start(ISOSERVE_PORT="http")
    assert done.returncode == 1
    assert done.stderr.startswith("isoserve: ISOSERVE_PORT='http': ")
    assert "Traceback" not in done.stderr


def test_a_missing_model_and_a_misspelt_setting_are_reported_at_the_start(start, tmp_path):
    done = start(ISOSERVE_TRESHOLD="1", ISOSERVE_MODEL=str(tmp_path / "none.pickle"))
    assert "is it 'ISOSERVE_THRESHOLD'?" in json.loads(done.stdout.splitlines()[0])["event"]
    assert done.returncode == 1
    assert "none.pickle cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_ends_the_start(start, shared):
    model = str(shared.folder / "model.pickle")
    done = start(ISOSERVE_MODEL=model, ISOSERVE_PORT=str(shared.port))
    assert done.returncode == 1
    assert f"ISOSERVE_PORT={shared.port}: cannot listen there" in done.stderr


def predict(service, rows, **meta):
    return service.post("/predict", {"meta": meta, "data": {"ndarray": rows}})


def test_a_second_service_on_the_same_state_folder_refuses_to_start(start, shared):
    folder = shared.folder
    done = start(
        ISOSERVE_MODEL=str(folder / "model.pickle"), ISOSERVE_STATE_DIR=str(folder / "state")
    )
    assert done.returncode == 1
    assert done.stderr.startswith("isoserve: ISOSERVE_STATE_DIR: ")
    assert f"in use by another service (process {shared.process.pid})" in done.stderr
    assert predict(shared, [[1, 1]])[0] == 200


def test_a_state_folder_that_cannot_be_written_ends_the_start(start, folder):
    done = start(
        ISOSERVE_MODEL=str(folder / "model.pickle"),
        ISOSERVE_STATE_DIR=str(folder / "model.pickle" / "state"),
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def wait_for(condition, seconds=20):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_workers_share_counts_that_survive_a_restart(folder, serve):
    service = serve(folder / "model.pickle", workers=3, state_dir=folder / "state")
    wait_for(lambda: len(service.workers()) == 3)
    for i in range(1, 21):
        _, answer = predict(service, [[1, 1], [60, 40]])
        gauges = {gauge["key"]: gauge["value"] for gauge in answer["meta"]["metrics"]}
        assert (gauges["observation"], gauges["nb_outliers"]) == (2 * i, i)
    wait_for(lambda: b"isoserve_workers 3.0" in service.request("GET", "/metrics")[1])
    assert service.stop() == 0
    again = serve(folder / "model.pickle", workers=1, state_dir=folder / "state")
    assert b"isoserve_samples_total 40.0" in again.request("GET", "/metrics")[1]


def test_state_files_are_readable_by_their_owner_only(shared):
    folder = shared.folder / "state"
    files = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    used = {"feedback.db-wal", "feedback.db-shm"}  # exist while the database is open
    mapped = {"cells.bin", "counts.bin", "records.bin", "swaps.bin", "feedback.bin", "pvalues.bin"}
    lasting = {"service.lock", *mapped, "feedback.db"}
    assert files.keys() - used == lasting
    assert set(files.values()) == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_service_whose_output_is_closed_answers_and_stops(folder):
    port = free_port()
    variables = {"ISOSERVE_STATE_DIR": "state", "ISOSERVE_MODEL": "model.pickle",
                 "ISOSERVE_PORT": str(port), "ISOSERVE_DRAIN_SECONDS": "0",
                 "PYTHONPATH": str(Path(__file__).parents[2])}  # fmt: skip
    command = [sys.executable, "-m", "service"]
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *command],
        cwd=folder,
        env=os.environ | variables,
    )
    try:
        wait_for(lambda: answers(port), 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0
    finally:
        process.kill()


def answers(port):
    with (
        contextlib.suppress(OSError),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection,
    ):
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    return False


def is_ready(service):
    return service.request("GET", "/ready")[0] == 200


def test_a_stop_drains_requests_first(folder, serve):
    service = serve(folder / "model.pickle", drain_seconds=1.5)
    service.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not is_ready(service), 1)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/live")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
    assert predict(service, [[1, 1]])[0] == 200
    assert service.process.wait(timeout=10) == 0


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_drain(folder, serve, second):
    service = serve(folder / "model.pickle", drain_seconds=600)
    service.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not is_ready(service), 5)
    assert service.stop(second) == 0


def test_workers_exit_soon_after_their_parent_is_killed(folder, serve):
    service = serve(folder / "model.pickle", workers=2)
    wait_for(lambda: len(service.workers()) == 2)
    workers = service.workers()
    with socket.create_connection(("127.0.0.1", service.port)) as idle:
        idle.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 8)


# Rows of 666 never return, and rows of 667 block the whole worker.
HANGS = """
import ctypes, runpy, time
from service.serving.detector import Detector
score = Detector.score
def hang(self, rows, *more):
    if rows.values[0, 0] == 666:
        time.sleep(600)
    if rows.values[0, 0] == 667:
        ctypes.PyDLL(None).sleep(600)
    return score(self, rows, *more)
Detector.score = hang
runpy.run_module("service", run_name="__main__")
"""


def prediction(rows, request_id="mine"):
    """Return the bytes of a request."""
    body = json.dumps({"data": {"ndarray": rows}}).encode()
    head = f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        + head.encode()
        + body
    )


def test_a_hung_worker_is_replaced_and_the_log_names_the_request(folder, serve):
    service = serve(folder / "model.pickle", command=("-c", HANGS), workers=1, timeout=2)
    # The first hangs in a thread of the pool, the second in the event loop, and the third holds
    # the interpreter, so that nobody can say which it is.
    for value, rows in ((666, 1000), (666, 1), (667, 1)):
        wait_for(service.workers)
        hung, request_id = service.workers(), f"hung-{value}-{rows}"
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as client:
            client.sendall(prediction([[value, 1]] * rows, request_id))
            with contextlib.suppress(ConnectionResetError):
                assert value == 667 or client.recv(100) == b""
        wait_for(lambda hung=hung: service.workers() and service.workers() != hung)
        assert predict(service, [[1, 1]])[0] == 200
        if value == 666:
            lines = [json.loads(line) for line in service.log.read_text().splitlines()]
            line = next(line for line in lines if line.get("request_id") == request_id)
            assert line["event"] == f"a request hangs; worker {hung[0]} is replaced"
            assert line["request"] == "POST /predict"
            assert line["seconds"] >= 2
            assert "in hang" in line["stack"]


# Loading another model takes 3.5 s longer.
SLOW = """
import runpy, time
from service.serving.reload import ModelSource
load = ModelSource.load
def load_slowly(*arguments, strict=False, **more):
    time.sleep(3.5 * strict)
    return load(*arguments, strict=strict, **more)
ModelSource.load = load_slowly
runpy.run_module("service", run_name="__main__")
"""


def test_slow_clients_and_slow_model_loads_are_not_hung_workers(folder, forest, serve):
    token = "a token for nothing but tests"
    service = serve(
        folder / "model.pickle", command=("-c", SLOW), workers=1, timeout=2, admin_token=token
    )
    wait_for(service.workers)
    workers, body = service.workers(), b'{"data":{"ndarray":[[1,1]]}}'
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    (folder / "model.pickle").write_bytes(pickle.dumps(forest, protocol=4))  # other bytes
    path, key = "/v2/repository/models/isoserve/load", {"Authorization": f"Bearer {token}"}
    with (
        ThreadPoolExecutor() as pool,
        socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection,
        socket.socket() as reader,
    ):
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", service.port))
        reader.sendall(prediction([[1, 1]] * 150_000).replace(b"/predict", b"/predict?scores=1"))
        loading = pool.submit(service.request, "POST", path, b"", key)
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        for part in (body[:9], body[9:]):
            time.sleep(1.7)
            connection.sendall(part)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert loading.result()[0] == 200
        time.sleep(1)
        answer = b"".join(iter(partial(reader.recv, 2**20), b""))  # it was cut off
    length = int(re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)[1])
    assert answer.startswith(b"HTTP/1.1 200 ") and len(answer) < length
    assert service.workers() == workers


CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""Runs a command as the first process of a container."""


def can_unshare():
    return subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode == 0


def has_handler(pid, number):
    """Return whether a process has a handler for a signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return int(caught, 16) >> (number - 1) & 1


@pytest.mark.parametrize(
    ("number", "after", "wrapped"),
    [
        (signal.SIGTERM, 0, ()),
        (signal.SIGINT, 0.2, ()),
        (signal.SIGTERM, 0.5, ()),
        (signal.SIGINT, 1, ()),
        (signal.SIGTERM, 2, ()),
        (signal.SIGTERM, 0, CONTAINER),
        (signal.SIGINT, 0.5, CONTAINER),
    ],
)
def test_a_signal_during_the_start_exits_cleanly(folder, number, after, wrapped):
    if wrapped and not can_unshare():
        pytest.skip("this user may make no process namespaces")
    settings = {"MODEL": "model.pickle", "STATE_DIR": "state", "DRAIN_SECONDS": "0"}
    settings["PORT"] = str(free_port())
    process = subprocess.Popen(
        [*wrapped, sys.executable, "-m", "service"],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(Path(__file__).parents[2])}
        | {f"ISOSERVE_{name}": value for name, value in settings.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            if wrapped:
                wait_for(children.read_text)
            pid = int(children.read_text()) if wrapped else process.pid
            wait_for(
                lambda: has_handler(pid, signal.SIGTERM)
            )  # Python itself has a handler for SIGINT only
            time.sleep(after)
            os.kill(pid, number)
            said = process.communicate(timeout=10)[0].decode()
        finally:
            process.kill()
    assert (process.returncode, "Traceback" in said) == (0, False), said


# Each new worker but the first begins 1.5 s after its fork.
SLOW_FORKS = """
import os, runpy, sys, time
fork, forked = os.fork, []
def fork_slowly():
    by_gunicorn = sys._getframe(1).f_globals["__name__"].startswith("gunicorn.")
    forked.extend([by_gunicorn] * by_gunicorn)
    pid = fork()
    if not pid and by_gunicorn and len(forked) > 1:
        time.sleep(1.5)
    return pid
os.fork = fork_slowly
runpy.run_module("service", run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_fork_reaches_the_new_worker(folder, serve, number):
    service = serve(folder / "model.pickle", command=("-c", SLOW_FORKS), workers=1)
    killed = service.workers()
    os.kill(killed[0], signal.SIGKILL)
    wait_for(lambda: service.workers() not in ([], killed))
    assert service.stop(number) == 0
    assert "SIGKILL" not in service.log.read_text().rpartition("Handling signal")[2]


# Scoring 5,000 rows takes a second longer.
SLOW_TABLES = """
import runpy, time
from service.serving.detector import Detector
score = Detector.score
def score_slowly(self, rows, *more):
    time.sleep(len(rows) == 5000)
    return score(self, rows, *more)
Detector.score = score_slowly
runpy.run_module("service", run_name="__main__")
"""


def test_requests_that_waited_too_long_get_503_and_succeed_on_retry(serve, folder):
    service = serve(folder / "model.pickle", command=("-c", SLOW_TABLES), workers=1, threads=1)
    large, rows = (json.dumps({"data": {"ndarray": [[1, 2]] * n}}) for n in (5000, 3000))
    kind = {"Content-Type": "application/json"}
    asked = threading.Thread(target=service.request, args=("POST", "/predict", large, kind))
    asked.start()
    time.sleep(0.3)
    waiting = []
    for path in ("/predict", "/v2/models/isoserve/infer", *["/predict"] * 18):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        headers = {"Content-Type": "application/json", "X-Request-ID": "mine"}
        connection.request("POST", path, rows, headers)
        waiting.append(connection)
    answers = [connection.getresponse() for connection in waiting]
    bodies = [json.loads(answer.read()) for answer in answers]
    asked.join()
    refused = [i for i, answer in enumerate(answers) if answer.status == 503]
    assert 0 < len(refused) < 20  # one that is alone when its turn comes is answered
    assert {answers[i].headers["Retry-After"] for i in refused} == {"1"}
    assert {answer.headers["X-Request-ID"] for answer in answers} == {"mine"}
    texts = [bodies[i]["error"] if i == 1 else bodies[i]["status"]["info"] for i in refused]
    assert all("more requests wait" in text for text in texts)
    for connection in waiting:
        connection.request("POST", "/predict", rows, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
        connection.close()
    metrics = service.request("GET", "/metrics")[1].decode()
    counted = re.findall(r'isoserve_requests_total.*status="5xx"} (.*)', metrics)
    assert sum(map(float, counted)) == len(refused)


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}, {"Transfer-Encoding": "chunked"}])
def test_a_client_that_sends_far_too_much_still_receives_413(shared, headers):
    body = (
        b"100000\r\n" + bytes(2**20) + b"\r\n"
    )  # one chunk, or the same bytes of a body with a length
    length = {} if "Transfer-Encoding" in headers else {"Content-Length": str(200 * len(body))}
    pieces = iter([body] * 200)
    kind = {"Content-Type": "application/json"}
    assert shared.request("POST", "/predict", pieces, kind | headers | length)[0] == 413


def test_refused_clients_that_keep_sending_occupy_no_thread(serve, folder):
    service = serve(folder / "model.pickle", workers=1, threads=2, api_key="k" * 20)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{"
    with contextlib.ExitStack() as clients:
        lazy = [socket.create_connection(("127.0.0.1", service.port), 30) for _ in range(10)]
        for client in map(clients.enter_context, lazy):
            client.sendall(head)
        began = time.monotonic()
        assert service.request("GET", "/live")[0] == 200
        for client in lazy:
            assert client.recv(1000).startswith(b"HTTP/1.1 401 ")
        assert time.monotonic() - began < 10  # gunicorn's own wait takes twice as long


def test_idle_clients_do_not_delay_others(serve, folder):
    service = serve(folder / "model.pickle", workers=1, threads=2)
    unfinished = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    unclosed = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with contextlib.ExitStack() as clients:
        for first in (b"", unclosed, unfinished):
            for _ in range(20):
                client = socket.create_connection(("127.0.0.1", service.port), timeout=30)
                clients.enter_context(client).sendall(first)
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as client:
            for request in (
                prediction([[1, 1]]),
                b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n",
                b"HEAD /ready HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET /v2/models/isoserve/ready HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET /live HTTP/1.0\r\n\r\n",
            ):
                client.sendall(request)
                with http.client.HTTPResponse(client, method=request[:4].decode()) as answer:
                    answer.begin()
                    answer.read()
                assert answer.status == 200
        assert time.monotonic() - began < 10  # gunicorn itself waits for 5 s for each of them


# Runs a service whose predictions take 10 ms longer.
SLOW_SCORES = """
import runpy, time
from service.serving.detector import Detector
score = Detector.score
def score_slowly(*arguments):
    time.sleep(0.01)
    return score(*arguments)
Detector.score = score_slowly
runpy.run_module("service", run_name="__main__")
"""


def test_a_worker_with_hundreds_of_requests_at_once_is_not_killed_as_hung(serve, folder):
    service = serve(folder / "model.pickle", command=("-c", SLOW_SCORES), workers=1, timeout=1)
    wait_for(service.workers)
    workers = service.workers()
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", service.port)
        clients = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(400)]
        for request in (b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n", prediction([[1, 1]])):
            for client in clients:
                client.sendall(request)
            for client in clients:
                with http.client.HTTPResponse(client) as answer:
                    answer.begin()
                    answer.read()
                assert answer.status == 200
    assert service.workers() == workers
