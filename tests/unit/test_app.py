import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.errors import BadModel, BadSetting
from service.settings import Settings
from service.state.records import begin_records, open_records
from service.telemetry.drift import DriftWatch
from service.telemetry.metrics import METRICS
from tests.support.cards import calibration, number
from tests.support.examples import NIGHTLY, examples
from tests.support.running import read_samples

ROUTES = ["/predict", "/transform-input"]


def post(client, rows, route="/predict", **extra):
    return client.post(route, json={"data": {"ndarray": rows, **extra}})


def metrics(client):
    """Every sample of /metrics by name and labels."""
    return read_samples(client.get("/metrics").text)


def value(client, name, **labels):
    return metrics(client)[name, tuple(sorted(labels.items()))]


def test_scores_and_labels_equal_scikit_learns(client, forest, samples):
    body = {"data": {"ndarray": samples.tolist()}}
    answer = client.post("/predict?scores=1", json=body).json
    scores = np.array(answer["meta"]["tags"]["anomaly-scores"])
    assert np.array_equal(scores, forest.decision_function(samples))
    labels = np.array(answer["data"]["ndarray"])
    assert np.array_equal(labels == 1, forest.predict(samples) == -1)


def test_a_boolean_option_is_1_or_0(client):
    answer = client.post("/predict?scores=maybe", json={"data": {"ndarray": [[1, 2]]}})
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json["status"]["info"] == "scores is 1 or 0, not 'maybe'"


def test_the_service_does_not_start_with_a_model_wider_than_the_limit(make_client):
    with pytest.raises(BadSetting, match="ISOSERVE_MAX_COLUMNS=1 would refuse every request"):
        make_client(max_columns=1)


def test_a_compressed_body_is_refused_with_a_reason(client):
    headers = {"Content-Encoding": "gzip"}
    answer = client.post("/predict", json={"data": {"ndarray": [[1, 2]]}}, headers=headers)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert "Content-Encoding" in answer.json["status"]["info"]


@pytest.mark.parametrize("text", ["0", "false", ""])
def test_scores_are_returned_only_on_request(client, text):
    answer = client.post(f"/predict?scores={text}", json={"data": {"ndarray": [[1, 2]]}})
    assert "tags" not in answer.json["meta"]


def test_answers_are_sorted_json_without_spaces(client):
    answer = post(client, [[1, 1], [60, 40]])
    assert answer.content_type == "application/json"
    assert answer.text.startswith('{"data":{"names":[],"ndarray":[0,1]},"meta":{"metrics":[')


def test_every_answer_names_the_request_and_the_model(client):
    for answer in (post(client, [[1, 1]]), client.get("/nowhere"), client.get("/metrics")):
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-ID"])
        assert re.fullmatch("[0-9a-f]{12}", answer.headers["X-Model-Version"])


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1.2_3", True), ("a b", False), ("x" * 65, False), ("ü", False)]
)
def test_a_request_id_is_kept_if_it_has_safe_characters_only(client, sent, kept):
    answer = client.get("/live", headers={"X-Request-ID": sent})
    assert (answer.headers["X-Request-ID"] == sent) == kept


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b'{"data":{"ndarray":[[1,2]]}}', None),
        (b'{"data":{"ndarray":[[1,2]]}}', "text/plain"),
        (b"", "application/json"),
        (b"{", "application/json"),
    ],
)
def test_a_body_without_json_is_refused_with_seldons_text(client, data, content_type):
    answer = client.post("/predict", data=data, content_type=content_type)
    status = answer.json["status"]
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert status["info"].startswith("Can't find JSON in data")
    assert (status["code"], status["status"]) == (-1, 1)
    assert status["reason"] == "MICROSERVICE_BAD_DATA"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "number", ["NaN", "-Infinity", "1e999", "1" + "0" * 400, "9" * 5000, "null"]
)
def test_a_cell_that_is_not_a_finite_number_is_named(client, route, number):
    body = f'{{"data":{{"ndarray":[[1,2],[3,{number}]]}}}}'
    answer = client.post(route, data=body, content_type="application/json")
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json["status"]["info"].startswith("row 1, column 1: ")


def test_a_wrong_number_of_columns_is_refused_and_the_columns_are_named(client):
    answer = post(client, [[1, 2, 3]])
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json["status"]["info"] == "rows have 3 columns; this model expects 2: f0, f1"


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/models/isoserve:predict", {"error"}),
        ("/v1/models/isoserve:explain", {"error"}),
        ("/v1/models/isoserve", {"error"}),
        ("/score", {"status"}),
        ("/api/v2/anything/else", {"status"}),
    ],
)
def test_an_unknown_path_is_told_the_three_protocols(client, path, shape):
    for method in ("POST", "GET") if path.startswith("/v1/") else ("POST",):
        answer = client.open(path, method=method, json={"instances": [[60, 40]]})
        assert (answer.status_code, set(answer.json)) == (404, shape)
        assert (
            "predictions are POST /predict (Seldon v1), /v2/models/{model}/infer (Open Inference) "
            "and /invocations (MLflow)"
        ) in answer.text


def test_an_unknown_path_gets_404_and_a_wrong_method_405(client):
    missing = client.post("/predikt")
    assert missing.status_code == HTTPStatus.NOT_FOUND
    assert missing.json["status"]["info"] == "there is no route /predikt (is it '/predict'?)"
    wrong = client.delete("/predict")
    assert wrong.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert "POST" in wrong.headers["Allow"]
    for answer in (missing, wrong):
        assert answer.json["status"]["reason"] == "MICROSERVICE_BAD_DATA"


def test_a_body_over_a_limit_gets_413(make_client):
    client = make_client(max_body_bytes=100, max_rows=2, max_columns=3)
    for rows in ([[1, 2]] * 3, [[1, 2, 3, 4]], [[1.0, 2.0]] * 50):
        answer = post(client, rows)
        assert answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        assert answer.json["status"]["reason"] == "MICROSERVICE_BAD_DATA"
    body = json.dumps({"data": {"ndarray": [[1, 2]]}}).encode()
    for size, status in ((100, HTTPStatus.OK), (101, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)):
        answer = client.post("/predict", data=body.ljust(size), content_type="application/json")
        assert answer.status_code == status


def test_named_columns_may_come_in_any_order(write_card, make_client):
    write_card()
    client = make_client()
    there, back = [[1.0, 60.0]], [[60.0, 1.0]]
    first = client.post(
        "/predict?scores=1", json={"data": {"names": ["mean", "sd"], "ndarray": there}}
    )
    second = client.post(
        "/predict?scores=1", json={"data": {"names": ["sd", "mean"], "ndarray": back}}
    )
    assert first.json["meta"]["tags"] == second.json["meta"]["tags"]
    wrong = post(client, there, names=["mean", "sdd"])
    assert wrong.status_code == HTTPStatus.BAD_REQUEST
    assert "column 'sd' is missing (is it 'sdd'?)" in wrong.json["status"]["info"]
    lenient = make_client(names="position")
    assert post(lenient, there, names=["x", "y"]).status_code == HTTPStatus.OK


def test_a_model_without_names_ignores_names(client):
    assert post(client, [[1, 2]], names=["x", "y"]).status_code == HTTPStatus.OK


def test_only_scored_rows_are_counted_once_each(client):
    post(client, [[1, 1], [60, 40]])
    post(client, [[60, 40]], route="/transform-input")
    post(client, [[1, None]])
    for route in ("/health/ping", "/health/status", "/ready", "/live", "/metadata", "/metrics"):
        assert client.get(route).status_code == HTTPStatus.OK
    assert value(client, "isoserve_samples_total") == 3
    assert value(client, "isoserve_outliers_total") == 2
    assert value(client, "isoserve_score_count") == 3
    health = client.get("/health/status").json["meta"]["metrics"]
    assert {m["key"]: m["value"] for m in health}["observation"] == 3


def test_counts_are_exact_under_many_threads(make_client):
    application = make_client().application

    def send(n):
        return post(application.test_client(), [[1, 1]] * (n % 3) + [[60, 40]]).json

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(300)))
    client = application.test_client()
    assert value(client, "isoserve_samples_total") == 600
    assert value(client, "isoserve_outliers_total") == 300
    observations = [a["meta"]["metrics"][4]["value"] for a in answers]
    assert max(observations) == 600
    assert len(set(observations)) == 300


def test_the_score_histogram_has_its_sum_and_count(client, forest, samples):
    post(client, samples.tolist())
    scores = forest.decision_function(samples)
    seen = metrics(client)
    assert seen["isoserve_score_sum", ()] == pytest.approx(scores.sum())
    for bound in (-0.1, 0.0, 0.1):
        assert seen["isoserve_score_bucket", (("le", str(bound)),)] == (scores <= bound).sum()
    assert seen["isoserve_score_bucket", (("le", "+Inf"),)] == len(samples)


def test_requests_are_counted_by_route_and_status_and_timed_by_route(client):
    post(client, [[1, 1]])
    post(client, [[1]])
    client.get("/nowhere")
    client.get("/elsewhere")
    name = "isoserve_requests_total"
    assert value(client, name, route="/predict", status="2xx") == 1
    assert value(client, name, route="/predict", status="4xx") == 1
    assert value(client, name, route="other", status="4xx") == 2
    name = "isoserve_request_duration_seconds_count"
    assert value(client, name, route="/predict") == 2
    assert value(client, name, route="other") == 2


def test_metrics_name_the_model_and_keep_seldons_labels(write_card, make_client):
    write_card()
    client = make_client(threshold=0.05, model_name="clf", model_image="reg/if:0.1")
    post(client, [[60, 40]])
    seen = metrics(client)
    assert seen["isoserve_threshold", ()] == 0.05
    seldon = {name: (dict(labels), v) for (name, labels), v in seen.items()}
    labels, observed = seldon["observation"]
    assert observed == 1
    assert (labels["model_name"], labels["model_image"]) == ("clf", "reg/if")
    assert (labels["image_version"], labels["deployment_name"]) == ("0.1", "NOT_IMPLEMENTED")
    assert "worker_id" not in labels


def measure_drift(client):
    """Measure drift once, as a worker does every few seconds in a thread."""
    begun = client.application.extensions["isoserve in each worker"]
    owners = [getattr(begin, "__self__", None) for begin in begun]
    next(owner for owner in owners if isinstance(owner, DriftWatch)).measure()


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 0.125), (-0.25, 0.25), (0.5, 1.0)])
def test_the_training_share_is_below_the_threshold(write_card, make_client, threshold, share):
    write_card(score_quantiles=[i / 100 - 0.5 for i in range(101)])
    client = make_client(threshold=threshold)
    assert value(client, "isoserve_training_outlier_share") == pytest.approx(share)


def test_every_metric_is_exposed_with_its_help(write_card, make_client):
    write_card(calibration=calibration(np.linspace(-0.1, 0.9, 999)))
    client = make_client(outlier_share=0.1)
    answer = post(client, [*[[1, 1]] * 999, [60, 40]]).json  # drift is not shown before
    truth = {"data": {"ndarray": answer["data"]["ndarray"]}}
    client.post("/send-feedback", json={"response": answer, "truth": truth, "reward": 1})
    measure_drift(client)
    page = client.get("/metrics").text
    exposed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    assert exposed == {name: kind for name, (kind, _) in METRICS.items()}


def test_series_do_not_grow_with_unknown_urls(client):
    client.get("/metrics")
    before = len(client.get("/metrics").text.splitlines())
    for n in range(200):
        client.get(f"/{n}")
        client.open(f"/{n}", method=f"M{n}")
    after = len(client.get("/metrics").text.splitlines())
    assert after - before < 30


def test_the_number_of_series_is_limited_for_any_requests(write_card, make_client):
    write_card()
    client = make_client()
    post(client, [[1, 1]] * 1000)
    measure_drift(client)
    for i in range(2000 if NIGHTLY else 600):
        method = ("GET", "POST", "PUT", f"ODD{i}")[i % 4]
        path = (f"/{i}", f"/predict/{i}", "/predict", f"/health/{i}?{i}={i}", "/metrics")[i % 5]
        client.open(path, method=method, json={"data": {"names": [f"x{i}"], "ndarray": [[i]]}})
    assert len(metrics(client)) < 500


def test_a_puid_is_taken_from_the_client_or_generated(client):
    sent = client.post("/predict", json={"meta": {"puid": "p1"}, "data": {"ndarray": [[1, 2]]}})
    assert sent.json["meta"]["puid"] == "p1"
    named = [post(client, [[1, 2]], route).json["meta"]["puid"] for route in ROUTES * 2]
    assert all(re.fullmatch("[0-9a-f]{32}", puid) for puid in named)
    assert len(set(named)) == 4


def test_the_puid_generator_can_be_replaced(folder):
    settings = Settings(model=folder / "model.pickle", state_dir=folder / "state")
    client = create_app(settings, make_puid=iter(["one", "two"]).__next__).test_client()
    assert [post(client, [[1, 2]]).json["meta"]["puid"] for _ in "ab"] == ["one", "two"]


def test_each_scored_row_is_recorded_with_its_label(write_card, make_client, folder, forest):
    write_card()
    client = make_client(state_dir=folder / "state")
    body = {"meta": {"puid": "p"}, "data": {"names": ["sd", "mean"], "ndarray": [[40, 60], [1, 2]]}}
    assert client.post("/predict", json=body).status_code == HTTPStatus.OK
    post(client, [[1, "x"]])
    client.get("/ready")
    records = open_records(folder / "state")
    rows = records.find("p")
    assert len(records.read()) == 2
    assert records.features == ("mean", "sd")
    assert rows["values"].tolist() == [[60, 40], [2, 1]]
    assert rows["score"].tolist() == forest.decision_function([[60, 40], [2, 1]]).tolist()
    assert rows["label"].tolist() == [1, 0]
    version = client.get("/live").headers["X-Model-Version"]
    assert set(rows["version"].tolist()) == {version.encode()}


@pytest.mark.parametrize(("records", "kept"), [(0, False), (10, True)])
def test_recording_rows_and_values_can_be_turned_off(make_client, folder, records, kept):
    client = make_client(state_dir=folder / "state", records=records, record_values=False)
    assert post(client, [[1, 2]] * 20).status_code == HTTPStatus.OK
    assert (folder / "state/records.bin").exists() == kept
    if kept:
        record = open_records(folder / "state")
        assert record.read()["values"].shape == (10, 0)


def test_recorded_rows_are_deleted_when_recording_is_turned_off(make_client, folder):
    (folder / "state").mkdir(mode=0o700)
    for rows in (10, 20):
        begin_records(folder / "state", ["a"], rows)
    assert len(list((folder / "state").glob("records.bin*"))) == 2
    make_client(state_dir=folder / "state", records=0)
    assert not list((folder / "state").glob("records*"))


def test_drift_is_shown_from_1000_rows_on(write_card, make_client, samples):
    quantiles = np.quantile(samples, np.linspace(0, 1, 101), axis=0).T.tolist()
    write_card(
        columns=[number(n, q) for n, q in zip("ab", quantiles, strict=True)],
        score_quantiles=np.linspace(-0.4, 0.2, 101).tolist(),
    )
    client = make_client()
    post(client, samples[:999].tolist())
    measure_drift(client)
    assert not any("drift" in name for name, _ in metrics(client))
    post(client, (samples[999:2000] * [1, 10]).tolist())
    measure_drift(client)
    assert value(client, "isoserve_drift_psi", feature="a") < 0.05
    assert value(client, "isoserve_drift_psi", feature="b") > 0.5
    assert value(client, "isoserve_score_drift_psi") > 0.5


def test_metadata_names_the_columns(client):
    answer = client.get("/metadata").json
    assert answer["name"] == "isoserve"
    assert answer["inputs"][0]["schema"] == {"names": ["f0", "f1"], "shape": [2]}
    assert answer["versions"] == [client.get("/live").headers["X-Model-Version"]]


def test_an_internal_error_is_logged_and_answered_briefly(make_client, monkeypatch, caplog):
    client = make_client()

    def fail(*_):
        raise RuntimeError("broken inside")

    monkeypatch.setattr("service.serving.detector.Detector.score", fail)
    answer = post(client, [[1, 1]])
    assert answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert answer.json["status"]["reason"] == "MICROSERVICE_INTERNAL_ERROR"
    assert "broken inside" not in answer.text
    assert client.get("/ready").status_code == HTTPStatus.INTERNAL_SERVER_ERROR


def test_the_service_does_not_start_with_an_unreadable_model(tmp_path):
    with pytest.raises(BadModel):
        create_app(Settings(model=tmp_path / "model.pickle"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4)
    | st.dictionaries(st.sampled_from(["data", "ndarray", "tensor", "shape", "values", "names",
                                       "meta", "tags", "puid"]), children, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=json_values
    | st.fixed_dictionaries({"data": st.fixed_dictionaries({"ndarray": json_values})})
)
def test_no_json_body_causes_an_internal_error(client, body):
    for route in ROUTES:
        answer = client.post(route, data=json.dumps(body), content_type="application/json")
        assert answer.status_code in (200, 400, 413)
        assert answer.json


def test_metrics_show_the_space_on_the_state_folders_disk(make_client, folder):
    client = make_client()
    usage = shutil.disk_usage(folder)
    assert value(client, "isoserve_state_size_bytes") == usage.total
    assert 0 < value(client, "isoserve_state_free_bytes") <= usage.total
    shutil.rmtree(client.application.extensions["isoserve state folder"].path)
    assert ("isoserve_state_free_bytes", ()) not in metrics(client)


def test_null_is_scored_if_the_model_allows_missing_values(make_client, write_card, forest):
    body = {"data": {"ndarray": [[1.0, None], [60, 40]]}}
    write_card()
    refused = make_client().post("/predict", json=body)
    assert refused.status_code == 400
    assert refused.json["status"]["info"] == (
        "row 0, column 1 ('sd'): a missing value (null, NaN or empty); this column takes none"
    )
    write_card(columns=[number("mean", missing=1), number("sd", missing=1)])
    client = make_client()
    answer = client.post("/predict?scores=1", json=body)
    scores = forest.decision_function([[1.0, float("nan")], [60, 40]])
    assert answer.json["meta"]["tags"]["anomaly-scores"] == scores.tolist()
    for text in ("1e999", "Infinity", '"inf"'):
        sent = '{"data": {"ndarray": [[null, ' + text + "]]}}"
        answer = client.post("/predict", data=sent, content_type="application/json")
        assert answer.status_code == 400


def test_a_scrape_writes_nothing_to_the_disk(client, samples):
    def writes():
        fields = Path("/proc/thread-self/io").read_text().split()
        return int(fields[fields.index("syscw:") + 1])

    client.post("/predict", json={"data": {"ndarray": samples[:20].tolist()}})
    client.get("/metrics")  # opens the database of feedback
    before = writes()
    assert client.get("/metrics").status_code == 200
    assert writes() == before
