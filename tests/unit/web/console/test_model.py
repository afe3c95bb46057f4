from service.model.card import Column
from service.web.console.model import _column
from tests.unit.web.console.conftest import TOKEN


def test_the_card_is_shown(console):
    data = console.get("/console/model.json").json
    assert data["card"]["training_rows"] == 5000
    assert data["card"]["training_outlier_share"] == 0.125
    assert data["trees"] == 5
    page = console.get("/console/model").text
    assert data["sha256"] in page and "12.5 % at the threshold 0" in page


def test_a_flag_is_listed_in_the_words_of_its_table():
    column = Column("new", "flag", "bool", quantiles=[0.0] * 91 + [1.0] * 10)
    assert _column(column)["shares"] == [
        {"value": "no", "share": 91 / 101},
        {"value": "yes", "share": 10 / 101},
    ]


def test_without_a_card_the_page_says_how_to_get_one(make_client):
    page = make_client().get("/console/model", headers={"Host": "localhost"}).text
    assert "python -m training.describe MODEL TABLE" in page


def test_every_change_is_listed_the_latest_first(guarded):
    guarded.log_in()
    for threshold in (-0.125, 0.25):
        answer = guarded.client.post(
            "/v2/repository/models/isoserve/threshold",
            json={"threshold": threshold},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        assert answer.status_code == 200
    rows = guarded.get("/console/model.json").json["rows"]
    assert [(row["what"], row["from"], row["to"]) for row in rows] == [
        ("threshold", -0.125, 0.25),
        ("threshold", 0.0, -0.125),
    ]
    assert "<code>-0.125</code></td><td><code>0.25</code>" in guarded.get("/console/model").text
