import numpy as np
import pytest

from training.client import DEFAULT_URL, Client


def test_the_url_is_an_argument_or_a_variable_or_a_default(monkeypatch):
    assert Client().url == DEFAULT_URL
    monkeypatch.setenv("ISOSERVE_URL", "http://service:8000/")
    assert Client().url == "http://service:8000"
    assert Client("http://127.0.0.1:1").url == "http://127.0.0.1:1"


def test_scores_are_a_table_and_refusals_are_sentences(folder, write_card, forest, serve):
    write_card()
    client = Client(f"http://127.0.0.1:{serve(folder / 'model.pickle', threshold=0.05).port}")
    X = np.array([[1.0, 1.0], [60.0, 40.0]])
    table = client.score(X, ["mean", "sd"])
    assert list(table.columns) == ["mean", "sd", "label", "score", "threshold"]
    np.testing.assert_array_equal(table["score"], forest.decision_function(X))
    np.testing.assert_array_equal(table["label"], table["score"] < 0.05)

    status, answer = client.post("/predict", {"data": {"ndarray": [[1, 2, 3]]}})
    assert (status, answer["status"]["code"]) == (400, -1)
    with pytest.raises(ValueError, match="is it 'std'"):
        client.score(X, ["mean", "std"])

    metrics = client.metrics().set_index(["metric", "labels"])["value"]
    assert metrics["isoserve_samples_total", ""] == 2
    assert metrics["isoserve_requests_total", "route=/predict, status=4xx"] == 2


def test_a_missing_service_is_reported_with_what_to_do():
    with pytest.raises(ConnectionError, match=r"no service at http://127.0.0.1:1 .*`make serve`"):
        Client("http://127.0.0.1:1").get("/live")


def test_the_api_key_is_sent(folder, serve, monkeypatch):
    service = serve(folder / "model.pickle", api_key="a-key-of-24-characters-ok")
    url = f"http://127.0.0.1:{service.port}"
    assert Client(url).post("/predict", {"data": {"ndarray": [[1, 1]]}})[0] == 401
    for ask in (
        lambda client: client.get("/metadata"),
        lambda client: client.score([[1, 1]], ["a", "b"]),
    ):
        with pytest.raises(ValueError, match=r"API key: .*; set ISOSERVE_API_KEY to the service's"):
            ask(Client(url))
    (folder / "api.key").write_text("a-key-of-24-characters-ok\n")
    with monkeypatch.context() as given:
        given.setenv("ISOSERVE_API_KEY_FILE", str(folder / "api.key"))
        assert "versions" in Client(url).get("/metadata")
    monkeypatch.setenv("ISOSERVE_API_KEY", "a-key-of-24-characters-ok")
    assert Client(url).post("/predict", {"data": {"ndarray": [[1, 1]]}})[0] == 200
