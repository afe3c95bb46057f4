import csv
import io

import pytest

from service.web.console.now import _surprise
from tests.support.running import read_samples


@pytest.fixture
def history(console):
    """The history of the console's service, which has no worker that records."""
    views = console.client.application.view_functions
    return views["console.now"].args[0].history


def test_what_is_shown_equals_the_metrics(console, history, samples):
    import time

    history.record(time.time() - 6)
    console.send(samples[:500].tolist())
    console.send(samples[500:507].tolist())
    history.record(time.time())
    data = console.get("/console/now.json").json
    metrics = read_samples(console.get("/metrics").text)

    def metric(name, **labels):
        return metrics[name, tuple(sorted(labels.items()))]

    assert (
        data["total"]["rows"] == data["recent"]["rows"] == metric("isoserve_samples_total") == 507
    )
    assert (
        data["total"]["outliers"] == data["recent"]["outliers"] == metric("isoserve_outliers_total")
    )
    assert data["recent"]["requests"] == metric(
        "isoserve_requests_total", route="/invocations", status="2xx"
    )
    assert data["recent"]["mean_score"] == pytest.approx(metric("isoserve_score_sum") / 507)
    assert data["model"]["threshold"] == metric("isoserve_threshold")
    assert data["training_share"] == metric("isoserve_training_outlier_share")
    assert data["workers"] == metric("isoserve_workers")
    page = console.get("/console/now").text
    assert f"<dd>{data['total']['outliers']:,}<small>" in page and "507 in all" in page


def test_the_csv_and_the_lines_are_the_readings(console, history):
    for now in (1000.0, 1005.0, 1010.0):
        console.send([[1.0, 1.0]])
        history.record(now)
    assert console.get("/console/now.json").json["rows"] == [], "they are long past"
    import time

    start = time.time() - 20
    for number in range(4):
        history.record(start + 5 * number)
        console.send([[1.0, 1.0], [50.0, 50.0]])
    rows = list(csv.DictReader(io.StringIO(console.get("/console/now.csv").text)))
    assert [row["rows"] for row in rows[-3:]] == ["2", "2", "2"]
    page = console.get("/console/now").text
    assert page.count("data-points=") == 4
    assert 'data-lines="rows" data-unit="" data-points="[[' in page


def test_without_a_row_the_page_says_what_to_do(console):
    assert "No row has been scored yet." in console.get("/console").text


def test_what_needs_attention_is_a_sentence(make_client):
    data = make_client().get("/console/now.json", headers={"Host": "localhost"}).json
    assert [one["level"] for one in data["attention"]] == ["warn"]
    assert "The model has no card" in data["attention"][0]["text"]


@pytest.mark.parametrize(
    ("rows", "share", "expected", "said"),
    [
        (10_000, 0.05, 0.01, "5.0 times as many rows are flagged as in training."),
        (10_000, 0.011, 0.01, None),
        (20, 0.05, 0.01, None),  # one row of 20 is chance
        (10_000, 0.001, 0.01, "Fewer rows are flagged than in training: 0.10% and not 1.00%."),
        (10_000, 0.5, 0.0, None),
        (10_000, 0.5, None, None),
        (0, None, 0.01, None),
    ],
)
def test_a_surprising_share_of_outliers_is_told(rows, share, expected, said):
    data = {
        "training_share": expected,
        "promised_share": None,
        "recent": {"rows": rows, "share": share},
    }
    assert list(_surprise(data)) == ([said] if said else [])
