"""Plain HTTP against the service: requests that none of the clients sends."""

import contextlib
import gzip
import http.client
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import zlib
from pathlib import Path

from report import read_case, same, try_out

CLIENT = "plain HTTP"

case = read_case()
message = {"data": {"ndarray": case.rows}}
flat = [cell for row in case.rows for cell in row]
shape = [len(case.rows), len(case.columns)]
model = f"/v2/models/{case.model}"


def fetch(path, body=None, method=None, address=case.address, **headers):
    """Return status, headers and text of one request, which has these headers and no others."""
    connection = http.client.HTTPConnection(address, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(connection):
        connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def post(path, value, content_type="application/json", **headers):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    status, _, text = fetch(path, body, Content_Type=content_type, **headers)
    return status, json.loads(text)


def check(status, answer, scored=True):
    same((status, answer["data"]["ndarray"]), (200, case.labels))
    if scored:
        same(answer["meta"]["tags"]["anomaly-scores"], case.scores)


def form():
    body = urllib.parse.urlencode({"json": json.dumps(message)}).encode()
    check(*post("/predict?scores=1", body, "application/x-www-form-urlencoded"))


def query():
    asked = urllib.parse.urlencode({"json": json.dumps(message), "scores": 1})
    status, _, text = fetch(f"/predict?{asked}")
    check(status, json.loads(text))


def parts():
    text = json.dumps(message["data"])
    head = 'Content-Disposition: form-data; name="data"'
    body = f"--cut\r\n{head}\r\n\r\n{text}\r\n--cut--\r\n".encode()
    check(*post("/predict?scores=1", body, "multipart/form-data; boundary=cut"))


def passed_on():
    sent = {"strData": "as it was"}
    same(post("/transform-output", sent)[1]["strData"], sent["strData"])


def transform():
    status, answer = post("/transform-input", message)
    same((status, answer["data"]["ndarray"]), (200, case.rows))
    same(answer["meta"]["tags"]["outlier-predictions"], case.labels)


def explanations():
    found = post("/predict?explain=1", message)[1]["meta"]["tags"]["explanations"]
    outliers = [i for i, label in enumerate(case.labels) if label]
    same([one["row"] for one in found], outliers)
    answer = infer(outputs=[{"name": "contributions"}])[1]
    shares = answer["outputs"][0]["data"]
    for one in found:
        row, start = case.rows[one["row"]], one["row"] * shape[1]
        share = shares[start : start + shape[1]]
        j = share.index(min(share))
        received = {"name": case.columns[j], "contribution": share[j], "value": row[j]}
        same(one["features"], [received])


def repeated():
    meta = {"puid": "p1", "tags": {"t": 1}, "requestPath": {"up": "img:1"}}
    found = post("/predict", {**message, "meta": meta})[1]["meta"]
    same((found["puid"], found["tags"], found["requestPath"]["up"]), ("p1", {"t": 1}, "img:1"))


def by_name():
    turned = [row[::-1] for row in case.rows]
    sent = {"data": {"names": case.columns[::-1], "ndarray": turned}}
    check(*post("/predict?scores=1", sent))


def names():
    sent = {"data": {"names": case.columns, "ndarray": case.rows}}
    same(post("/transform-input", sent)[1]["data"]["names"], case.columns)


def tensor():
    sent = {"data": {"tensor": {"shape": shape, "values": flat}}}
    answer = post("/predict?scores=1", sent)[1]
    same(answer["data"]["tensor"], {"shape": shape[:1], "values": case.labels})
    same(answer["meta"]["tags"]["anomaly-scores"], case.scores)


def json_data():
    answer = post("/predict?scores=1", {"jsonData": case.rows})[1]
    same(answer["meta"]["tags"]["anomaly-scores"], case.scores)


def gaps():
    for text in ("null", "NaN"):
        body = json.dumps({"data": {"ndarray": case.gaps}}).replace("null", text).encode()
        same(post("/predict?scores=1", body)[1]["meta"]["tags"]["anomaly-scores"], case.gap_scores)


def gauges():
    found = {one["key"]: one["value"] for one in post("/predict", message)[1]["meta"]["metrics"]}
    same(found["is_outlier"], sum(case.labels) / len(case.labels))


def feedback():
    received = post("/predict", message)[1]["meta"]["puid"]
    sent = {"response": {"meta": {"puid": received}}, "truth": {"data": {"ndarray": case.labels}}}
    for path in ("/send-feedback", "/api/v1.0/feedback"):
        status, answer = post(path, sent)
        same((status, answer["meta"]["puid"]), (200, received))


def refuse(sent, name):
    status, answer = post("/predict", sent)
    same(status, 400)
    assert answer["status"]["info"].startswith(f"{name} is not served here; send ")


def refused():
    for path, text in (("/route", "Route not defined"), ("/aggregate", "Aggregate not defined")):
        status, answer = post(path, message)
        same(status, 400)
        assert answer["status"]["info"].startswith(text)


def wrong():
    for sent, words in (
        ({"data": {"ndarray": [[1] * 9]}}, "rows have 9 columns; this model expects "),
        ({"strData": "x"}, "strData is not served here; send "),
        ([], "a Seldon message is a JSON object, as in "),
        ({"data": {"ndarray": []}}, "there are no rows; one row is "),
        ({"data": {"ndarray": [[1, "x"]]}}, "row 0, column 1 ('sd'): 'x' is not a number"),
    ):
        status, answer = post("/predict", sent)
        same((status, answer["status"]["code"]), (400, -1))
        assert answer["status"]["info"].startswith(words), answer["status"]["info"]
    status, answer = post("/predict", b"{}", "text/plain")
    same(status, 400)
    assert answer["status"]["info"].startswith("Can't find JSON in data")
    same(fetch("/nowhere")[0], 404)


def health():
    same(fetch("/health/ping")[2], "pong")
    for prefix in ("", "/api/v1.0"):
        same(json.loads(fetch(f"{prefix}/health/status")[2])["strData"], "healthy")
        same(json.loads(fetch(f"{prefix}/metadata")[2])["versions"], [case.version])


@contextlib.contextmanager
def as_seldon_starts_it():
    """Run a service configured by the variables of Seldon's operator only; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ISOSERVE_")}
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        places = {"PYTHONPATH": str(Path(__file__).parents[2]), "ISOSERVE_STATE_DIR": folder}
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env=ours | SELDONS | places | {"PREDICTIVE_UNIT_HTTP_SERVICE_PORT": str(port)},
            stdout=log,
            stderr=log,
        )
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    fetch("/health/ping", address=f"127.0.0.1:{port}")
                    break
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


PARAMETERS = [
    {"name": "threshold", "value": "0.01", "type": "FLOAT"},
    {"name": "load_path", "value": case.folder, "type": "STRING"},
]

# Variables that Seldon's operator sets, and that a user of its wrapper may have set.
SELDONS = {
    "PREDICTIVE_UNIT_PARAMETERS": json.dumps(PARAMETERS),
    "PREDICTIVE_UNIT_ID": "clf",
    "PREDICTIVE_UNIT_IMAGE": "reg/if:0.1",
    "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": "9500",
    "PREDICTIVE_UNIT_METRICS_SERVICE_PORT": "6000",
    "PREDICTIVE_UNIT_METRICS_ENDPOINT": "/metrics",
    "SELDON_DEPLOYMENT_ID": "dep",
    "PREDICTOR_ID": "pred",
    "PREDICTOR_LABELS": '{"version": "v7"}',
    "GUNICORN_WORKERS": "1",
    "GUNICORN_THREADS": "2",
    "GUNICORN_KEEPALIVE": "2",
    "GUNICORN_ACCESS_LOG": "true",
    "GUNICORN_MAX_REQUESTS": "1000",
    "SELDON_LOG_LEVEL": "DEBUG",
    "SELDON_EXECUTOR_ENABLED": "true",
    "INCLUDE_METRICS_IN_CLIENT_RESPONSE": "false",
    "MODEL_METADATA": "name: other",
}


def first_of_all(address):
    """Check requests before the first prediction that Seldon's wrapper cannot answer."""
    for path in ("/health/status", "/api/v1.0/health/status"):
        answer = json.loads(fetch(path, address=address)[2])
        received = {one["key"]: one["value"] for one in answer["meta"]["metrics"]}
        same((answer["strData"], received["observation"]), ("healthy", 0))
    same(fetch("/metadata", address=address)[0], 200)
    sent = {"request": message, "reward": 1.0, "truth": {"data": {"ndarray": case.labels}}}
    same(post("/send-feedback", sent, address=address)[0], 200)


def seldons_variables(address):
    """Check that a service follows these variables."""
    status, answer = post("/predict?scores=1", message, address=address)
    same((status, answer["meta"]["tags"]["threshold"]), (200, 0.01))
    same(answer["data"]["ndarray"], [int(score < 0.01) for score in case.scores])
    same(answer["meta"]["requestPath"], {"clf": "reg/if:0.1"})
    assert "metrics" not in answer["meta"]
    same(json.loads(fetch("/metadata", address=address)[2])["name"], "clf")
    same(fetch("/v2/models/clf/ready", address=address)[0], 200)
    page = fetch("/metrics", address=address)[2]
    for label in ('deployment_name="dep"', 'predictor_name="pred"', 'predictor_version="v7"',
                  'model_name="clf"', 'model_image="reg/if"', 'model_version="0.1"'):  # fmt: skip
        assert label in page, label


def seldons_shape():
    for asked in (
        fetch("/nowhere"),
        fetch("/api/v1.0/predictions"),
        fetch("/predict", b" " * (2**24 + 1), Content_Type="application/json"),
    ):
        status, _, text = asked
        received = json.loads(text)["status"]
        same(
            (received["code"], received["status"], received["reason"]),
            (-1, 1, "MICROSERVICE_BAD_DATA"),
        )
        assert status in (404, 405, 413) and received["info"]


def compressed():
    status, answer = post("/predict", gzip.compress(b"{}"), Content_Encoding="gzip")
    same(status, 400)
    assert "with Content-Encoding is not read here" in answer["status"]["info"]


def shape_of(path, *keys):
    """Return the errors of a path by status: a wrong method, a large body, an encoding."""
    answers = {}
    for status, asked in (
        (405, fetch(path)),
        (413, fetch(path, b" " * (2**24 + 1), Content_Type="application/json")),
        (415, fetch(path, b"{}", Content_Type="application/json", Content_Encoding="br")),
    ):
        same(asked[0], status)
        answers[status] = json.loads(asked[2])
        same(sorted(answers[status]), sorted(keys))
    return answers


def inference_encoding():
    status, answer = infer(headers={"Content_Encoding": "br"})
    same(status, 415)
    assert "gzip and deflate are" in answer["error"]


def table_encoding():
    for kind, encoding in (("text/csv", "br"), ("text/plain", "identity")):
        status, answer = post("/invocations", b"a,b", kind, Content_Encoding=encoding)
        same(status, 415)
        assert "is not read here" in answer["message"]


def wrong_tables():
    for sent, words in (
        ({"inputs": [[1] * 9]}, "rows have 9 columns; this model expects "),
        ({}, "no rows came; a request has one of dataframe_split, "),
        (b"[1,", "the body is not JSON: "),
    ):
        status, answer = post("/invocations", sent)
        same((status, answer["error_code"]), (400, "BAD_REQUEST"))
        assert answer["message"].startswith(words), answer["message"]


def both_ways():
    """Send every tensor as bytes, and ask for bytes."""
    packed = struct.pack(f"<{len(flat)}d", *flat)
    names = {"decision_function": case.scores, "predict": case.labels, "threshold": [0.0]}
    asked = [{"name": name, "parameters": {"binary_data": True}} for name in names]
    head, body = read_parts(bytes_request("FP64", packed, shape, outputs=asked))
    start = 0
    for output in head["outputs"]:
        size = output["parameters"]["binary_data_size"]
        code = {"FP64": "d", "INT64": "q"}[output["datatype"]]
        values = struct.unpack(f"<{size // 8}{code}", body[start : start + size])
        same(list(values), list(names[output["name"]]))
        start += size
    same(start, len(body))


def mixed():
    """Send the first column as bytes and the second as JSON; ask for one output as bytes."""
    first, second = ([row[j] for row in case.rows] for j in range(2))
    packed = struct.pack(f"<{len(first)}d", *first)
    heads = [{"name": case.columns[0], "shape": [len(first)], "datatype": "FP64",
              "parameters": {"binary_data_size": len(packed)}},
             {"name": case.columns[1], "shape": [len(first)], "datatype": "FP64",
              "data": second}]  # fmt: skip
    asked = [
        {"name": "predict"},
        {"name": "decision_function", "parameters": {"binary_data": True}},
    ]
    text = json.dumps({"inputs": heads, "outputs": asked}).encode()
    head, body = read_parts((text, packed))
    same(head["outputs"][0]["data"], case.labels)
    same(list(struct.unpack(f"<{len(first)}d", body)), case.scores)


def bytes_request(datatype, packed, asked, **more):
    head = {"name": "x", "shape": asked, "datatype": datatype,
            "parameters": {"binary_data_size": len(packed)}}  # fmt: skip
    return json.dumps({"inputs": [head], **more}).encode(), packed


def read_parts(sent):
    """Send a binary request; return the JSON and the bytes of the answer."""
    text, packed = sent
    connection = http.client.HTTPConnection(case.address, timeout=30)
    with contextlib.closing(connection):
        lengths = {"Inference-Header-Content-Length": str(len(text))}
        connection.request("POST", f"{model}/infer", text + packed, lengths)
        answer = connection.getresponse()
        same((answer.status, answer.headers["Content-Type"]), (200, "application/octet-stream"))
        length, body = int(answer.headers["Inference-Header-Content-Length"]), answer.read()
        return json.loads(body[:length]), body[length:]


def metadata():
    received = json.loads(fetch("/v2")[2])
    same((received["name"], received["extensions"]), ("isoserve", ["binary_tensor_data"]))
    received = json.loads(fetch(model)[2])
    same((received["name"], received["versions"]), (case.model, [case.version]))
    same([column["name"] for column in received["inputs"]], case.columns)
    answer = infer(outputs=[{"name": output["name"]} for output in received["outputs"]])[1]
    for said, found in zip(received["outputs"], answer["outputs"], strict=True):
        same((found["name"], found["datatype"]), (said["name"], said["datatype"]))
        same(len(found["shape"]), len(said["shape"]))


def mlflows_shape():
    for answer in shape_of("/invocations", "error_code", "message").values():
        same(answer["error_code"], "BAD_REQUEST")


def routes():
    received = json.loads(fetch("/openapi.json")[2])
    same(received["openapi"], "3.1.0")
    for path in ("/predict", "/v2/models/{model}/infer", "/invocations", "/metrics", "/docs"):
        assert path in received["paths"], path


def page():
    status, _, text = fetch("/docs")
    same(status, 200)
    files = re.findall('(?:src|href)="(docs/[^"]+)"', text)
    assert len(files) == 3 and "//" not in text
    licences = ("swagger-ui.LICENSE", "swagger-ui.NOTICE", "swagger-ui-bundle.js.LICENSE.txt")
    for path in (*files, *(f"docs/{name}" for name in licences)):
        status, headers, _ = fetch(f"/{path}")
        same((status, headers["Cache-Control"]), (200, "no-cache"))
        same(fetch(f"/{path}", If_None_Match=headers["ETag"])[0], 304)


def document():
    found = json.loads(fetch("/seldon.json")[2])
    assert {"/predict", "/transform-input", "/send-feedback"} <= found["paths"].keys()


def open_to_pages():
    body = json.dumps(message).encode()
    for path in ("/predict", f"{model}/infer", "/invocations"):
        asked = {"Origin": "http://a.page", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "content-type"}  # fmt: skip
        status, headers, _ = fetch(path, None, "OPTIONS", **asked)
        same((status, headers["Access-Control-Allow-Headers"]), (200, "content-type"))
        assert "POST" in headers["Access-Control-Allow-Methods"]
        headers = fetch(path, body, Content_Type="application/json", Origin="http://a.page")[1]
        same(headers["Access-Control-Allow-Origin"], "*")
        assert "X-Model-Version" in headers["Access-Control-Expose-Headers"]


def table(data=flat, datatype="FP64", **more):
    return {"name": "any name", "shape": shape, "datatype": datatype, "data": data, **more}


def infer(*inputs, path=f"{model}/infer", headers=None, pack=bytes, **more):
    """Return status and answer of an inference request; no Content-Type is sent."""
    body = json.dumps({"inputs": list(inputs or [table()]), **more}).encode()
    status, _, text = fetch(path, pack(body), **(headers or {}))
    return status, json.loads(text)


def found(answer, name="decision_function"):
    return next(output["data"] for output in answer["outputs"] if output["name"] == name)


def judged(answered, scores=tuple(case.scores)):
    status, answer = answered
    same((status, found(answer)), (200, list(scores)))


def nested():
    judged(infer(table(flat)))
    judged(infer(table(case.rows)))


def columns(**parameters):
    inputs = [
        {**table([row[j] for row in case.rows]), "name": name, "shape": shape[:1]}
        for j, name in enumerate(case.columns)
    ]
    judged(infer(*inputs[::-1], parameters=parameters))


def content_types():
    judged(infer(table(parameters={"content_type": "np"})))
    columns(content_type="pd")


def accepted():
    judged(infer(table(parameters={"odd": 1}), parameters={"strange": "x"}))


def alive():
    same(json.loads(fetch("/v2/health/live")[2]), {"live": True})
    same(json.loads(fetch("/v2/health/ready")[2])["ready"], True)
    same(json.loads(fetch(f"{model}/ready")[2]), {"name": case.model, "ready": True})


def versioned():
    judged(infer(path=f"{model}/versions/{case.version}/infer"))
    same(infer(path=f"{model}/versions/another/infer")[0], 404)


def named_back():
    answer = infer(id="42")[1]
    same((answer["id"], answer["model_version"]), ("42", case.version))


def chosen():
    answer = infer(outputs=[{"name": "contributions"}])[1]
    same([(one["name"], one["shape"]) for one in answer["outputs"]], [("contributions", shape)])


def inference_gaps():
    cells = [cell for row in case.gaps for cell in row]
    judged(infer(table(cells)), case.gap_scores)
    packed = struct.pack(f"<{len(cells)}d", *[float("nan") if c is None else c for c in cells])
    judged(infer_bytes("FP64", packed), case.gap_scores)


def infer_bytes(datatype, packed, asked=shape):
    text, packed = bytes_request(datatype, packed, asked)
    lengths = {"Inference_Header_Content_Length": str(len(text))}
    status, _, answer = fetch(f"{model}/infer", text + packed, **lengths)
    return status, json.loads(answer)


def datatype(*names):
    """Send the same small numbers as JSON, and as bytes where the type has a size."""
    small = [0, 1, 1, 0]
    expected = found(infer({**table(small), "shape": [2, 2]})[1])
    codes = {"BOOL": "?", "FP16": "e", "FP32": "f", "INT8": "b", "INT16": "h", "INT32": "i",
             "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q"}  # fmt: skip
    for name in names:
        cells = [str(cell) for cell in small] if name == "BYTES" else small
        cells = [bool(cell) for cell in small] if name == "BOOL" else cells
        judged(infer({**table(cells, name), "shape": [2, 2]}), expected)
        if name == "BYTES":
            packed = b"".join(struct.pack("<I", len(cell)) + cell.encode() for cell in cells)
        elif name == "BF16":  # the upper half of a float32
            packed = b"".join(struct.pack("<f", cell)[2:] for cell in cells)
        else:
            packed = struct.pack(f"<4{codes[name]}", *cells)
        judged(infer_bytes(name, packed, [2, 2]), expected)


def packed(encoding, pack):
    judged(infer(headers={"Content_Encoding": encoding}, pack=pack))


def too_large(encoding, pack):
    status, answer = infer(
        headers={"Content_Encoding": encoding}, pack=lambda _: pack(bytes(2**25))
    )
    same(status, 413)
    assert "unpacks to more than" in answer["error"]


def index():
    body = [{"name": case.model, "version": case.version, "state": "READY", "reason": ""}]
    for sent in (b"", b"{}"):
        same(json.loads(fetch("/v2/repository/index", sent)[2]), body)


def load():
    path = f"/v2/repository/models/{case.model}/load"
    status, answer = post(path, {})
    same((status, list(answer)), (401, ["error"]))
    status, answer = post(path, {}, Authorization=f"Bearer {case.token}")
    same((status, answer["model_version"]), (200, case.version))


def unload():
    path = f"/v2/repository/models/{case.model}/unload"
    status, answer = post(path, {}, Authorization=f"Bearer {case.token}")
    same(status, 409)
    assert "does not unload" in answer["error"]


def wrong_inference():
    status, answer = infer({**table([1] * 9), "shape": [1, 9]})
    same(status, 400)
    assert "this model expects" in answer["error"]


def invoke(sent, content_type="application/json", **headers):
    status, answer = post("/invocations?scores=1", sent, content_type, **headers)
    same((status, answer["predictions"], answer["scores"]), (200, case.labels, case.scores))


def lines(rows):
    texts = [",".join("" if cell is None else repr(cell) for cell in row) for row in rows]
    return "\n".join([",".join(case.columns), *texts]).encode()


def table_gaps():
    objects = [dict(zip(case.columns, row, strict=True)) for row in case.gaps]
    for sent, kind in ((lines(case.gaps), "text/csv"), ({"dataframe_records": objects}, None)):
        answer = post("/invocations?scores=1", sent, kind or "application/json")[1]
        same(answer["scores"], case.gap_scores)


def packed_tables():
    body = lines(case.rows)
    invoke(gzip.compress(body), "text/csv", Content_Encoding="gzip")
    invoke(zlib.compress(body), "text/csv", Content_Encoding="deflate")


def split():
    turned = [row[::-1] for row in case.rows]
    invoke({"dataframe_split": {"columns": case.columns[::-1], "data": turned}})


def pings():
    for path in ("/ping", "/health"):
        same(fetch(path)[2], "pong")
    same(fetch("/version")[0], 200)


def inference_errors():
    for path in ("/v2/nowhere", "/v2/models/another"):
        status, _, text = fetch(path)
        same((status, list(json.loads(text))), (404, ["error"]))
    same(list(post(f"{model}/infer", b"{")[1]), ["error"])


objects = [dict(zip(case.columns, row, strict=True)) for row in case.rows]
by_column = {name: [row[j] for row in case.rows] for j, name in enumerate(case.columns)}

with as_seldon_starts_it() as started:
    for feature, use in {
        "health, metadata and feedback before the first prediction": first_of_all,
        "configured by the variables of Seldon's wrapper only": seldons_variables,
    }.items():
        try_out(CLIENT, feature, lambda use=use: use(started))

WHOLE = [f"{sign}INT{8 * size}" for sign in ("", "U") for size in (1, 2, 4, 8)]

for feature, use in {
    "data.ndarray": lambda: check(*post("/predict?scores=1", message)),
    "exact scores on request": lambda: check(*post("/api/v1.0/predictions?scores=1", message)),
    "explanations on request": explanations,
    "message in a form field": form,
    "message in the query": query,
    "message in parts": parts,
    "puid, tags and requestPath are returned": repeated,
    "transform-input": transform,
    "transform-output returns the message": passed_on,
    "route and aggregate are refused with a reason": refused,
    "a wrong message is refused with a reason": wrong,
    "a compressed message is refused with a reason": compressed,
    "404, 405 and 413 in Seldon's shape": seldons_shape,
    "health and metadata": health,
    "/seldon.json": document,
    "every origin is allowed, also in preflight requests": open_to_pages,
    "data.tensor": tensor,
    "jsonData": json_data,
    "names of columns, in any order": by_name,
    "names are returned by transform-input": names,
    "missing values: null or NaN": gaps,
    "gauges in meta.metrics": gauges,
    "feedback": feedback,
    "strData is refused with a reason": lambda: refuse({"strData": "x"}, "strData"),
    "binData is refused with a reason": lambda: refuse({"binData": "eA=="}, "binData"),
    "data.tftensor is refused with a reason": lambda: refuse(
        {"data": {"tftensor": {}}}, "data.tftensor"
    ),
    "live, ready, model ready": alive,
    "a version in the path": versioned,
    "metadata of server and model": metadata,
    "infer, JSON": lambda: judged(infer()),
    "infer, binary tensors in and out": both_ways,
    "infer, binary and JSON mixed": mixed,
    "data flat and nested": nested,
    "no Content-Type": lambda: judged(infer()),
    "one input per column, in any order": columns,
    "outputs chosen by name, contributions too": chosen,
    "model_version and id are returned": named_back,
    "content types np and pd": content_types,
    "unknown parameters are accepted": accepted,
    "missing values: null, or NaN in bytes": inference_gaps,
    "BOOL": lambda: datatype("BOOL"),
    "INT8 to INT64, UINT8 to UINT64": lambda: datatype(*WHOLE),
    "FP16": lambda: datatype("FP16"),
    "BF16": lambda: datatype("BF16"),
    "FP32": lambda: datatype("FP32"),
    "BYTES": lambda: datatype("BYTES"),
    "gzip body": lambda: packed("gzip", gzip.compress),
    "deflate body": lambda: packed("deflate", zlib.compress),
    "gzip body that decompresses to too much: 413": lambda: too_large("gzip", gzip.compress),
    "deflate body that decompresses to too much: 413": lambda: too_large("deflate", zlib.compress),
    "another encoding is refused: 415": inference_encoding,
    "405, 413 and 415 in the protocol's shape": lambda: shape_of(f"{model}/infer", "error"),
    "repository index": index,
    "load, with the admin token only": load,
    "unload is refused with a reason": unload,
    "a wrong request is refused with a reason": wrong_inference,
    "unknown paths answer in the protocol's shape": inference_errors,
    "/ping and /version": pings,
    "dataframe_split: a DataFrame, its columns in any order": split,
    "dataframe_records": lambda: invoke({"dataframe_records": objects}),
    "instances: objects": lambda: invoke({"instances": objects}),
    "instances: an array": lambda: invoke({"instances": case.rows}),
    "inputs: an array": lambda: invoke({"inputs": case.rows}),
    "inputs: lists by name": lambda: invoke({"inputs": by_column}),
    "exact scores with ?scores=1": lambda: invoke({"inputs": case.rows}),
    "params are accepted": lambda: invoke({"inputs": case.rows, "params": {"anything": 1}}),
    "a wrong table is refused with a reason": wrong_tables,
    "another encoding or type is refused: 415": table_encoding,
    "405, 413 and 415 in MLflow's shape, with MLflow's error_code": mlflows_shape,
    "/openapi.json: every route": routes,
    "/docs: the page, its files and their licences": page,
    "CSV": lambda: invoke(lines(case.rows), "text/csv"),
    "missing values: null, NaN or an empty cell": table_gaps,
    "gzip and deflate bodies": packed_tables,
}.items():
    try_out(CLIENT, feature, use)
