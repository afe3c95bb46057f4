"""The same rows get the same scores in every protocol, and each fault has its own message."""

import gzip
import json
import zlib
from http import HTTPStatus
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from werkzeug.test import EnvironBuilder, run_wsgi_app

from tests.support.cards import number
from tests.support.examples import examples

ROWS = [[1.0, 2.0], [60.0, 40.0]]
MESSAGE = {"data": {"ndarray": ROWS}}
TENSOR = {"name": "x", "shape": [2, 2], "datatype": "FP64", "data": ROWS}
REQUEST = {"inputs": [TENSOR]}
MODEL = "/v2/models/isoserve"


@pytest.fixture
def named(write_card, make_client):
    """A service whose model has column names: mean and sd."""
    write_card()
    return make_client()


def version(client):
    return client.get("/live").headers["X-Model-Version"]


def samples(client):
    metrics = client.get("/health/status").json["meta"]["metrics"]
    return {metric["key"]: metric["value"] for metric in metrics}["observation"]


def seldon(path, **kwargs):
    def send(client, table):
        answer = client.post(path, **{key: make(table) for key, make in kwargs.items()})
        return answer.json["meta"]["tags"]["anomaly-scores"]

    return send


def message(table):
    return {"data": {"ndarray": table.tolist()}}


def tensor(table):
    tensor = {"shape": list(table.shape), "values": table.ravel().tolist()}
    return {"data": {"tensor": tensor}}


def infer(make):
    def send(client, table):
        body, headers = make(table)
        answer = client.post(f"{MODEL}/infer", data=body, headers=headers)
        scores = next(o for o in answer.json["outputs"] if o["name"] == "decision_function")
        return scores["data"]

    return send


def inputs(table, flat=False):
    data = table.ravel() if flat else table
    head = {"name": "x", "shape": list(table.shape), "datatype": "FP64", "data": data.tolist()}
    return json.dumps({"inputs": [head]}).encode()


def texts(table):
    shape, names = [len(table)], ("a", "b")
    heads = [{"name": name, "shape": shape, "datatype": "BYTES",
              "data": [None if cell is None else repr(cell) for cell in table[:, j].tolist()]}
             for j, name in enumerate(names)]  # fmt: skip
    return json.dumps({"inputs": heads}).encode()


def columns(table, **parameters):
    shape = [len(table)]
    heads = [{"name": f"{j}", "shape": shape, "datatype": "FP64", "data": table[:, j].tolist()}
             for j in range(2)]  # fmt: skip
    return json.dumps({"inputs": heads, "parameters": parameters}).encode()


def with_bytes(table):
    parameters = {"binary_data_size": table.nbytes}
    head = {"name": "x", "shape": list(table.shape), "datatype": "FP64", "parameters": parameters}
    text = json.dumps({"inputs": [head]}).encode()
    return text + table.tobytes(), {"Inference-Header-Content-Length": str(len(text))}


def infer_in_bytes(client, table):
    body, headers = with_bytes(table)
    length = int(headers["Inference-Header-Content-Length"])
    text = json.loads(body[:length])
    text["outputs"] = [{"name": "decision_function", "parameters": {"binary_data": True}}]
    text = json.dumps(text).encode()
    headers["Inference-Header-Content-Length"] = str(len(text))
    answer = client.post(f"{MODEL}/infer", data=text + body[length:], headers=headers)
    assert answer.content_type == "application/octet-stream"
    skip = int(answer.headers["Inference-Header-Content-Length"])
    return np.frombuffer(answer.data[skip:], "<f8").tolist()


def invoke(make, content_type="application/json", pack=None):
    def send(client, table):
        body = make(table)
        body = body if isinstance(body, str) else json.dumps(body)
        headers = {"Content-Encoding": "gzip"} if pack else {}
        answer = client.post(
            "/invocations?scores=1",
            data=pack(body.encode()) if pack else body,
            content_type=content_type,
            headers=headers,
        )
        return answer.json["scores"]

    return send


def records(table):
    return {"dataframe_records": [{"a": a, "b": b} for a, b in table.tolist()]}


def csv(table):
    lines = (["" if cell is None else repr(cell) for cell in row] for row in table.tolist())
    return "a,b\n" + "".join(",".join(line) + "\n" for line in lines)


FORMS = {
    "predict": seldon("/predict?scores=1", json=message),
    "tensor": seldon("/predict?scores=1", json=tensor),
    "jsonData": seldon("/predict?scores=1", json=lambda table: {"jsonData": table.tolist()}),
    "gateway": seldon("/api/v1.0/predictions?scores=1", json=message),
    "old gateway": seldon("/api/v0.1/predictions?scores=1", json=message),
    "form": seldon("/predict?scores=1", data=lambda t: {"json": json.dumps(message(t))}),
    "parts": seldon(
        "/predict?scores=1",
        data=lambda t: {"data": json.dumps(message(t)["data"])},
        content_type=lambda t: "multipart/form-data",
    ),
    "query": seldon(
        "/predict", query_string=lambda t: {"scores": 1, "json": json.dumps(message(t))}
    ),
    "transform-input": seldon("/transform-input?scores=1", json=message),
    "infer": infer(lambda t: (inputs(t), {})),
    "infer flat": infer(lambda t: (inputs(t, flat=True), {})),
    "infer columns": infer(lambda t: (columns(t), {})),
    "infer pd": infer(lambda t: (columns(t, content_type="pd"), {})),
    "infer texts": infer(lambda t: (texts(t), {})),
    "infer binary": infer(with_bytes),
    "infer binary both ways": infer_in_bytes,
    "infer gzip": infer(lambda t: (gzip.compress(inputs(t)), {"Content-Encoding": "gzip"})),
    "infer deflate": infer(lambda t: (zlib.compress(inputs(t)), {"Content-Encoding": "deflate"})),
    "split": invoke(lambda t: {"dataframe_split": {"columns": ["a", "b"], "data": t.tolist()}}),
    "records": invoke(records),
    "instances": invoke(lambda t: {"instances": t.tolist()}),
    "inputs": invoke(lambda t: {"inputs": {"a": t[:, 0].tolist(), "b": t[:, 1].tolist()}}),
    "csv": invoke(csv, "text/csv"),
    "split gzip": invoke(lambda t: {"dataframe_split": {"data": t.tolist()}}, pack=gzip.compress),
    "csv gzip": invoke(csv, "text/csv", gzip.compress),
}


BINARY = ("infer binary", "infer binary both ways")


def make_tables(allow_nan):
    cells = st.floats(allow_nan=False, allow_infinity=False)
    if allow_nan:
        cells |= st.just(np.nan)
    return hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2)), elements=cells)


def score(forest, table):
    with np.errstate(over="ignore"):
        in_range = np.clip(table, -3e38, 3e38)  # scikit-learn refuses more; ours reads infinity
    return forest.decision_function(in_range).tolist()


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(table=make_tables(allow_nan=False))
def test_any_finite_table_gets_scikit_learns_scores_in_every_protocol(client, forest, table):
    for form, send in FORMS.items():
        assert send(client, table) == score(forest, table), form


@pytest.fixture
def gaps(write_card, make_client):
    """A service whose model was trained with missing values; its columns have no other names."""
    write_card(columns=[number(name, missing=1) for name in ("a", "b")])
    return make_client(names="position")


@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(table=make_tables(allow_nan=True))
def test_missing_values_are_null_nan_or_an_empty_cell_in_every_protocol(gaps, forest, table):
    nothing = np.where(np.isnan(table), None, table)
    for form, send in FORMS.items():
        assert send(gaps, table) == score(forest, table), form
        if form not in BINARY:
            assert send(gaps, nothing) == score(forest, table), form


@pytest.mark.parametrize("form", FORMS)
def test_a_model_trained_without_missing_values_refuses_them_in_every_protocol(client, form):
    sent = []

    def post(*args, **kwargs):
        sent.append(client.post(*args, **kwargs))
        return sent[-1]

    with pytest.raises((KeyError, TypeError, AssertionError)):
        FORMS[form](SimpleNamespace(post=post), np.array([[1.0, 2.0], [3.0, np.nan]]))
    assert sent[0].status_code == HTTPStatus.BAD_REQUEST
    assert "row 1, column 1" in sent[0].text
    assert "a missing value (null, NaN or empty); this column takes none" in sent[0].text


@pytest.mark.parametrize("form", FORMS)
def test_infinities_are_refused_in_every_protocol(gaps, form):
    with pytest.raises((KeyError, TypeError, AssertionError)):
        FORMS[form](gaps, np.array([[1.0, 2.0], [np.nan, -np.inf]]))


def test_rows_are_counted_once_in_every_protocol(client):
    for form, send in FORMS.items():
        before = samples(client)
        send(client, np.array(ROWS))
        assert samples(client) == before + 2, form


def test_named_columns_may_come_in_any_order_in_every_protocol(named):
    there = named.post("/predict?scores=1", json=MESSAGE).json["meta"]["tags"]["anomaly-scores"]
    back = np.array(ROWS)[:, ::-1].tolist()
    heads = [{"name": name, "shape": [2], "datatype": "FP64", "data": [row[j] for row in back]}
             for j, name in enumerate(("sd", "mean"))]  # fmt: skip
    answer = named.post(f"{MODEL}/infer", json={"inputs": heads}).json
    assert answer["outputs"][1]["data"] == there
    split = {"columns": ["sd", "mean"], "data": back}
    answer = named.post("/invocations?scores=1", json={"dataframe_split": split}).json
    assert answer["scores"] == there
    wrong = named.post("/invocations", json={"dataframe_records": [{"mean": 1, "sdd": 2}]})
    assert wrong.status_code == HTTPStatus.BAD_REQUEST
    assert wrong.json["message"].startswith("column 'sd' is missing (is it 'sdd'?)")


def test_a_message_may_be_a_query_parameter(client):
    for path in ("/predict", "/transform-input"):
        answer = client.get(f"{path}?scores=1&json={quote(json.dumps(MESSAGE))}")
        assert len(answer.json["meta"]["tags"]["anomaly-scores"]) == 2
    assert client.get("/predict").status_code == HTTPStatus.BAD_REQUEST
    assert client.get("/api/v1.0/predictions").status_code == HTTPStatus.METHOD_NOT_ALLOWED


def test_an_explanation_names_the_features_that_isolated_a_row(named, forest):
    answer = named.post("/predict?explain=1", json=MESSAGE).json
    (found,) = answer["meta"]["tags"]["explanations"]
    assert found["row"] == answer["data"]["ndarray"].index(1)
    (feature,) = found["features"]
    names = named.get(MODEL).json["inputs"]
    j = [column["name"] for column in names].index(feature["name"])
    assert feature["value"] == ROWS[found["row"]][j]
    asked = [{"name": "contributions"}]
    shares = named.post(f"{MODEL}/infer", json={**REQUEST, "outputs": asked}).json["outputs"][0]
    row = np.reshape(shares["data"], shares["shape"])[found["row"]]
    assert feature["contribution"] == row.min() == row[j]


def test_scores_and_explanations_are_the_same_by_predict_transform_input_and_invocations(named):
    asked = {"query_string": {"scores": 1, "explain": 2}}
    tags = named.post("/predict", json=MESSAGE, **asked).json["meta"]["tags"]
    again = named.post("/transform-input", json=MESSAGE, **asked).json["meta"]["tags"]
    assert again == tags | {"outlier-predictions": again["outlier-predictions"]}
    body = {"dataframe_split": {"columns": ["mean", "sd"], "data": ROWS}}
    answer = named.post("/invocations", json=body, **asked).json
    assert answer["explanations"] == tags["explanations"] != []
    assert (answer["scores"], answer["threshold"]) == (tags["anomaly-scores"], tags["threshold"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{MODEL}/infer", REQUEST),
        (f"{MODEL}/versions/@/infer", REQUEST),
        ("/transform-output", MESSAGE),
        ("/send-feedback", {}),
        ("/api/v1.0/feedback", {}),
    ],
)
def test_an_option_that_a_route_does_not_have_is_refused_there(client, path, body):
    path = path.replace("@", client.get(MODEL).json["versions"][0])
    for option in ("scores=1", "explain=2", "explain=x", "score=1", "Explain=1"):
        answer = client.post(f"{path}?{option}", json=body)
        assert answer.status_code == HTTPStatus.BAD_REQUEST, option
        assert "is no option" in answer.text, option
    assert client.post(f"{path}?scores=0&explain=", json=body).status_code == HTTPStatus.OK


@pytest.mark.parametrize("params", [{"scores": True}, {"explain": 2, "other": 1}])
def test_options_among_mlflows_params_are_refused_and_others_ignored(client, params):
    answer = client.post("/invocations", json={"inputs": ROWS, "params": params})
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert "is not read here; send it in the query: ?" in answer.json["message"]
    ignored = {"inputs": ROWS, "params": {"explain": 0, "temperature": 1}}
    assert client.post("/invocations", json=ignored).status_code == HTTPStatus.OK


def test_inliers_have_no_explanation(client):
    answer = client.post("/predict?explain=2", json={"data": {"ndarray": [[1, 1]]}}).json
    assert answer["meta"]["tags"] == {"explanations": []}
    assert "tags" not in client.post("/predict?explain=0", json=MESSAGE).json["meta"]
    wrong = client.post("/predict?explain=-1", json=MESSAGE)
    assert wrong.json["status"]["info"] == "explain is a whole number, not '-1'"
    wrong = client.post("/predict?explain=9999999", json=MESSAGE)
    assert wrong.json["status"]["info"] == "explain has at most 6 digits, not 7"


@pytest.mark.parametrize(
    ("query", "meant"),
    [("score=1", "scores"), ("Scores=1", "scores"), ("explian=1&scores=1", "explain")],
)
def test_a_misspelt_option_is_refused_with_a_suggestion(client, query, meant):
    answer = client.post(f"/predict?{query}", json=MESSAGE)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    sent = query.partition("=")[0]
    said = f"the query has {sent!r}, which is no option (is it {meant!r}?)"
    assert answer.json["status"]["info"] == said
    answer = client.post(f"/invocations?{query}", json={"instances": ROWS})
    assert (answer.status_code, answer.json["message"]) == (400, said)
    assert samples(client) == 0


def test_unknown_query_parameters_are_ignored(client):
    answer = client.post("/predict?source=web&plain=1&timeout=3&_=17&scores=1", json=MESSAGE)
    assert len(answer.json["meta"]["tags"]["anomaly-scores"]) == 2
    assert client.post("/invocations?key=x&top=1", json={"instances": ROWS}).status_code == 200


@pytest.mark.parametrize(("switch", "on"), [("True", True), ("TRUE", True), ("False", False)])
def test_boolean_options_may_be_written_as_in_python(client, switch, on):
    asked = {"query_string": {"scores": switch}}
    answer = client.post("/predict", json=MESSAGE, **asked).json
    assert ("tags" in answer["meta"]) == on
    answer = client.post("/invocations", json={"instances": ROWS}, **asked).json
    assert ("scores" in answer) == on


def test_the_limit_of_explain_is_the_documented_one(client):
    found = client.get("/openapi.json").json["paths"]["/predict"]["post"]["parameters"]
    (explain,) = [one["schema"] for one in found if one["name"] == "explain"]
    most = explain["maximum"]
    rows = {"data": {"ndarray": [[1, 1]]}}
    assert client.post(f"/predict?explain={most}", json=rows).status_code == HTTPStatus.OK
    refused = client.post(f"/predict?explain={most + 1}", json=rows)
    assert refused.status_code == HTTPStatus.BAD_REQUEST


def test_transform_output_returns_data_unchanged_and_counts_nothing(client):
    sent = {"data": {"names": ["s"], "ndarray": [0, 1]}, "meta": {"puid": "p"}}
    answer = client.post("/transform-output", json=sent).json
    assert answer["data"] == sent["data"]
    assert answer["meta"]["puid"] == "p"
    assert samples(client) == 0


@pytest.mark.parametrize(
    ("path", "text"), [("/route", "Route not defined"), ("/aggregate", "Aggregate not defined")]
)
def test_route_and_aggregate_are_refused_in_seldons_shape(client, path, text):
    for answer in (client.get(path), client.post(path, json=MESSAGE)):
        assert answer.status_code == HTTPStatus.BAD_REQUEST
        assert answer.json["status"]["info"].startswith(text)


def test_the_name_of_this_unit_is_in_the_request_path(make_client):
    client = make_client(model_name="clf", model_image="reg/if:0.1")
    sent = {**MESSAGE, "meta": {"requestPath": {"up": "img:1"}}}
    for path in ("/predict", "/transform-input", "/transform-output", "/send-feedback"):
        if path == "/send-feedback":
            sent = {"request": sent}
        answer = client.post(path, json=sent).json
        assert answer["meta"]["requestPath"] == {"clf": "reg/if:0.1", "up": "img:1"}, path


def test_every_answer_to_a_message_has_a_puid(make_client):
    client = make_client(lambda: "new")
    for path in ("/predict", "/transform-input", "/transform-output"):
        assert client.post(path, json=MESSAGE).json["meta"]["puid"] == "new"


def test_gauges_can_be_turned_off(make_client):
    client = make_client(answer_metrics=False)
    for path in ("/predict", "/transform-input", "/transform-output"):
        assert "metrics" not in client.post(path, json=MESSAGE).json["meta"]


def test_cors_allows_every_origin_for_every_response(client):
    page = {"Origin": "https://example.org"}
    for answer in (
        client.get("/live", headers=page),
        client.post("/predict", json=MESSAGE, headers=page),
        client.get("/no", headers=page),
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "X-Model-Version" in answer.headers["Access-Control-Expose-Headers"]
    asked = {"Access-Control-Request-Headers": "content-type"}
    before = client.options("/predict", headers=asked)
    assert before.status_code == HTTPStatus.OK
    assert before.headers["Access-Control-Allow-Headers"] == "content-type"
    assert "POST" in before.headers["Access-Control-Allow-Methods"]


def test_the_open_inference_server_describes_itself(named):
    for path in ("/v2", "/v2/"):
        server = named.get(path).json
        assert set(server) == {"name", "version", "extensions"}
    assert named.get("/v2/health/live").json == {"live": True}
    assert named.get("/v2/health/ready").json == {"live": True, "ready": True}
    for path in (MODEL, f"{MODEL}/versions/{version(named)}"):
        model = named.get(path).json
        assert [column["name"] for column in model["inputs"]] == ["mean", "sd"]
        assert model["versions"] == [version(named)]
        assert named.get(f"{path}/ready").json == {"name": "isoserve", "ready": True}
        assert named.post(f"{path}/infer", json=REQUEST).json["model_version"] == version(named)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": true}', gzip.compress(b"{}", mtime=0)])
def test_the_repository_lists_the_one_model(client, body):
    headers = {"Content-Encoding": "gzip"} if body[:1] == b"\x1f" else {}
    answer = client.post("/v2/repository/index", data=body, headers=headers)
    state = {"name": "isoserve", "version": version(client), "state": "READY", "reason": ""}
    assert answer.json == [state]


@pytest.mark.parametrize(
    ("asked", "body", "status", "text"),
    [
        ("GET /v2/nowhere", None, 404, "there is no route /v2/nowhere"),
        ("GET /v2/models/other", None, 404, "there is no model 'other'"),
        (f"POST {MODEL}/versions/1/infer", REQUEST, 404, "model 'isoserve' has no version '1'"),
        (f"GET {MODEL}/infer", None, 405, f"{MODEL}/infer takes POST, not GET"),
        (f"POST {MODEL}/infer", {}, 400, "there are no inputs"),
        ("POST /v2/repository/index", [], 400, "the body is empty or an object"),
        (f"POST {MODEL}/infer", {"inputs": [{**TENSOR, "shape": [2], "data": [1, 2]}]},
         400, "rows have 1 column; this model expects 2: f0, f1; the shape [2] is one column, one"),
        ("GET /v2/models/none/ready", None, 404, "there is no model 'none'"),
        ("POST /v2/repository/models/isoserve/load", {}, 404, "there is no route /v2/repository/"
         "models/isoserve/load without an admin token (ISOSERVE_ADMIN_TOKEN): see docs/operate"),
    ],
)  # fmt: skip
def test_errors_under_v2_have_its_shape(client, asked, body, status, text):
    method, path = asked.split()
    answer = client.open(path, method=method, json=body)
    assert answer.status_code == status
    assert set(answer.json) == {"error"}
    assert answer.json["error"].startswith(text)


def test_errors_of_a_path_with_two_slashes_have_its_protocols_shape(client):
    for path, shape in (("//v2/nope", {"error"}), ("//invocations", {"error_code", "message"})):
        answer = client.get("/", environ_overrides={"PATH_INFO": path})
        assert answer.status_code in (404, 405)
        assert set(answer.json) == shape


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Encoding": "br"}, b"x", 415),
        ({"Content-Encoding": "gzip"}, b"x", 400),
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(10**6)), 413),
        ({"Inference-Header-Content-Length": "9"}, b"x", 400),
        ({}, bytes(1001), 413),
        ({}, b"", 400),
    ],
)
def test_undecodable_bodies_are_refused(make_client, headers, body, status):
    client = make_client(max_body_bytes=1000)
    answer = client.post(f"{MODEL}/infer", data=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json) == {"error"}


TEXT = b"a,b\n60,40\n"


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_mlflow_accepts_compressed_bodies_up_to_the_limit(make_client, encoding, pack):
    client = make_client(max_body_bytes=1000)
    headers = {"Content-Encoding": encoding, "Content-Type": "text/csv"}
    for body, status in ((pack(TEXT), 200), (pack(b"1," * 1000), 413), (TEXT, 400)):
        answer = client.post("/invocations", data=body, headers=headers)
        assert answer.status_code == status
        assert set(answer.json) == ({"predictions"} if status == 200 else {"error_code", "message"})
    assert answer.json["message"].startswith(f"the body is not packed with {encoding}: ")


def test_errors_of_mlflow_have_its_shape(client):
    assert client.post("/invocations", data=b"x").status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    wrong = client.get("/invocations"), client.post("/invocations", json={}), client.post("/health")
    for answer in wrong:
        assert set(answer.json) == {"error_code", "message"}
    assert client.post("/invocations", json={}).json["error_code"] == "BAD_REQUEST"
    assert client.get("/ping").text == client.get("/health").text == "pong"
    assert client.get("/version").text.count(".") == 2


def test_an_unknown_version_is_not_found_even_while_stopping(client):
    client.application.extensions["isoserve"].admission.stopping.set()
    for at, status in (("none", 404), (version(client), 503)):
        assert client.get(f"{MODEL}/versions/{at}/ready").status_code == status


def test_readiness_with_two_slashes_is_503_while_stopping(client):
    client.application.extensions["isoserve"].admission.stopping.set()
    assert client.get("/", environ_overrides={"PATH_INFO": "//ready"}).status_code == 503


def test_a_missing_key_is_refused_in_mlflows_shape(make_client):
    client = make_client(api_key="x" * 16)
    assert client.post("/invocations", json={}).json["error_code"] == "UNAUTHENTICATED"
    client.application.extensions["isoserve"].admission.stopping.set()
    assert client.get("/ping").json["error_code"] == "TEMPORARILY_UNAVAILABLE"


@pytest.mark.parametrize("path", [f"{MODEL}/infer", "/invocations", "/v2/repository/index"])
def test_only_seldon_routes_use_seldons_phrase_for_broken_json(client, path):
    answer = client.post(path, data=b"[1,", content_type="application/json")
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert "the body is not JSON: unexpected" in answer.text
    assert "Can't find JSON" not in answer.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "columns", "id"]),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)
heads = st.fixed_dictionaries(
    {"name": st.just("x"), "shape": st.just([1, 2]) | json_values,
     "datatype": st.sampled_from(["FP64", "INT8", "BYTES", "BF16", "BOOL"])},
    optional={"data": json_values, "parameters": st.fixed_dictionaries(
        {}, optional={"binary_data_size": st.integers(-1, 20) | json_values})},
)  # fmt: skip
requests = st.fixed_dictionaries(
    {"inputs": st.lists(heads, max_size=3) | json_values}, optional={"outputs": json_values}
)
tables = st.dictionaries(
    st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"]),
    json_values | st.lists(st.dictionaries(st.sampled_from("ab"), json_values), max_size=3),
    min_size=1,
    max_size=1,
)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(request=requests, tail=st.binary(max_size=20), table=tables, text=st.text(max_size=30))
def test_no_request_causes_an_internal_error(client, request, tail, table, text):
    body = json.dumps(request).encode()
    lengths = {"Inference-Header-Content-Length": str(len(body))}
    answers = [
        client.post(f"{MODEL}/infer", data=body),
        client.post(f"{MODEL}/infer", data=body + tail, headers=lengths),
        client.post("/v2/repository/index", data=body),
        client.post("/invocations", json=table),
        client.post("/invocations", data=text.encode("utf-16"), content_type="text/csv"),
        client.post("/invocations", data=text, content_type="text/csv"),
        client.post("/predict", data=body, content_type="multipart/form-data; boundary=x"),
        client.post("/predict", query_string={"json": text, "explain": text[:3]}),
        client.post("/transform-output", json=table),
    ]
    for answer in answers:
        assert answer.status_code < 500
        assert answer.json


def test_a_response_lists_a_limited_number_of_explained_features(client):
    rows = {"data": {"ndarray": [[60, 40]] * 5_001}}
    refused = client.post("/predict?explain=999", json=rows)
    assert refused.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert "at most 10,000: send fewer rows" in refused.json["status"]["info"]
    counted = client.post("/predict?explain=1", json=rows).json["meta"]["metrics"]
    assert {gauge["key"]: gauge["value"] for gauge in counted}["observation"] == 5_001


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_response_has_a_limited_number_of_contributions(make_client, as_bytes):
    client = make_client(max_rows=600_000)
    table = {"name": "x", "shape": [500_001, 2], "datatype": "FP64", "data": [0] * 1_000_002}
    asked = [{"name": "contributions", "parameters": {"binary_data": as_bytes}}]
    refused = client.post(f"{MODEL}/infer", json={"inputs": [table], "outputs": asked})
    assert refused.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert refused.json["error"] == (
        "contributions of 500,001 rows and 2 features are 1,000,002 numbers; at most 1,000,000: "
        "send fewer rows"
    )
    assert samples(client) == 0


def test_a_body_that_ends_early_is_refused(named):
    environ = EnvironBuilder("/predict", method="POST", data=b"abc").get_environ()
    environ |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": "4"}
    chunks, status, _ = run_wsgi_app(named.application.wsgi_app, environ)
    assert (status, b"ends early" in b"".join(chunks)) == ("400 Bad Request", True)
