"""Charts are text: what they draw, what they say, and that no text becomes markup."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from service.web.console import charts

HOSTILE = '"><script>alert(1)</script><svg onload=x>&'
SVG = "{http://www.w3.org/2000/svg}"


def parse(markup):
    """Return the root of a chart, with its names as in a page."""
    return ET.fromstring(str(markup))


def found(markup, tag, kind):
    return [one for one in parse(markup).iter(tag) if one.get("class") == kind]


GRID = charts.Grid(np.array([[-0.2, 0.1], [0.1, 0.3]]), (0.0, 10.0), (-1.0, 1.0))

ALL = {
    "histogram": lambda text: charts.histogram(
        [0, 1, 2], [0.5, 0.5], [0.25, 0.75], line=1.0, title=text, description=text
    ),
    "pairs": lambda text: charts.pairs([text], [1.0], [0.5], title=text, description=text),
    "signed_bar": lambda text: charts.signed_bar(-1.0, 2.0, text),
    "range_strip": lambda text: charts.range_strip([float(i) for i in range(101)], 50.0, text),
    "sparkline": lambda text: charts.sparkline([1.0, 2.0], text),
    "boundary": lambda text: charts.boundary(GRID, 0.0, (5.0, 0.0), names=(text, text), title=text),
}


@pytest.mark.parametrize("name", ALL)
def test_hostile_texts_stay_texts(name):
    drawn = str(ALL[name](HOSTILE))
    assert "<script" not in drawn
    assert "onload" not in "".join(f"{key}" for one in parse(drawn).iter() for key in one.attrib)
    assert parse(drawn).get("aria-label").startswith(HOSTILE)
    tags = {one.tag for one in parse(drawn).iter()}
    assert tags <= {"svg", "title", "desc", "rect", "line", "path", "circle", "text"}


@pytest.mark.parametrize("name", ALL)
def test_charts_have_a_name_and_obey_the_content_security_policy(name):
    drawn = parse(ALL[name]("speed"))
    assert drawn.get("role") == "img"
    assert drawn.find("title").text.startswith("speed")
    attributes = {key for one in drawn.iter() for key in one.attrib}
    assert not attributes & {"style", "id", "href", "fill", "stroke"}


def test_a_histogram_draws_shares_to_scale_and_shades_what_is_flagged():
    drawn = ALL["histogram"]("scores")
    first, second = found(drawn, "rect", "recent")
    assert float(first.get("height")) == float(second.get("height")) > 50
    assert first.find("title").text == "0 to 1: 50 % of recent rows, 25 % in training"
    [flagged] = found(drawn, "rect", "flagged")
    assert float(flagged.get("width")) == (charts.WIDTH - 8) / 2  # the line is in the middle
    [line] = found(drawn, "line", "threshold")
    assert line.get("x1") == line.get("x2") == str(charts.WIDTH / 2)


def test_a_histogram_of_nothing_is_drawn():
    assert found(charts.histogram([0, 0], [0.0]), "rect", "recent")


def test_a_negative_contribution_is_a_bar_to_the_left():
    [bar] = found(charts.signed_bar(-1.0, 2.0), "rect", "abnormal")
    assert (float(bar.get("x")), float(bar.get("width"))) == (41.0, 39.0)
    [bar] = found(charts.signed_bar(2.0, 2.0), "rect", "normal")
    assert (float(bar.get("x")), float(bar.get("width"))) == (80.0, 78.0)


QUANTILES = [float(i) for i in range(101)]


@pytest.mark.parametrize(
    ("value", "tag", "kind"),
    [(50.0, "circle", "cell"), (3.0, "circle", "cell odd"), (1e9, "path", "cell odd")],
)
def test_a_cell_is_marked_in_its_usual_range_beside_it_or_far_away(value, tag, kind):
    drawn = charts.range_strip(QUANTILES, value)
    assert len(found(drawn, tag, kind)) == 1
    assert f"usual: 5 to 95; this cell: {charts.number(value)}" in parse(drawn).get("aria-label")


def test_a_missing_cell_has_no_mark():
    assert "cell" not in str(charts.range_strip(QUANTILES, None))


def test_a_constant_column_has_a_range():
    assert found(charts.range_strip([3.0] * 101, 4.0), "path", "cell odd")


def test_a_sparkline_has_a_gap_where_nothing_is_known():
    [line] = found(charts.sparkline([1.0, 2.0, float("nan"), 2.0, 0.0]), "path", "series")
    assert line.get("d").count("M") == 2
    assert "no values yet" in charts.sparkline([])


def test_a_boundary_has_round_numbers_on_both_axes():
    drawn = charts.boundary(GRID, 0.0, names=("mean", "sd"))
    ticks = [text.text for text in found(drawn, "text", "tick")]
    across, upwards = (charts._round_numbers(*ends) for ends in (GRID.across, GRID.upwards))
    assert ticks == [charts.number(value) for value in [*across, *upwards]]


def test_a_boundary_draws_each_cell_once():
    drawn = ALL["boundary"]("x")
    assert len(found(drawn, "path", "flagged")[0].get("d").split("M")) == 2
    paths = "".join(one.get("d") for one in parse(drawn).iter("path"))
    assert paths.count("M") == 4  # of which no two of one shade are side by side
    [dot] = found(drawn, "circle", "cell")
    assert dot.find("title").text == "x = 5, x = 0"


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (5, 5, [5]), (-3e6, 4e6, [-2e6, 0, 2e6, 4e6])],
)
def test_axes_have_round_numbers(low, high, numbers):
    assert charts._round_numbers(low, high) == numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "missing"),
        (-0.05, "-0.05"),
        (0.0, "0"),
        (1e12, "1.000e+12"),
        (99999, "100,000"),
    ],
)
def test_numbers_are_short(value, text):
    assert charts.number(value) == text
