"""seldon-core's client and tester against the service, and our classes in Seldon's wrapper."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from report import read_case, same, try_out
from seldon_core.seldon_client import SeldonClient
from seldon_core.utils import (
    get_data_from_proto,
    json_to_seldon_message,
    seldon_message_to_json,
)

case = read_case()
rows = np.array(case.rows)
PREFIX = "/seldon/default/iforest"


class Mesh(BaseHTTPRequestHandler):
    """Strip the prefix from the path, as Istio and Ambassador do in front of a deployment."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = urllib.request.Request(
            case.url + self.path.removeprefix(PREFIX), body, dict(self.headers.items())
        )
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            answer = error
        self.send_response(answer.status)
        self.end_headers()
        self.wfile.write(answer.read())

    def log_message(self, *_):
        """Log nothing."""


def names_of(message):
    return list(message.data.names)


def values_of(answer):
    """Return the array of a successful response, parsed as protobuf."""
    assert answer.success, answer.msg
    assert answer.response is not None, answer.msg
    return np.array(get_data_from_proto(answer.response))


def tags_of(answer):
    return seldon_message_to_json(answer.response)["meta"]["tags"]


def gauges_of(answer):
    metrics = seldon_message_to_json(answer.response)["meta"]["metrics"]
    # protobuf omits a 0
    return {metric["key"]: metric.get("value", 0) for metric in metrics}


def check_labels(answer, labels=tuple(case.labels)):
    same(values_of(answer).tolist(), list(labels))


def check_refusal(answer):
    assert not answer.success
    assert answer.response is not None
    status = answer.response.status
    same((status.code, status.reason), (-1, "MICROSERVICE_BAD_DATA"))
    assert "this model expects" in status.info


def feed_back(client, ask):
    predicted = ask(payload_type="ndarray")
    answer = client.microservice_feedback(predicted.request, predicted.response, reward=1.0)
    assert answer.success, answer.msg
    assert answer.response is not None, answer.msg


def try_microservice():
    name = "SeldonClient microservice"
    client = SeldonClient(microservice_endpoint=case.address)

    def ask(method="predict", data=rows, **options):
        return client.microservice(data=data, method=method, **options)

    def by_name():
        turned = ask(data=rows[:, ::-1], names=case.columns[::-1], payload_type="ndarray")
        check_labels(turned)

    def gauges():
        answer = ask()
        found = gauges_of(answer)
        same(np.float32(found["is_outlier"]), np.float32(np.mean(case.labels)))  # protobuf's size
        assert found["observation"] >= found["nb_outliers"]

    def transform(kind):
        answer = ask("transform-input", payload_type=kind, names=case.columns)
        same(values_of(answer).tolist(), case.rows)
        same(tags_of(answer)["outlier-predictions"], case.labels)

    def names():
        for kind in ("ndarray", "tensor"):
            answer = ask("transform-input", payload_type=kind, names=case.columns)
            same(names_of(answer.response), case.columns)

    def refuse(name, **data):
        answer = client.microservice(method="predict", data=None, **data)
        assert not answer.success
        assert answer.response.status.info.startswith(f"{name} is not served here")

    def gaps():
        values = np.array(case.gaps, np.float64)
        check_labels(ask(data=values, payload_type="tensor"), case.gap_labels)

    def passed_on():
        answer = ask("transform-output", data=np.array([[0.25], [-0.5]]), payload_type="ndarray")
        same(values_of(answer).tolist(), [[0.25], [-0.5]])

    def refused():
        answer = ask("route")
        assert not answer.success
        assert answer.response.status.info.startswith("Route not defined")

    for feature, use in {
        "data.ndarray": lambda: check_labels(ask(payload_type="ndarray")),
        "data.tensor": lambda: check_labels(ask(payload_type="tensor")),
        "jsonData": lambda: check_labels(ask(json_data=case.rows)),
        "names of columns, in any order": by_name,
        "answers parse as protobuf messages": lambda: values_of(ask()),
        "gauges in meta.metrics": gauges,
        "transform-input": lambda: [transform(kind) for kind in ("ndarray", "tensor")],
        "names are returned by transform-input": names,
        "missing values: null or NaN": gaps,
        "strData is refused with a reason": lambda: refuse("strData", str_data="x"),
        "binData is refused with a reason": lambda: refuse("binData", bin_data=b"x"),
        "transform-output returns the message": passed_on,
        "route and aggregate are refused with a reason": refused,
        "a wrong message is refused with a reason": lambda: check_refusal(
            ask(data=np.ones((1, 9)))
        ),
        "feedback": lambda: feed_back(client, ask),
    }.items():
        try_out(name, feature, use)


def try_gateway(name, client):
    def ask(data=rows, **options):
        return client.predict(data=data, **options)

    def raw():
        meta = {"puid": "p1", "tags": {"t": 1}, "requestPath": {"up": "img:1"}}
        answer = ask(raw_data={"data": {"ndarray": case.rows}, "meta": meta})
        check_labels(answer)
        found = seldon_message_to_json(answer.response)["meta"]
        same((found["puid"], found["tags"]["t"]), ("p1", 1))
        assert found["requestPath"]["up"] == "img:1"

    def as_dict():
        answer = ask(payload_type="ndarray", client_return_type="dict")
        same(answer.response["data"]["ndarray"], case.labels)

    def feedback():
        predicted = ask(payload_type="ndarray")
        truth = json_to_seldon_message({"data": {"ndarray": case.labels}})
        answer = client.feedback(predicted.request, predicted.response, truth, reward=1.0)
        assert answer.success, answer.msg
        assert answer.response is not None, answer.msg

    def by_name():
        check_labels(ask(rows[:, ::-1], names=case.columns[::-1], payload_type="ndarray"))

    for feature, use in {
        "data.ndarray": lambda: check_labels(ask(payload_type="ndarray")),
        "data.tensor": lambda: check_labels(ask(payload_type="tensor")),
        "jsonData": lambda: check_labels(ask(json_data=case.rows)),
        "names of columns, in any order": by_name,
        "answers parse as protobuf messages": lambda: values_of(ask()),
        "answers as dict": as_dict,
        "puid, tags and requestPath are returned": raw,
        "gauges in meta.metrics": lambda: gauges_of(ask()),
        "a wrong message is refused with a reason": lambda: check_refusal(ask(np.ones((1, 9)))),
        "feedback": feedback,
    }.items():
        try_out(name, feature, use)


def try_tester():
    contract = {
        "features": [
            {"name": name, "dtype": "FLOAT", "ftype": "continuous", "range": [0, 60]}
            for name in case.columns
        ],
        "targets": [],
    }

    def ask(endpoint, *options):
        program = Path(sys.executable).with_name("seldon-core-microservice-tester")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "contract.json")
            path.write_text(json.dumps(contract))
            run = subprocess.run(
                [program, path, case.host, str(case.port), "-p", "-b", "3", "--endpoint", endpoint,
                 *options],
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
        same(run.returncode, 0)
        assert "meta {" in run.stdout, run.stdout
        assert "FAILURE" not in run.stdout and "success=False" not in run.stdout, run.stdout

    for feature, use in {
        "data.ndarray": lambda: ask("predict"),
        "data.tensor": lambda: ask("predict", "-t"),
        "transform-input": lambda: ask("transform-input"),
        "feedback": lambda: ask("send-feedback"),
    }.items():
        try_out("microservice-tester", feature, use)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def wrapped(name):
    """Run one of our classes in Seldon's wrapper; yield a client of it, and its address."""
    ports = [free_port() for _ in range(3)]
    parameters = [
        {"name": "threshold", "value": str(case.threshold), "type": "FLOAT"},
        {"name": "load_path", "value": case.folder, "type": "STRING"},
    ]
    command = [
        Path(sys.executable).with_name("seldon-core-microservice"), f"service.components.{name}",
        "--parameters", json.dumps(parameters), "--http-port", str(ports[0]),
        "--metrics-port", str(ports[1]), "--grpc-port", str(ports[2]),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as elsewhere:
        process = subprocess.Popen(
            command, cwd=elsewhere, stdout=log, stderr=log, start_new_session=True
        )
        try:
            address = f"127.0.0.1:{ports[0]}"
            for _ in range(1500):  # the first start compiles the kernels
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://{address}/health/status", timeout=5).read()
                    break
                time.sleep(0.1)
            yield SeldonClient(microservice_endpoint=address), address
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def try_wrapped(name):
    def fetch(address, path):
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.read().decode()

    with wrapped(name) as (client, address):

        def ask(method="predict", data=rows, **options):
            return client.microservice(data=data, method=method, **options)

        def healthy():
            same(json.loads(fetch(address, "/health/status"))["strData"], "healthy")

        def first_of_all():
            healthy()
            body = json.dumps({"request": {"data": {"ndarray": case.rows}}, "reward": 1.0}).encode()
            request = urllib.request.Request(
                f"http://{address}/send-feedback", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                same(answer.status, 200)
            fetch(address, "/metadata")

        def transform():
            same(tags_of(ask("transform-input"))["outlier-predictions"], case.labels)

        def counted():
            before = gauges_of(ask())["observation"]
            healthy()
            same(gauges_of(ask())["observation"], before + len(rows))

        for feature, use in {
            "health, metadata and feedback before the first prediction": first_of_all,
            "health and metadata": healthy,
            "data.ndarray": lambda: check_labels(ask(payload_type="ndarray")),
            "data.tensor": lambda: check_labels(ask(payload_type="tensor")),
            "gauges in meta.metrics": counted,
            "transform-input": transform,
            "feedback": lambda: feed_back(client, ask),
        }.items():
            try_out(f"{name} in Seldon's wrapper", feature, use)


mesh = ThreadingHTTPServer(("127.0.0.1", 0), Mesh)
threading.Thread(target=mesh.serve_forever, daemon=True).start()

try_microservice()
try_gateway(
    "SeldonClient seldon gateway",
    SeldonClient(gateway="seldon", gateway_endpoint=case.address, client_return_type="proto"),
)
for kind in ("istio", "ambassador"):
    try_gateway(
        f"SeldonClient {kind} gateway",
        SeldonClient(
            gateway=kind,
            gateway_endpoint=f"127.0.0.1:{mesh.server_port}",
            client_return_type="proto",
            deployment_name="iforest",
            namespace="default",
        ),
    )
try_tester()
for name in ("CoreIsolationForest", "OutlierIsolationForest"):
    try_wrapped(name)
