import numpy as np
import pytest

from service.model.card import Column
from service.web.console.drift import _flag_shares, _moments, _value_shares, compare
from tests.support.cards import number
from tests.unit.web.console.conftest import Browser


def test_the_shares_are_a_recount_of_the_records(console, samples):
    recent = samples[:1500] * 3
    console.send(recent.tolist())
    data = console.get("/console/drift.json").json
    assert data["recent_rows"] == 1500
    shown = {one["column"]: one["histogram"] for one in data["columns"]}
    for i, name in enumerate(("mean", "sd")):
        edges, values = np.array(shown[name]["edges"]), recent[:, i]
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
        assert shown[name]["recent"] == (counts / 1500).tolist()
        assert shown[name]["recent_quantiles"][1] == np.median(values)
        training = np.histogram(np.clip(samples[:, i], edges[0], edges[-1]), edges)[0] / 5000
        np.testing.assert_allclose(shown[name]["training"], training, atol=0.01)


def test_columns_are_found_by_a_part_of_their_name(console):
    assert [row["column"] for row in console.get("/console/drift.json?find=ME").json["rows"]] == [
        "mean"
    ]
    page = console.get("/console/drift?find=<b>").text
    assert "No column has &lt;b&gt; in its name." in page


def test_few_rows_and_no_card_and_no_values_are_told(console, make_client):
    console.send([[1.0, 1.0]])
    assert "1 row of this model is recorded." in console.get("/console/drift").text
    home = {"Host": "localhost"}
    page = make_client(record_values=False).get("/console/drift", headers=home).text
    assert "The values of rows are not recorded" in page


def test_a_value_that_fills_several_quantiles_is_in_its_own_bin():
    quantiles = np.concatenate([np.zeros(61), np.full(40, 1.5)])
    values = np.concatenate([np.zeros(50), np.full(50, 1.5)])
    shown = compare(quantiles, values, bins=4)
    assert shown["recent"] == [0.5, 0, 0, 0.5]
    np.testing.assert_allclose(shown["training"], [0.605, 0, 0, 0.395], atol=0.006)


def test_no_bin_has_more_whole_numbers_than_another():
    values = np.repeat(np.arange(50.0), 20)  # 50 numbers, each equally often
    shown = compare(np.quantile(values, np.linspace(0, 1, 101)).round(), values, bins=32)
    assert set(shown["recent"]) == {0.04}
    assert set(np.diff(shown["edges"])) == {2.0}
    np.testing.assert_allclose(shown["training"], 0.04, atol=0.011)


@pytest.mark.parametrize("of_type", ["bool", "int"])
def test_a_flag_is_shown_in_the_words_of_its_table(of_type):
    quantiles = np.array([0.0] * 91 + [1.0] * 10)
    column = Column("new", "flag", of_type, quantiles=quantiles.tolist())
    [no, yes] = _flag_shares(column, quantiles, np.array([0.0, 0.0, 0.0, 1.0]))
    assert (no["value"], yes["value"]) == (("no", "yes") if of_type == "bool" else ("0", "1"))
    assert (yes["recent"], yes["training"]) == (0.25, 10 / 101)


def test_the_hours_weekdays_and_days_of_dates_are_a_recount():
    counts = {"hour": [10] * 24, "weekday": [0, 0, 240, 0, 0, 0, 0], "day": [0] * 30 + [240]}
    column = Column("when", "date", "text", format="ISO 8601", moments=counts)
    monday, sunday = b"2026-11-30 07:30:00", b"2026-11-01 23:00:00"
    shown = {one["part"]: one for one in _moments(column, np.array([monday] * 3 + [sunday, b""]))}
    assert {part: len(one["edges"]) for part, one in shown.items()} == {
        "hour": 25, "weekday": 8, "day": 32,
    }  # fmt: skip
    assert shown["day"]["edges"][0] == 0.5
    hours, weekdays, days = (shown[part]["recent"] for part in ("hour", "weekday", "day"))
    assert (hours[7], hours[23], weekdays[0], weekdays[6]) == (0.75, 0.25, 0.75, 0.25)
    assert (days[29], days[0], sum(days)) == (0.75, 0.25, 1)
    assert shown["hour"]["training"] == pytest.approx([1 / 24] * 24)
    assert shown["weekday"]["training"][2] == 1
    assert _moments(column, np.array([b"", b"never"])) == []


def test_a_column_with_gaps_is_shown_before_any_traffic(make_client, write_card):
    write_card(columns=[number("mean", missing=500), number("sd")])
    console = Browser(make_client())
    page = console.get("/console/drift")
    assert page.status_code == 200
    assert "in training 10 %" in page.text
    console.send([[None, 1.0]])
    assert "100 %, in training 10 %; 1 cell so far" in console.get("/console/drift").text


def test_a_constant_column_has_bins():
    shown = compare(np.full(101, 3.0), np.full(10, 3.0))
    assert sum(shown["recent"]) == sum(shown["training"]) == pytest.approx(1)


def test_values_are_shared_out_with_gaps_and_others():
    column = Column("town", "category", "text", missing=10, values={"Bonn": 70, "Ulm": 20})
    cells = np.array([b"Bonn", b"Bonn", b"", b"Rome"])
    shares = {
        one["value"]: (one["recent"], one["training"]) for one in _value_shares(column, cells)
    }
    assert shares == {
        "Bonn": (0.5, 0.7),
        "Ulm": (0.0, 0.2),
        "(missing)": (0.25, 0.1),
        "Rome": (0.25, 0.0),
    }


def test_the_rarest_values_are_added_up():
    values = {f"v{i}": 10 for i in range(20)}
    column = Column("code", "category", "text", values=values)
    shares = _value_shares(column, np.array([b"v1"] * 4))
    assert len(shares) == 9
    assert shares[-1] == {"value": "(all others)", "recent": 0.0, "training": pytest.approx(0.6)}
