"""Plain HTTP against the service: what none of the clients sends."""

import json
import urllib.error
import urllib.parse
import urllib.request

from report import read_case, same, try_out

CLIENT = "plain HTTP"

case = read_case()
message = {"data": {"ndarray": case.rows}}


def fetch(path, body=None, **headers):
    """Return status, headers and text of one request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(case.url + path, body, named)
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.headers, answer.read().decode()


def post(path, value, content_type="application/json"):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    status, _, text = fetch(path, body, Content_Type=content_type)
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
    same({len(one["features"]) for one in found}, {1})


def repeated():
    meta = {"puid": "p1", "tags": {"t": 1}, "requestPath": {"up": "img:1"}}
    found = post("/predict", {**message, "meta": meta})[1]["meta"]
    same((found["puid"], found["tags"], found["requestPath"]["up"]), ("p1", {"t": 1}, "img:1"))


def refused():
    for path, text in (("/route", "Route not defined"), ("/aggregate", "Aggregate not defined")):
        status, answer = post(path, message)
        same(status, 400)
        assert answer["status"]["info"].startswith(text)


def wrong():
    for sent in ({"data": {"ndarray": [[1] * 9]}}, {"strData": "x"}, [], {"data": {"ndarray": []}}):
        status, answer = post("/predict", sent)
        same((status, answer["status"]["code"]), (400, -1))
    status, answer = post("/predict", b"{}", "text/plain")
    same(status, 400)
    assert answer["status"]["info"].startswith("Can't find JSON in data")
    same(fetch("/nowhere")[0], 404)


def health():
    same(fetch("/health/ping")[2], "pong")
    for prefix in ("", "/api/v1.0"):
        same(json.loads(fetch(f"{prefix}/health/status")[2])["strData"], "healthy")
        same(json.loads(fetch(f"{prefix}/metadata")[2])["versions"], [case.version])


def document():
    found = json.loads(fetch("/seldon.json")[2])
    assert {"/predict", "/transform-input", "/send-feedback"} & found["paths"].keys()


def open_to_pages():
    same(fetch("/predict", json.dumps(message).encode(), Content_Type="application/json")[1][
        "Access-Control-Allow-Origin"], "*")  # fmt: skip


def csv():
    lines = [",".join(case.columns), *(",".join(map(repr, row)) for row in case.rows)]
    answer = post("/invocations?scores=1", "\n".join(lines).encode(), "text/csv")[1]
    same((answer["predictions"], answer["scores"]), (case.labels, case.scores))


def inference_errors():
    for path in ("/v2/nowhere", "/v2/models/another"):
        status, _, text = fetch(path)
        same((status, list(json.loads(text))), (404, ["error"]))
    same(list(post(f"/v2/models/{case.model}/infer", b"{")[1]), ["error"])


for feature, use in {
    "data.ndarray": lambda: check(*post("/predict?scores=1", message)),
    "exact scores on request": lambda: check(*post("/api/v1.0/predictions?scores=1", message)),
    "explanations on request": explanations,
    "message in a form field": form,
    "message in the query": query,
    "message in parts": parts,
    "puid, tags and requestPath come back": repeated,
    "transform-input": transform,
    "transform-output passes a message on": passed_on,
    "route and aggregate are refused in words": refused,
    "a wrong message is refused in words": wrong,
    "health and metadata": health,
    "/seldon.json": document,
    "every origin is allowed": open_to_pages,
    "unknown paths answer in the protocol's shape": inference_errors,
    "CSV": csv,
}.items():
    try_out(CLIENT, feature, use)
