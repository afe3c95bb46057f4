"""Another model, or another threshold, in one process; under load: `tests.stress.reloads`."""

import json
import logging
import os
import pickle
import resource
import signal
import time
from dataclasses import asdict, replace
from hashlib import sha256

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from service.errors import BadModel
from service.serving.reload import fingerprint
from tests.stress.reloads import TOKEN, Load, Pair, load
from tests.stress.reloads import served as serve_pair
from tests.support import hostile
from tests.support.cards import calibration

URL = "/v2/repository/models/isoserve"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def pair(folder, monkeypatch):
    """Two models for the path of the fixture's model; a short wait for a matching card."""
    monkeypatch.setattr("service.serving.reload._SETTLE", 0.1)
    pair = Pair(folder)
    pair.put(pair.a)
    return pair


@pytest.fixture
def admin(make_client, pair):
    """Return a function that calls an admin route and returns (status, answer)."""
    client = make_client(admin_token=TOKEN)

    def call(route, value=None):
        answer = client.post(f"{URL}/{route}", json=value, headers=ADMIN)
        return answer.status_code, answer.json

    call.client = client
    return call


def served(client, pair):
    """Return which model answers; check that the scores are that model's."""
    answer = client.post("/predict?scores=1", json={"data": {"ndarray": pair.rows}})
    model = pair.known[answer.headers["X-Model-Version"]]
    assert answer.json["meta"]["tags"]["anomaly-scores"] == model.scores
    return model


def metric(client, name):
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_new_file_is_served_after_load(admin, pair):
    pair.put(pair.b)
    assert served(admin.client, pair) is pair.a
    status, answer = admin("load")
    assert (status, answer["changed"], answer["model_version"]) == (200, True, pair.b.version)
    assert served(admin.client, pair) is pair.b
    assert admin.client.get("/metadata").json["versions"] == [pair.b.version]
    assert metric(admin.client, "isoserve_model_swaps_total") == 1
    pair.put(pair.a)  # and back
    assert admin("load")[1]["former"]["model_version"] == pair.b.version
    assert served(admin.client, pair) is pair.a


def test_the_same_file_changes_nothing(admin, pair, folder):
    status, answer = admin("load", {})
    assert (status, answer["changed"]) == (200, False)
    assert metric(admin.client, "isoserve_model_swaps_total") == 0
    assert not list(folder.glob("*/audit.jsonl"))


def test_another_card_of_the_same_file_is_loaded(admin, pair):
    pair.path.with_suffix(".json").write_bytes(
        pair.a.card.replace(b'"training_outlier_share": 0.125', b'"training_outlier_share": 0.5')
    )
    admin("threshold", {"threshold": -0.25})
    assert admin("load")[1]["changed"]
    assert metric(admin.client, "isoserve_threshold ") == -0.25
    admin("threshold", {"threshold": 0.0})
    assert metric(admin.client, "isoserve_training_outlier_share") == 0.5


@pytest.mark.parametrize(
    ("spoil", "refused"),
    [
        (lambda pair: pair.put_alone(b""), (400, "pickle", "it is empty")),
        (lambda pair: pair.put_alone(hostile.text("x")), (400, "pickle", "is not a pickle")),
        (lambda pair: pair.put_alone(pair.b.content), (409, "features", "restart it")),
        (lambda pair: pair.path.unlink(), (400, "file", "cannot be read")),
        (lambda pair: pair.path.write_bytes(pair.b.content), (400, "card", "another file")),
    ],
    ids=["empty", "no pickle", "other columns", "gone", "the former card"],
)
def test_a_refused_file_leaves_the_old_model_and_says_why(admin, pair, caplog, spoil, refused):
    status, reason, words = refused
    spoil(pair)
    code, answer = admin("load")
    assert (code, list(answer)) == (status, ["error"])
    assert words in answer["error"]
    assert f"version {pair.a.version} is still served" in answer["error"]
    assert words in caplog.text
    assert served(admin.client, pair) is pair.a
    name = f'isoserve_model_load_failures_total{{reason="{reason}"}}'
    assert metric(admin.client, name) == 1


def test_golden_rows_reveal_a_model_with_other_scores(admin, pair):
    """Give A's card the digest of a changed A, in which one threshold of one tree differs."""
    forest = pickle.loads(pair.a.content)
    forest.estimators_[0].tree_.threshold[0] += 1.0
    content = pickle.dumps(forest, protocol=5)
    old, new = (sha256(data).hexdigest().encode() for data in (pair.a.content, content))
    pair.path.write_bytes(content)
    pair.path.with_suffix(".json").write_bytes(pair.a.card.replace(old, new))
    status, answer = admin("load")
    assert status == 400
    assert "does not score as in training: golden row" in answer["error"]


def test_a_threshold_is_set_and_reset(admin, pair, folder):
    status, answer = admin("threshold", {"threshold": 0.05})
    assert (status, answer["threshold"], answer["former"]["threshold"]) == (200, 0.05, 0.0)
    assert metric(admin.client, "isoserve_threshold ") == 0.05
    answer = admin.client.post("/predict", json={"data": {"ndarray": pair.rows}})
    assert answer.json["data"]["ndarray"] == [int(score < 0.05) for score in pair.a.scores]
    assert admin("threshold", {"threshold": None})[1]["threshold"] == 0.0
    assert metric(admin.client, "isoserve_threshold_changes_total") == 2
    lines = next(folder.glob("*/audit.jsonl")).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["what"], row["old"], row["new"]) for row in rows] == [
        ("threshold", 0.0, 0.05),
        ("threshold", 0.05, 0.0),
    ]
    assert rows[0]["who"].startswith("127.0.0.1, request ")


def test_a_threshold_set_at_runtime_survives_a_restart_but_not_a_model_change(
    make_client, pair, folder, caplog
):
    state = folder / "kept"
    client = make_client(admin_token=TOKEN, state_dir=state)
    client.post(f"{URL}/threshold", json={"threshold": -0.1}, headers=ADMIN)
    client.application.extensions.clear()  # releases the folder
    del client
    again = make_client(state_dir=state)
    assert metric(again, "isoserve_threshold ") == -0.1
    again.application.extensions.clear()
    del again
    caplog.set_level(logging.WARNING)
    other = make_client(state_dir=state, threshold=0.2, admin_token=TOKEN)
    assert metric(other, "isoserve_threshold ") == 0.2
    assert not (state / "threshold.json").exists()
    other.post(f"{URL}/threshold", json={"threshold": -0.3}, headers=ADMIN)
    pair.put(pair.b)
    answer = other.post(f"{URL}/load", headers=ADMIN).json
    assert (answer["threshold"], answer["former"]["threshold"]) == (0.2, -0.3)
    assert "the new one begins with 0.2" in caplog.text
    assert not (state / "threshold.json").exists()


def calibrated(model, scores):
    """Return a model whose card has these out-of-bag scores."""
    fields = json.loads(model.card) | {"calibration": asdict(calibration(scores))}
    return replace(model, card=json.dumps(fields).encode())


SCORES = np.linspace(-0.2, 0.2, 1_999)


def test_a_share_is_set_carries_over_to_the_next_model_and_survives_a_restart(
    make_client, pair, folder
):
    state = folder / "kept"
    pair.put(calibrated(pair.a, SCORES))
    client = make_client(admin_token=TOKEN, state_dir=state)
    answer = client.post(f"{URL}/threshold", json={"share": 0.01}, headers=ADMIN).json
    assert (answer["share"], answer["threshold"]) == (0.01, SCORES[19])
    assert answer["former"] == {"model_version": pair.a.version, "threshold": 0.0}
    pair.put(calibrated(pair.b, SCORES + 0.5))
    answer = client.post(f"{URL}/load", headers=ADMIN).json
    assert (answer["share"], answer["threshold"]) == (0.01, SCORES[19] + 0.5)
    custom = client.get("/metadata").json["custom"]
    assert custom == {"outlier_share": "0.01", "threshold": repr(float(SCORES[19] + 0.5))}
    client.application.extensions.clear()  # releases the folder
    del client
    pair.put(calibrated(pair.a, SCORES))  # while no service runs: any model will do
    again = make_client(state_dir=state)
    assert metric(again, "isoserve_outlier_share") == 0.01
    assert metric(again, "isoserve_threshold ") == SCORES[19]
    lines = (state / "audit.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["new"] for row in rows if row["what"] == "threshold"] == [
        {"share": 0.01, "threshold": SCORES[19]},
        {"share": 0.01, "threshold": SCORES[19] + 0.5},
    ]


def test_a_share_in_the_settings_holds_for_each_model_until_a_threshold_is_chosen(
    make_client, pair
):
    pair.put(calibrated(pair.a, SCORES))
    client = make_client(admin_token=TOKEN, outlier_share=0.05)
    assert metric(client, "isoserve_threshold ") == SCORES[99]
    client.post(f"{URL}/threshold", json={"threshold": -0.5}, headers=ADMIN)
    assert "isoserve_outlier_share 0" not in client.get("/metrics").text
    assert metric(client, "isoserve_threshold ") == -0.5
    pair.put(calibrated(pair.b, SCORES))  # a threshold belongs to the model it was chosen for
    assert client.post(f"{URL}/load", headers=ADMIN).json["share"] == 0.05
    client.post(f"{URL}/threshold", json={"share": 0.1}, headers=ADMIN)
    assert client.post(f"{URL}/threshold", json={"share": None}, headers=ADMIN).json == {
        "changed": True,
        "former": {"model_version": pair.b.version, "share": 0.1, "threshold": SCORES[199]},
        "model_name": "isoserve",
        "model_version": pair.b.version,
        "share": 0.05,
        "threshold": SCORES[99],
    }


def test_a_share_that_a_model_cannot_promise_is_refused(make_client, pair):
    pair.put(calibrated(pair.a, SCORES))
    client = make_client(admin_token=TOKEN, outlier_share=0.05)
    answer = client.post(f"{URL}/threshold", json={"share": 0.0001}, headers=ADMIN)
    assert answer.status_code == 400
    assert "1,999 training rows cannot promise a share of 0.0001" in answer.json["error"]
    pair.put(pair.b)  # its card has no out-of-bag scores
    answer = client.post(f"{URL}/load", headers=ADMIN)
    assert answer.status_code == 400
    assert "no share of flagged rows can be promised" in answer.json["error"]
    assert metric(client, "isoserve_outlier_share") == 0.05
    with pytest.raises(BadModel, match="has no p-values"):
        make_client(outlier_share=0.05)


def test_a_threshold_chosen_for_another_model_is_refused(admin, pair):
    status, answer = admin("threshold", {"threshold": 0.1, "model_version": "0" * 12})
    assert status == 409
    assert "was chosen for the model 000000000000" in answer["error"]
    version = pair.a.version
    assert admin("threshold", {"threshold": 0.1, "model_version": version})[0] == 200


def test_nothing_changes_when_the_audit_log_cannot_be_written(admin, pair, folder):
    state = next(path for path in folder.iterdir() if path.is_dir())
    (state / "audit.jsonl").mkdir()
    pair.put(pair.b)
    for route, value in (("load", None), ("threshold", {"threshold": 0.1})):
        status, answer = admin(route, value)
        assert (status, "so nothing was changed" in answer["error"]) == (503, True)
    assert served(admin.client, pair) is pair.a
    assert metric(admin.client, "isoserve_threshold ") == 0.0


def test_nothing_changes_when_the_disk_is_full(admin, pair, folder):
    state = next(path for path in folder.iterdir() if path.is_dir())
    pair.put(pair.b)
    for route, value in (("load", None), ("threshold", {"threshold": 0.1})):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            status, answer = admin(route, value)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (status, "so nothing was changed" in answer["error"]) == (503, True)
    assert served(admin.client, pair) is pair.a
    assert metric(admin.client, "isoserve_threshold ") == 0.0
    assert metric(admin.client, "isoserve_model_swaps_total") == 0
    assert not list(state.glob("audit*")) + list(state.glob("generation*"))
    assert admin("load")[1]["changed"]


def test_a_service_with_a_pinned_digest_loads_no_other_file(make_client, pair):
    pin = next(iter(json.loads(pair.a.card)["files"].values()))
    client = make_client(admin_token=TOKEN, model_sha256=pin)
    pair.put(pair.b)
    answer = client.post(f"{URL}/load", headers=ADMIN)
    assert answer.status_code == 400
    assert "ISOSERVE_MODEL_SHA256" in answer.json["error"]


def test_current_and_new_workers_switch_to_the_new_model(pair, tmp_path):
    with serve_pair(tmp_path, pair, watch=1, log_level="INFO") as service:
        pair.put(pair.b)
        wait_for_line(service, f"model {pair.b.version} is served in place of")  # by all workers
        for worker in service.workers():
            with Load(service, pair, clients=2) as crowd:
                os.kill(worker, signal.SIGKILL)
                wait_until(lambda: all(len(asker.seen) > 5 for asker in crowd.callers), service)
            assert {version for _, _, version in crowd.all("seen")} == {pair.b.version}
            assert [asker.faults for asker in crowd.callers] == [[], []]
        pair.put_alone(b"nothing")
        wait_for_line(service, "it is not a pickle")
        pair.put(pair.a)
        wait_for_line(service, f"model {pair.a.version} is served in place of")
        assert service.log.read_text().count("it is not a pickle") == 1
        assert load(service)[1]["changed"] is False


def wait_for_line(service, words):
    """Wait until the log has these words.

    The watch may see a model before its card or without the former one, and refuse it once more.
    """
    wait_until(lambda: words in service.log.read_text(), service)


def wait_until(condition, service, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, service.log.read_text()
        time.sleep(0.02)


def test_a_model_of_other_columns_needs_a_restart(admin, pair, folder):
    forest = IsolationForest(n_estimators=2, random_state=16).fit(np.eye(3))
    pair.put_alone(pickle.dumps(forest, 5))
    status, answer = admin("load")
    assert status == 409
    assert (
        "has the columns f0, f1, f2, and this service was started with mean, sd"
        in (answer["error"])
    )


def test_the_fingerprint_of_a_model_changes_with_its_file_and_with_its_card(tmp_path):
    path, card = tmp_path / "model.pickle", tmp_path / "model.json"
    seen = [fingerprint(path)]
    for file, content in ((card, "{}"), (path, "a"), (path, "ab"), (card, "{ }")):
        file.write_text(content)
        seen.append(fingerprint(path))
    assert len(set(seen)) == 5
