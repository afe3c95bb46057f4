import numpy as np
import pytest

from service.errors import BadInput
from service.model.columns import Columns
from service.rows import RawTable


def test_named_columns_may_come_in_any_order():
    table = RawTable([[1, 2], [3, 4]], ("sd", "mean"))
    assert Columns(("mean", "sd")).encode(table).values.tolist() == [[2, 1], [4, 3]]


@pytest.mark.parametrize("names", [[], ["", ""], ["t:0", "t:1"], ["0", "1"]])
def test_without_real_names_columns_have_the_models_order(names):
    table = RawTable([[1, 2]], tuple(names))
    assert Columns(("mean", "sd")).encode(table).values.tolist() == [[1, 2]]


@pytest.mark.parametrize("names", [("t:2", "t:0", "t:1"), ("2", "0", "1")])
@pytest.mark.parametrize("features", [("a", "b", "c"), ("c", "b", "a"), ("t:9", "x", "1.0")])
@pytest.mark.parametrize("named", [True, False])
def test_names_that_count_columns_are_positions_in_whatever_order_they_come(names, features, named):
    rows = Columns(features, named=named).encode(RawTable([[30, 10, 20]], names))
    assert (rows.values.tolist(), rows.names) == ([[10, 20, 30]], features)


@pytest.mark.parametrize(
    "names", [("t:0", "t:0"), ("t:0", "t:2"), ("1", "2"), ("t:0", "1"), ("t:0", ""), ("", "sd")]
)
def test_names_that_count_columns_wrongly_are_refused(names):
    with pytest.raises(BadInput, match="this model expects 2: mean, sd"):
        Columns(("mean", "sd")).encode(RawTable([[1, 2]], names))


@pytest.mark.parametrize(
    "features", [("t:0", "t:1"), ("t:1", "t:0"), ("0", "1"), ("1", "0"), ("f0", "f1")]
)
@pytest.mark.parametrize("named", [True, False])
def test_names_of_the_model_are_matched_by_name_whatever_they_look_like(features, named):
    columns = Columns(features, named=named)
    for names, row in ((features, [1, 2]), (features[::-1], [2, 1])):
        assert columns.encode(RawTable([row], names)).values.tolist() == [[1, 2]]
    with pytest.raises(BadInput, match="is named twice"):
        columns.encode(RawTable([[1, 2]], features[:1] * 2))
    with pytest.raises(BadInput, match=f"column '{features[1]}' is missing"):
        columns.encode(RawTable([[1, 2]], (features[0], "x")))


def test_a_model_without_names_takes_columns_as_they_come_but_refuses_what_contradicts_itself():
    columns = Columns(("f0", "f1"), named=False)
    assert columns.encode(RawTable([[1, 2]], ("sd", "mean"))).values.tolist() == [[1, 2]]
    for names, text in ((("a", "a"), "'a' is named twice"), (("a",), "1 name for 2 columns")):
        with pytest.raises(BadInput, match=text):
            columns.encode(RawTable([[1, 2]], names))


@pytest.mark.parametrize("settings", [{}, {"named": False}, {"by_name": False}])
@pytest.mark.parametrize("line", [("60", "40"), ("0", "1"), ("0", "0"), ("1e3", ""), ("NA", "")])
def test_a_first_line_of_cells_is_never_taken_for_names(settings, line):
    table = RawTable([[1, 2]], line, is_headless=True)
    with pytest.raises(BadInput, match="the first line is taken for the names of the columns"):
        Columns(("mean", "sd"), **settings).encode(table)
    assert len(Columns(line, **settings).encode(table)) == 1  # the model's own names


def test_names_are_ignored_when_matching_by_position():
    table = RawTable([[1, 2]], ("x", "x"))
    assert Columns(("mean", "sd"), by_name=False).encode(table).values.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["mean", "mean"], "column 'mean' is named twice"),
        (["mean", "sdd"], "column 'sd' is missing (is it 'sdd'?); this model expects 2: mean, sd"),
        (["mean", "zzz"], "column 'sd' is missing; this model expects 2: mean, sd"),
        (["mean"], "1 name for 2 columns"),
        (["t:0"], "1 name for 2 columns"),
    ],
)
def test_wrong_names_are_refused_by_name(names, message):
    with pytest.raises(BadInput) as refusal:
        Columns(("mean", "sd")).encode(RawTable([[1, 2]], tuple(names)))
    assert str(refusal.value) == message


def test_an_extra_column_is_refused_by_name():
    with pytest.raises(BadInput, match=r"column 'means' is unknown \(is it 'mean'\?\)"):
        Columns(("mean", "sd")).encode(RawTable([[1, 2, 3]], ("mean", "sd", "means")))


def test_the_wrong_number_of_columns_is_refused():
    with pytest.raises(BadInput, match="rows have 3 columns; this model expects 2: a, b"):
        Columns(("a", "b")).encode(RawTable([[1, 2, 3]]))


def test_thousands_of_wrong_names_are_refused_quickly():
    names = [f"c{j}" for j in range(4096)]
    features = tuple(f"d{j}" for j in range(4096))
    with pytest.raises(BadInput, match="column 'd0' is missing"):
        Columns(features).encode(RawTable([[1] * 4096], tuple(names)))


def test_missing_values_are_refused_with_row_and_column_unless_the_model_allows_them():
    table = RawTable([[1, "2"], [None, 4]], ("mean", "sd"))
    with pytest.raises(BadInput) as refusal:
        Columns(("mean", "sd")).encode(table)
    place = "row 1, column 0 ('mean'): a missing value (null, NaN or empty)"
    assert str(refusal.value) == f"{place}; this model takes none"
    rows = Columns(("sd", "mean"), takes_missing=True).encode(table)
    assert np.isnan(rows.values).tolist() == [[False, False], [False, True]]
