"""Feedback over HTTP: which rows it is about, and what is counted."""

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.state.feedback.store import open_feedback
from tests.support.cards import number
from tests.support.examples import examples
from tests.unit.test_app import json_values

ROUTES = ["/send-feedback", "/api/v1.0/feedback", "/api/v0.1/feedback"]
NORMAL, ODD = [1.0, 1.0], [60.0, 40.0]
OK, BAD, MISSING = HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND
BUSY = HTTPStatus.SERVICE_UNAVAILABLE


@pytest.fixture
def predict(client):
    """Predict rows; return the answer."""

    def post(rows, puid=None):
        meta = {"puid": puid} if puid else {}
        return client.post("/predict", json={"meta": meta, "data": {"ndarray": rows}}).json

    return post


def send(client, truth=None, puid=None, *, row=None, rows=None, route=ROUTES[0], **message):
    """Send feedback; return the status, and the figures or the error of the answer."""
    meta = {"puid": puid} if puid else {}
    if row is not None:
        meta["tags"] = {"row": row}
    request = {"meta": meta} | ({"data": {"ndarray": rows}} if rows else {})
    if truth is not None:
        message["truth"] = {"data": {"ndarray": truth}}
    answer = client.post(route, json={"request": request, **message})
    return answer.status_code, figures(answer.json)


def figures(answer):
    if "status" in answer:
        return answer["status"]["info"]
    return {gauge["key"]: gauge["value"] for gauge in answer["meta"]["metrics"]}


def counts(known):
    return tuple(
        known[name]
        for name in ("true_negative", "false_positive", "false_negative", "true_positive")
    )


def samples(client):
    """Every sample of /metrics that has one series, by name."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def rewards(client):
    """The number of rewards other than 0, and their sum."""
    seen = samples(client)
    return seen["isoserve_feedback_rewards"], seen["isoserve_feedback_reward"]


def stop(client):
    """Release the state folder, as a process does when it ends."""
    client.application.extensions.clear()


@pytest.mark.parametrize("route", ROUTES)
def test_a_response_sent_back_with_the_truth_is_counted_row_by_row(client, predict, route):
    answer = predict([NORMAL, ODD, NORMAL])
    status, known = send(client, [0, 1, 1], route=route, response=answer, reward=1.0)
    assert (status, counts(known)) == (OK, (1, 0, 1, 1))
    assert known["observation"] == 3  # feedback counts no samples
    seen = samples(client)
    assert {name: seen[name] for name in known if name != "is_outlier"} == known
    assert seen["seldon_api_model_feedback_total"] == 1
    assert seen["seldon_api_model_feedback_reward_total"] == 1.0
    assert seen["isoserve_storage_up"] == 1


def test_a_form_field_is_read_as_seldons_clients_send_it(client, predict):
    message = {"response": predict([ODD]), "truth": {"data": {"ndarray": [1]}}}
    answer = client.post("/send-feedback", data={"json": json.dumps(message)})
    assert counts(figures(answer.json)) == (0, 0, 0, 1)
    assert client.post("/send-feedback", data={"jsn": "{}"}).status_code == BAD


def test_a_request_nested_to_the_depth_limit_can_be_sent_in_feedback(client):
    message = {"meta": {"tags": {"a": {"b": {"c": {"d": [[1]]}}}}}, "data": {"ndarray": [ODD]}}
    answer = client.post("/predict", json=message)
    truth = {"data": {"ndarray": [1]}}
    body = {"request": message, "response": answer.json, "truth": truth}
    assert counts(figures(client.post("/send-feedback", json=body).json)) == (0, 0, 0, 1)


def test_a_number_that_cannot_be_read_is_named(client):
    for body, words in (
        ('{"reward": NaN}', "reward is nan"),
        ('{"truth": {"data": {"ndarray": [0, Infinity]}}}', "truth 1 is inf"),
        ('{"request": {"data": {"ndarray": [[1, Infinity]]}}}', "row 0, column 1: inf"),
    ):
        answer = client.post("/send-feedback", data=body, content_type="application/json")
        assert answer.status_code == BAD
        assert words in answer.json["status"]["info"]


def test_feedback_is_never_paired_with_the_last_prediction(client, predict):
    first = predict([ODD])
    predict([NORMAL])
    predict([NORMAL])
    assert counts(send(client, [1], response=first)[1]) == (0, 0, 0, 1)


def test_one_row_of_a_prediction_can_have_a_truth(client, predict):
    predict([NORMAL, ODD], "p")
    assert counts(send(client, [1], "p", row=1)[1]) == (0, 0, 0, 1)
    status, words = send(client, [1], "p", row=2)
    assert (status, words.startswith("request.meta.tags.row is 2")) == (BAD, True)
    assert counts(send(client, [0, 1], "p")[1]) == (1, 0, 0, 1)


def test_a_label_sent_by_the_client_is_never_trusted(client, predict):
    answer = predict([ODD])
    answer["data"]["ndarray"] = [0]
    assert counts(send(client, [1], response=answer)[1]) == (0, 0, 0, 1)


def test_without_a_record_the_request_in_the_feedback_is_scored_again(client):
    status, known = send(client, [0, 0], "elsewhere", rows=[NORMAL, ODD])
    assert (status, counts(known)) == (OK, (1, 1, 0, 0))
    assert known["observation"] == 0
    assert counts(send(client, [1], "elsewhere", row=1)[1]) == (1, 0, 0, 1)  # a revision
    assert counts(send(client, [1], "elsewhere", row=0, rows=[NORMAL, ODD])[1]) == (0, 0, 1, 1)


def test_missing_values_are_scored_again_only_if_the_model_allows_them(make_client, write_card):
    rows = [NORMAL, [60.0, None]]
    status, words = send(make_client(), [1], "p", row=0, rows=rows)
    assert status == BAD
    assert words.startswith("the request that the feedback carries: row 1, column 1: a missing")
    write_card(columns=[number("mean", missing=1), number("sd", missing=1)])
    status, known = send(make_client(), [1], "p", row=1, rows=rows)
    assert (status, known["nb_labels_tot"]) == (OK, 1)


def test_messages_without_a_puid_count_separately(client):
    for n in (1, 2):
        answer = client.post(
            "/send-feedback",
            json={"request": {"data": {"ndarray": [ODD]}}, "truth": {"data": {"ndarray": [1]}}},
        )
        assert counts(figures(answer.json)) == (0, 0, 0, n)
        assert len(answer.json["meta"]["puid"]) == 32
    status, words = send(client, [1])
    assert (status, words.startswith("truth about no prediction")) == (BAD, True)


def test_a_repeated_message_counts_once_and_another_truth_is_a_revision(client, predict):
    predict([ODD], "p")
    for _ in range(3):
        known = send(client, [1], "p", reward=2.0)[1]
    assert counts(known) == (0, 0, 0, 1)
    assert counts(send(client, [0], "p")[1]) == (0, 1, 0, 0)
    assert rewards(client) == (1, 2.0)
    send(client, None, "p", reward=0)
    assert rewards(client) == (0, 0)


def test_an_unknown_prediction_gets_404_and_is_counted_as_unmatched(client):
    for message in ({"truth": [1]}, {"reward": 1.0}, {}):
        status, words = send(client, puid="unheard-of", **message)
        assert status == MISSING
        assert words.startswith("prediction 'unheard-of' is not on record (any more)")
    assert samples(client)["isoserve_feedback_unmatched_total"] == 3
    assert samples(client)["seldon_api_model_feedback_total"] == 0
    assert rewards(client) == (0, 0)


@pytest.mark.parametrize("body", [{}, []])
def test_an_empty_message_changes_nothing(client, body):
    answer = client.post("/send-feedback", json=body)
    assert answer.json["data"] == {"tensor": {"shape": [0]}}
    assert counts(figures(answer.json)) == (0, 0, 0, 0)
    assert "accuracy_tot" not in figures(answer.json)
    assert "accuracy_tot" not in samples(client)


def test_a_reward_alone_counts_and_changes_nothing_else(client, predict):
    known = send(client, response=predict([ODD]), reward=-0.5)[1]
    assert known["nb_labels_tot"] == 0
    assert send(client, reward=2)[0] == OK
    assert rewards(client) == (2, 1.5)
    assert samples(client)["seldon_api_model_feedback_total"] == 2
    assert samples(client)["seldon_api_model_feedback_reward_total"] == 2.0


def test_a_reward_that_is_too_large_or_too_fine_is_refused_with_a_reason(client, predict):
    predict([ODD], "p")
    for reward in (1_000_001, 1e-7):
        status, words = send(client, [1], "p", reward=reward)
        assert (status, words.startswith(f"reward is {reward}; it")) == (BAD, True)
    assert samples(client)["nb_labels_tot"] == 0
    assert send(client, [1], "p", reward=0.3)[0] == OK
    assert samples(client)["seldon_api_model_feedback_reward_total"] == 0.3


def test_seldons_counters_never_fall_whatever_is_revised_or_deleted(client, predict):
    def counters():
        seen = samples(client)
        return tuple(
            seen[f"seldon_api_model_feedback_{name}"] for name in ("total", "reward_total")
        )

    predict([ODD], "p")
    before = counters()
    for truth, reward in (([1], 5), ([0], 3), ([1], -7), (None, 0), ([0], None)):
        assert send(client, truth, "p", reward=reward)[0] == OK
        now = counters()
        assert now[0] == before[0] + 1
        assert now[1] == before[1] + max(reward or 0, 0)
        before = now
    state = client.application.extensions["isoserve state folder"].path
    open_feedback(state).delete(puid="p")
    assert (counters(), rewards(client)) == ((5, 8), (0, 0))


def test_recall_is_not_known_while_only_flagged_rows_have_a_truth(client, predict):
    predict([ODD, NORMAL], "p")
    known = send(client, [1], "p", row=0)[1]
    assert (known["precision_tot"], known["accuracy_tot"]) == (1, 1)
    unknown = {f"{name}_{suffix}" for name in ("recall", "f1", "f2") for suffix in ("tot", "roll")}
    assert not unknown & {*known, *samples(client)}
    known = send(client, [1], "p", row=1)[1]
    assert (known["recall_tot"], known["recall_roll"]) == (0.5, 0.5)
    assert unknown <= {*known} & {*samples(client)}


def test_the_number_of_truths_must_equal_the_number_of_rows(client, predict):
    answer = predict([NORMAL, ODD])
    status, words = send(client, [1], response=answer)
    assert status == BAD
    assert words.startswith("1 truth for 2 rows; send one for each, or name a single row")
    assert send(client, [1, 0], rows=[NORMAL])[0] == BAD
    assert samples(client)["nb_labels_tot"] == 0


def test_a_puid_used_twice_means_the_later_prediction(client, predict):
    predict([ODD], "p")
    send(client, [1], "p")
    predict([NORMAL], "p")
    assert counts(send(client, [1], "p")[1]) == (0, 0, 1, 0)


@pytest.mark.parametrize("message", [{"truth": [0, 1]}, {"truth": [1], "row": 0}, {"reward": 1}])
def test_a_request_with_another_number_of_rows_than_the_prediction_is_refused(
    client, predict, message
):
    predict([NORMAL, ODD], "p")
    status, words = send(client, puid="p", rows=[NORMAL] * 3, **message)
    assert (status, words.partition(";")[0]) == (
        BAD, "the feedback carries a request with 3 rows, and prediction 'p' has 2",
    )  # fmt: skip
    assert samples(client)["nb_labels_tot"] == 0
    assert send(client, puid="p", rows=[NORMAL] * 2, **message)[0] == OK


def test_names_of_the_request_in_the_feedback_are_matched(make_client, write_card):
    write_card()
    client = make_client()

    def label(names, row):
        data = {"names": names, "ndarray": [row]}
        body = {"request": {"data": data}, "truth": {"data": {"ndarray": [1]}}}
        return client.post("/send-feedback", json=body).status_code

    skewed = [60.0, 0.1]
    for names, row in ((["mean", "sd"], skewed), (["sd", "mean"], skewed[::-1]),
                       (["t:1", "t:0"], skewed[::-1]), ([1, 0], skewed[::-1])):  # fmt: skip
        assert label(names, row) == OK
    state = client.application.extensions["isoserve state folder"].path
    with closing(sqlite3.connect(state / "feedback.db")) as database:
        assert len(set(database.execute("SELECT score FROM truths"))) == 1
    for names in (["mean", "mean"], ["mean"], ["t:0", "t:2"]):
        assert label(names, skewed) == BAD


def test_rows_that_left_the_record_need_the_request(make_client):
    client = make_client(records=10)
    body = {"meta": {"puid": "p"}, "data": {"ndarray": [NORMAL, ODD] * 10}}
    client.post("/predict", json=body)
    status, words = send(client, [0, 1] * 10, "p")
    assert (status, words.startswith("row 0 of prediction 'p'")) == (MISSING, True)
    assert counts(send(client, [1], "p", row=19)[1]) == (0, 0, 0, 1)
    assert counts(send(client, [0, 1] * 10, "p", rows=[NORMAL, ODD] * 10)[1]) == (10, 0, 0, 10)
    assert send(client, [0, 1] * 10, "p")[0] == OK  # all were known before


def test_without_records_feedback_needs_the_request(make_client):
    client = make_client(records=0)
    answer = client.post("/predict", json={"data": {"ndarray": [ODD]}}).json
    assert send(client, [1], response=answer)[0] == MISSING
    assert counts(send(client, [1], rows=[ODD], response=answer)[1]) == (0, 0, 0, 1)


def test_the_returned_label_counts_after_the_model_changed(make_client, write_card, folder):
    write_card()
    settings = {"state_dir": folder / "state"}
    client = make_client(**settings)
    answer = client.post("/predict", json={"data": {"ndarray": [ODD]}}).json
    stop(client)
    lenient = make_client(threshold=-0.5, **settings)
    assert counts(send(lenient, [1], rows=[ODD], response=answer)[1]) == (0, 0, 0, 1)
    assert counts(send(lenient, [1], rows=[ODD])[1]) == (0, 0, 1, 1)


def test_a_restart_changes_no_figure(make_client, write_card, folder):
    write_card()
    settings = {"state_dir": folder / "state", "window": 2}
    client = make_client(**settings)
    for truth in (0, 1, 1):
        known = send(client, [truth], rows=[ODD], reward=0.1)[1]
    stop(client)
    client = make_client(**settings)
    assert send(client)[1] == known
    assert known["nb_labels_roll"] == 2
    assert samples(client)["seldon_api_model_feedback_reward_total"] == 0.3


def test_figures_are_exact_under_many_threads(make_client):
    app = make_client().application
    app.test_client().post(
        "/predict", json={"meta": {"puid": "p"}, "data": {"ndarray": [NORMAL, ODD] * 100}}
    )

    def insist(n):
        """Send feedback until it is stored: on a slow disk some messages get 503."""
        while (status := send(app.test_client(), [n % 4 // 2], "p", row=n // 2)[0]) == BUSY:
            time.sleep(0.1)
        assert status == OK

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(insist, range(400)))
    known = samples(app.test_client())
    assert counts(known) == (100 - known["false_negative"], known["false_positive"],
                             known["false_negative"], 100 - known["false_positive"])  # fmt: skip
    assert known["nb_labels_tot"] == 200


def test_a_locked_database_stops_feedback_only(make_client, folder):
    client = make_client(state_dir=folder / "state")
    send(client, [1], rows=[ODD])
    with closing(sqlite3.connect(folder / "state/feedback.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        answer = client.post("/send-feedback", json={"reward": 1})
        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert answer.headers["Retry-After"] == "1"
        assert answer.json["status"]["reason"] == "MICROSERVICE_INTERNAL_ERROR"
        assert "database is locked" in answer.json["status"]["info"]
        assert client.post("/predict", json={"data": {"ndarray": [ODD]}}).status_code == OK
        seen = samples(client)
        assert (seen["isoserve_storage_up"], seen["nb_labels_tot"]) == (0, 1)
    assert samples(client)["isoserve_storage_up"] == 1
    assert client.post("/send-feedback", json={"reward": 1}).status_code == OK


def test_metrics_are_exposed_when_feedback_cannot_be_read(make_client, folder):
    client = make_client(state_dir=folder / "state")
    (folder / "state").rename(folder / "elsewhere")
    seen = samples(client)
    assert seen["isoserve_storage_up"] == 0
    assert "nb_labels_tot" not in seen
    assert seen["isoserve_samples_total"] == 0


def test_feedback_right_after_its_prediction_finds_it(make_client, monkeypatch):
    """A prediction is recorded before its response is sent."""
    monkeypatch.setattr("service.state.feedback.sqlite._TIMEOUT", 30)  # the disk may be slow
    app = make_client().application

    def both(n):
        client = app.test_client()
        answer = client.post("/predict", json={"data": {"ndarray": [ODD]}}).json
        return send(client, [1], response=answer)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(both, range(200)))
    assert [answer for answer in answers if answer[0] != OK] == []
    assert counts(samples(app.test_client())) == (0, 0, 0, 200)


parts = st.fixed_dictionaries(
    {},
    optional={
        "request": json_values,
        "response": json_values,
        "reward": json_values,
        "truth": json_values | st.fixed_dictionaries({"data": json_values}),
    },
)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(body=json_values | parts)
def test_no_json_body_gets_a_server_error(client, body):
    answer = client.post("/send-feedback", data=json.dumps(body), content_type="application/json")
    assert answer.status_code in (200, 400, 404, 413)
    assert answer.json


@pytest.mark.parametrize("row", [1e300, 2**63, 10**15])
def test_a_row_number_outside_the_prediction_is_refused_with_a_reason(client, predict, row):
    predict([ODD], "p")
    for message in ({"truth": [1]}, {"reward": 1}):
        body = {"request": {"meta": {"puid": "p", "tags": {"row": row}}}}
        if "truth" in message:
            message = {"truth": {"data": {"ndarray": message["truth"]}}}  # noqa: PLW2901
        answer = client.post("/send-feedback", json=body | message)
        assert answer.status_code == BAD
        assert "a prediction has at most 200,000 rows" in answer.json["status"]["info"]


@pytest.mark.parametrize(
    "truth", [{"data": {"ndarray": 0}}, {"data": {"ndarry": [0]}}, {"data": 0}, {"data": {"x": {}}}]
)
def test_a_truth_that_cannot_be_parsed_is_never_acknowledged(client, predict, truth):
    predict([ODD], "p")
    body = {"request": {"meta": {"puid": "p"}}, "truth": truth}
    assert client.post("/send-feedback", json=body).status_code == BAD


def test_a_reward_for_a_row_outside_the_prediction_is_refused(client, predict):
    predict([ODD, NORMAL], "p")
    assert send(client, puid="p", row=2, reward=1)[0] == BAD
    assert send(client, puid="p", row=1, reward=1)[0] == OK


def test_without_a_record_a_reused_puid_is_scored_from_the_request_in_the_feedback(make_client):
    client = make_client(records=0)
    send(client, [0], "sensor", rows=[NORMAL])
    _, known = send(client, [1], "sensor", rows=[ODD])
    assert (known["true_positive"], known["false_negative"], known["nb_labels_tot"]) == (1, 0, 1)


def test_the_request_in_the_feedback_may_be_json_data(client):
    request = {"meta": {"puid": "elsewhere"}, "jsonData": [ODD]}
    body = {"request": request, "truth": {"data": {"ndarray": [1]}}}
    assert client.post("/send-feedback", json=body).status_code == OK
