"""The view Review: what it shows equals the record, a label is feedback, nothing becomes markup."""

import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.markup import COLUMNS, IMAGE, ODD, SCRIPT, make_rows, table, train_model
from tests.support.running import read_samples


@pytest.fixture
def busy(console):
    """Four flagged rows in two requests, and some usual ones."""
    for i in range(2):
        console.send([[1.0, 1.0]] * 3 + [[1e6 + i, 1e6], [-1e6, 1e6 - i]], f"p{i}")
    return console


@pytest.fixture(scope="module")
def hostile_model(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def hostile(make_client, hostile_model):
    from tests.unit.web.console.conftest import Browser

    browser = Browser(make_client(model=hostile_model))
    rows = [row[1:] for row in make_rows(50)] + [ODD]
    assert browser.client.post("/invocations", json=table(rows)).status_code == 200
    return browser


def read(console, query=""):
    answer = console.get(f"/console/review.json{query}")
    assert answer.status_code == 200, answer.text
    return answer.json


def confusion(console):
    """Return what /metrics says: true and false positives, true and false negatives."""
    samples = read_samples(console.client.get("/metrics").text)
    found = {name: value for (name, _), value in samples.items()}
    names = ("true_positive", "false_positive", "true_negative", "false_negative")
    return tuple(int(found[name]) for name in names)


def test_a_service_without_rows_says_how_to_have_some(console):
    assert "Send rows to" in console.get("/console/review").text
    assert read(console)["chosen"] is None


def test_without_an_address_it_is_the_most_abnormal_row(busy):
    data = read(busy)
    assert (data["recorded"], data["flagged"], data["waiting"], data["labelled"]) == (10, 4, 4, 0)
    scores = [row["score"] for row in data["rows"]]
    assert scores == sorted(scores)
    assert data["chosen"]["score"] == scores[0]
    assert data["position"] == 0
    assert data["previous"] is None


def test_each_row_of_the_queue_has_its_own_address(busy):
    data = read(busy)
    second = data["rows"][1]
    query = f"?puid={second['puid']}&row={second['row']}"
    shown = read(busy, query)
    assert shown["chosen"]["score"] == second["score"]
    assert (shown["position"], shown["first"]) == (1, 0)
    assert shown["next"] == {name: data["rows"][2][name] for name in ("puid", "row")}
    assert shown["previous"] == {name: data["rows"][0][name] for name in ("puid", "row")}


def test_the_cells_and_their_shares_are_those_of_an_explained_answer(busy):
    row = read(busy)["chosen"]
    cells = {one["name"]: one["value"] for one in row["columns"]}
    answer = busy.client.post(
        "/invocations?explain=2&scores=1", json={"inputs": [[cells["mean"], cells["sd"]]]}
    ).json
    [reasons] = answer["explanations"]
    assert [one["name"] for one in row["columns"]] == [one["name"] for one in reasons["features"]]
    assert [one["contribution"] for one in row["columns"]] == [
        one["contribution"] for one in reasons["features"]
    ]
    assert row["is_exact"]


def judge(console, row, truth, **more):
    fields = {"puid": row["puid"], "row": row["row"], "truth": truth} | more
    return console.post("/console/review", fields)


def test_a_label_is_feedback_and_the_next_row_is_shown(busy):
    data = read(busy)
    answer = judge(
        busy, data["rows"][0], "1", next_puid=data["next"]["puid"], next_row=data["next"]["row"]
    )
    assert answer.status_code == 303
    shown = parse_qs(urlsplit(answer.location).query)
    assert (shown["puid"], shown["row"]) == ([data["next"]["puid"]], [str(data["next"]["row"])])
    assert confusion(busy) == (1, 0, 0, 0)
    after = read(busy, f"?{urlsplit(answer.location).query}")
    assert (after["waiting"], after["labelled"]) == (3, 1)
    assert after["done"]["truth"] == 1
    assert after["chosen"]["puid"] == data["next"]["puid"]
    [other] = after["chosen"]["neighbours"]
    assert (other["puid"], other["row"]) == (data["rows"][0]["puid"], data["rows"][0]["row"])


def test_undo_takes_the_label_back_from_every_figure(busy):
    before, row = confusion(busy), read(busy)["rows"][0]
    judge(busy, row, "0")
    assert confusion(busy) == (0, 1, 0, 0)
    answer = judge(busy, row, "")
    assert confusion(busy) == before
    shown = read(busy, f"?{urlsplit(answer.location).query}")
    assert (shown["position"], shown["done"]) == (0, None)
    assert judge(busy, row, "").status_code == 404


def test_a_row_that_was_not_flagged_can_be_labelled_and_counts_as_missed(busy):
    row = read(busy, "?order=others")["rows"][0]
    judge(busy, row, "1", order="others")
    assert confusion(busy) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"truth": "2"}, 400),
        ({"row": "x"}, 400),
        ({"row": "9"}, 400),
        ({"puid": "unknown"}, 404),
        ({"puid": "a" * 15 + "~" + "0" * 32}, 400),
    ],
)
def test_a_label_that_makes_no_sense_is_refused_and_stores_nothing(busy, fields, status):
    answer = busy.post("/console/review", {"puid": "p0", "row": "0", "truth": "1"} | fields)
    assert answer.status_code == status
    assert confusion(busy) == (0, 0, 0, 0)


def test_a_label_without_the_token_of_its_page_is_refused(busy):
    row = read(busy)["rows"][0]
    fields = {"puid": row["puid"], "row": row["row"], "truth": "1", "form_token": "forged"}
    home = {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}
    assert busy.client.post("/console/review", data=fields, headers=home).status_code == 403
    assert confusion(busy) == (0, 0, 0, 0)


def test_the_page_has_a_form_for_each_label_so_it_works_without_a_script(busy):
    page = busy.get("/console/review").text
    form = re.search(r'<form class="judge".*?</form>', page, re.DOTALL)[0]
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
    buttons = re.findall(r'<button[^>]* name="truth" value="(\d)" data-key="(\w)"', form)
    assert buttons == [("1", "y"), ("0", "n")]
    answer = busy.post("/console/review", fields | {"truth": "1"})
    assert f"puid={fields['next_puid']}" in answer.location
    page = busy.get(answer.location).text
    assert 'data-key="u"' in page
    for key in "jkyn/":
        assert f'data-key="{key}"' in page or key == "k"


def test_a_row_that_is_gone_is_told_and_the_queue_is_shown(busy):
    answer = busy.get("/console/review?puid=gone&row=1")
    assert answer.status_code == 200
    assert "not on record any more" in answer.text


@pytest.mark.parametrize("query", ["order=worst", "row=-1&puid=p0", "most=x", "find=mean>x"])
def test_a_query_that_makes_no_sense_is_one_sentence(busy, query):
    answer = busy.get(f"/console/review.json?{query}")
    assert answer.status_code == 400
    assert answer.json["error"]


def test_a_filter_that_finds_nothing_and_a_wrong_one_lead_back(busy):
    page = busy.get("/console/review?find=nosuch=3").text
    assert "compared with a column: mean, sd." in page
    page = busy.get("/console/review?find=mean>x").text
    assert '<a href="/console/review">Back' in page
    assert '<a href="/console">Back' in busy.get("/console/nowhere").text


def test_cells_that_are_not_kept_leave_the_score(make_client, write_card):
    from tests.unit.web.console.conftest import Browser

    write_card()
    console = Browser(make_client(record_values=False))
    console.send([[1e6, 1e6]])
    page = console.get("/console/review").text
    assert "The cells of this row are not on record" in page
    assert read(console)["chosen"]["columns"] == []


def test_a_service_without_a_record_has_a_page(make_client, write_card):
    from tests.unit.web.console.conftest import Browser

    write_card()
    assert "Nothing is recorded yet" in Browser(make_client(records=0)).get("/console/review").text


def test_names_and_cells_of_users_never_become_markup(hostile):
    pages = [hostile.get("/console/review").text, hostile.get("/console/review?order=others").text]
    row = read(hostile)["rows"][0]
    judge(hostile, row, "1")
    pages.append(hostile.get(f"/console/review?puid={row['puid']}&row={row['row']}").text)
    pages.append(hostile.get("/console/review?find=<script>hit</script>&order=others").text)
    pages.append(hostile.get("/console/review?puid=<svg+onload=hit>&row=1").text)
    for page in pages:
        assert not re.search(r"<(script(?! src)|img|svg onload|b>|i>)", page)
        assert "49" not in re.findall(r">\s*(\d+)\s*<", page) or "7*7" in page
    shown = unescape(pages[0])
    for text in (SCRIPT, IMAGE, ODD[2]):
        assert text[:28] in shown  # a long text is cut in the record


def test_cells_are_shown_in_the_users_own_values(hostile):
    columns = {one["name"]: one for one in read(hostile)["chosen"]["columns"]}
    assert set(columns) == set(COLUMNS)
    assert columns["amount"]["value"] == ODD[0]
    assert columns["is_new"]["value"] == "yes"
    assert 0.3 < columns["is_new"]["share"] < 0.7
    assert columns["shop"]["share"] == 0


def test_a_spreadsheet_takes_no_cell_for_a_formula(hostile):
    lines = hostile.get("/console/review.csv?order=others&most=100").text.splitlines()
    assert len(lines) == read(hostile, "?order=others")["waiting"] + 1
    assert not [line for line in lines if re.search(r'(^|,)"?[=@]', line)]
