"""The view Threshold: what-if figures equal a recount, and only the admin applies one."""

import csv
import io
import math
import time

import numpy as np
import pytest

from service.serving.proposals import Interval
from tests.support.running import read_samples
from tests.unit.web.console.conftest import TOKEN, Browser


@pytest.fixture
def busy(console, samples):
    """Some recorded rows, of which six are labelled: four flagged, two not."""
    console.send(samples[:400].tolist(), "p")
    return console


def read(console, query=""):
    answer = console.get(f"/console/threshold.json{query}")
    assert answer.status_code == 200, answer.text
    return answer.json


def scores(console):
    """Return the score of every recorded row, as the list of the view Review has them."""
    rows = []
    for order in ("abnormal", "others"):
        rows += console.get(f"/console/review.json?order={order}&most=1000").json["rows"]
    return np.array([row["score"] for row in rows])


def label(console, order, truths):
    """Label the first rows of a queue; return (score, truth) of each."""
    rows = console.get(f"/console/review.json?order={order}").json["rows"]
    pairs = list(zip(rows, truths, strict=False))
    for row, truth in pairs:
        console.post("/console/review", {"puid": row["puid"], "row": row["row"], "truth": truth})
    return [(row["score"], truth) for row, truth in pairs]


def test_it_begins_with_the_threshold_that_is_served(busy):
    data = read(busy)
    assert data["is_served"]
    assert data["chosen"] == data["served"]
    samples = read_samples(busy.client.get("/metrics").text)
    assert data["chosen"]["flagged"] == samples["isoserve_outliers_total", ()]
    assert data["recorded"] == samples["isoserve_samples_total", ()]
    [served] = [value for (name, _), value in samples.items() if name == "isoserve_threshold"]
    assert data["chosen"]["threshold"] == served


@pytest.mark.parametrize("threshold", [-0.2, -0.01, 0.0, 0.05, 0.9])
def test_what_if_figures_equal_a_recount(busy, threshold):
    recorded = scores(busy)
    data = read(busy, f"?threshold={threshold}")
    flagged = int((recorded < threshold).sum())
    assert data["chosen"]["flagged"] == flagged
    assert data["chosen"]["recorded"] == flagged / len(recorded)
    for step in data["rows"]:
        assert step["flagged"] == (recorded < step["threshold"]).sum()


def test_a_threshold_between_two_equal_scores_flags_none_of_them(busy):
    recorded = np.sort(scores(busy))
    for threshold in recorded[[0, 5, 50]].tolist():
        data = read(busy, f"?threshold={threshold!r}")
        assert data["chosen"]["flagged"] == (recorded < threshold).sum()


def test_the_histogram_has_every_recorded_row_once(busy):
    recorded, data = scores(busy), read(busy)
    for part in ("all", "tail"):
        edges, shares = np.array(data[part]["edges"]), np.array(data[part]["recent"])
        inside = (recorded >= edges[0]) & (recorded < edges[-1])
        assert np.isclose(shares.sum(), inside.mean())
        counts = np.histogram(recorded[inside], edges)[0]
        assert np.allclose(shares * len(recorded), counts)
    assert data["all"]["edges"][0] < recorded.min()
    assert data["all"]["edges"][-1] > recorded.max()
    assert sum(data["all"]["training"]) == pytest.approx(1)


def test_precision_and_recall_are_those_of_the_labelled_rows(busy):
    labelled = label(busy, "abnormal", [1, 1, 0, 1]) + label(busy, "others", [0, 1, 0])
    found, truths = (np.array(part) for part in zip(*labelled, strict=True))
    for threshold in (0.0, -0.1, float(np.sort(found)[2])):
        below = found < threshold
        hits, flagged = int((below & (truths == 1)).sum()), int(below.sum())
        data = read(busy, f"?threshold={threshold!r}")
        for name, expected in (
            ("precision", Interval.of(hits, flagged)),
            ("recall", Interval.of(hits, int(truths.sum()))),
        ):
            values = [data["chosen"][f"{name}{end}"] for end in ("", "_low", "_high")]
            assert values == (list(expected) if expected else [None] * 3)
    assert (data["labelled"], data["labelled_outliers"]) == (7, truths.sum())


def test_labels_of_flagged_rows_only_say_nothing_of_recall(busy):
    [*_, (highest, _)] = label(busy, "abnormal", [1, 0, 1])
    data = read(busy, f"?threshold={math.nextafter(highest, 1)!r}")
    assert data["only_flagged_labelled"]
    assert data["chosen"]["precision"] == pytest.approx(2 / 3)
    assert data["chosen"]["recall"] is None
    assert read(busy)["chosen"]["precision"] is None, "rows nearer to the threshold have no label"
    assert "nobody knows how many outliers were missed" in busy.get("/console/threshold").text


def test_the_table_has_a_line_for_each_step(busy):
    lines = list(csv.DictReader(io.StringIO(busy.get("/console/threshold.csv").text)))
    assert [float(line["threshold"]) for line in lines] == [
        step["threshold"] for step in read(busy)["rows"]
    ]


@pytest.mark.parametrize("text", ["x", "nan", "inf", "2", "-1", "1e400"])
def test_a_threshold_that_is_none_is_refused_with_a_sentence(busy, text):
    answer = busy.get(f"/console/threshold.json?threshold={text}")
    assert answer.status_code == 400
    assert "between -1 and 1" in answer.json["error"]


def test_without_rows_without_a_card_there_is_still_a_page(make_client):
    page = Browser(make_client()).get("/console/threshold").text
    assert "Nothing is known about the scores" in page
    page = Browser(make_client(records=0)).get("/console/threshold").text
    assert "No rows of model" in page


def test_without_an_admin_token_nobody_may_apply_one(busy):
    assert "set an admin token" in busy.get("/console/threshold").text
    answer = busy.post("/console/threshold", {"threshold": "-0.1"}, page="/console/review")
    assert answer.status_code == 409


@pytest.fixture
def admin(guarded):
    guarded.log_in()
    guarded.send([[1.0, 1.0], [1e6, 1e6]])
    return guarded


def apply(console, **fields):
    version = read(console)["model_version"]
    form = {"threshold": "-0.9", "token": TOKEN, "model_version": version} | fields
    return console.post("/console/threshold", form)


def test_the_admin_token_applies_a_threshold_at_once(admin):
    answer = apply(admin)
    assert answer.status_code == 303
    assert "Done: rows that score below \u22120.9" in admin.get(answer.location).text
    data = read(admin)
    assert (data["served"]["threshold"], data["is_served"]) == (-0.9, True)
    assert admin.send([[1e6, 1e6]]) == [0]
    assert "isoserve_threshold" in admin.client.get("/metrics").text
    assert "-0.9" in admin.get("/console/model.json").text, "when it was changed"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"token": ""}, 401),
        ({"token": "another token!!!"}, 401),
        ({"threshold": "x"}, 400),
        ({"threshold": ""}, 400),
        ({"model_version": "another"}, 409),
    ],
)
def test_nothing_changes_without_the_token_a_number_and_the_model_that_was_seen(
    admin, fields, status
):
    assert apply(admin, **fields).status_code == status
    assert read(admin)["served"]["threshold"] == 0


def test_the_page_says_on_how_much_time_the_rows_a_day_rest(monkeypatch, console, samples):
    assert "extrapolated" not in console.get("/console/threshold").text
    now = time.time()
    for passed in (0, 90):
        monkeypatch.setattr("service.state.records.time.time", lambda moment=now + passed: moment)
        console.send(samples[:10].tolist())
    monkeypatch.undo()
    assert read(console)["recorded_seconds"] == pytest.approx(90)
    assert "extrapolated from 1 minute" in console.get("/console/threshold").text
