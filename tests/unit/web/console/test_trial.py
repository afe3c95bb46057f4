"""The view Try: the score of a typed row is that of a request, and nothing of it is kept."""

import re
from html import unescape
from urllib.parse import urlencode

import numpy as np
import pytest

from tests.support.markup import COLUMNS, IMAGE, ODD, SCRIPT, table, train_model
from tests.unit.web.console.conftest import Browser


@pytest.fixture(scope="module")
def hostile_model(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def hostile(make_client, hostile_model):
    return Browser(make_client(model=hostile_model))


def ask(console, cells, kind="json"):
    query = urlencode({f"c{j}": cell for j, cell in enumerate(cells)})
    return console.get(f"/console/try.{kind}?{query}")


def test_it_begins_with_a_usual_row(hostile):
    data = hostile.get("/console/try.json").json
    assert not data["result"]["flagged"]
    assert [field["name"] for field in data["fields"]] == COLUMNS
    kinds = {field["name"]: field["kind"] for field in data["fields"]}
    assert (kinds["amount"], kinds["shop"], kinds[IMAGE], kinds["is_new"]) == (
        "number", "category", "text", "flag",
    )  # fmt: skip


def test_the_score_and_reasons_are_those_of_a_request(hostile):
    usual = [25.5, 3, "cafe", "note 3 <i>", "no"]
    for row in (usual, ODD):
        data = ask(hostile, row).json
        answer = hostile.client.post("/invocations?scores=1&explain=9", json=table([row])).json
        assert data["result"]["score"] == answer["scores"][0]
        assert data["result"]["flagged"] == bool(answer["predictions"][0])
    [explained] = answer["explanations"]
    assert [one["contribution"] for one in data["rows"]] == [
        one["contribution"] for one in explained["features"]
    ]


def test_tried_rows_are_neither_counted_nor_recorded(hostile):
    before = hostile.client.get("/metrics").text
    for kind in ("json", "html", "csv"):
        ask(hostile, ODD, kind)
    after = hostile.client.get("/metrics").text
    for name in ("isoserve_samples_total", "isoserve_outliers_total", "isoserve_odd_cells_total"):
        pattern = rf"^{name}.*$"
        assert re.findall(pattern, before, re.M) == re.findall(pattern, after, re.M)
    assert hostile.get("/console/review.json").json["recorded"] == 0


@pytest.mark.parametrize(
    ("j", "cell", "fault"),
    [
        (0, "many", "column 0 ('amount'): 'many' is not a number"),
        (0, "", "a missing value"),
        (4, "perhaps", "neither a number nor true, false, yes or no"),
    ],
)
def test_a_cell_that_cannot_be_read_is_told_beside_the_form(hostile, j, cell, fault):
    cells = [25.5, 3, "cafe", "note 3 <i>", "no"]
    cells[j] = cell
    data = ask(hostile, cells).json
    assert fault in data["fault"]
    assert data["result"] is None
    page = unescape(ask(hostile, cells, "html").text)
    assert fault in page
    assert 'value="cafe"' in page or "<option selected>cafe" in page


def test_names_and_cells_never_become_markup(hostile):
    page = ask(hostile, ODD, "html").text + hostile.get("/console/try").text
    assert not re.search(r"<(script(?! src)|img|svg onload|b>|i>)", page)
    shown = unescape(page)
    for text in (SCRIPT, IMAGE, ODD[2], ODD[3]):
        assert text in shown


def test_a_row_on_record_can_be_changed(hostile):
    hostile.client.post("/invocations", json=table([ODD]))
    row = hostile.get("/console/review.json").json["chosen"]
    data = hostile.get(f"/console/try.json?puid={row['puid']}&row=0").json
    assert [field["cell"] for field in data["fields"]][:2] == ["9000", "80"]
    assert data["fields"][4]["cell"] == "yes"
    gone = hostile.get("/console/try.json?puid=gone&row=0").json
    assert not gone["result"]["flagged"], "a row that is gone is a usual row instead"


def test_two_columns_of_numbers_have_a_boundary_with_the_row_in_it(console):
    data = ask(console, [1.0, 1.5]).json
    found = data["boundary"]
    assert found["row"] == [1.0, 1.5]
    (left, right), (low, high) = found["across"], found["upwards"]
    assert left <= 1.0 <= right
    assert low <= 1.5 <= high
    scores = np.array(found["scores"])
    x, y = np.linspace(left, right, scores.shape[1]), np.linspace(low, high, scores.shape[0])
    for i, j in ((0, 0), (10, 20), (-1, -1), (3, -5)):
        sent = {"inputs": [[x[j], y[i]]]}
        assert console.client.post("/invocations?scores=1", json=sent).json["scores"] == [
            scores[i, j]
        ]
    assert "boundary" in ask(console, [1.0, 1.5], "html").text


def test_other_tables_have_no_boundary(hostile):
    assert hostile.get("/console/try.json").json["boundary"] is None


@pytest.mark.parametrize("cells", [["1e308", "-1e308"], ["1", "1e-320"], ["-0", "1E5"]])
def test_extreme_numbers_have_a_score_and_a_page(console, cells):
    assert ask(console, cells, "html").status_code == 200
    assert ask(console, cells).json["result"]


def test_a_model_without_a_card_can_be_tried(make_client):
    console = Browser(make_client())
    assert console.get("/console/try").status_code == 200
    assert ask(console, [1.0, 2.0]).json["result"]["p_value"] is None
