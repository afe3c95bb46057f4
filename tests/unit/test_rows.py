import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.errors import BadInput, TooLarge, count
from service.rows import Limits, RawTable, Verdict

finite_tables = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(allow_nan=False, allow_infinity=False),
)


@given(finite_tables)
def test_any_finite_table_is_parsed_unchanged(table):
    assert np.array_equal(RawTable(table.tolist()).numbers().values, table)
    assert np.array_equal(RawTable(table).numbers().values, table)


def test_numeric_strings_and_booleans_count_as_numbers():
    assert RawTable([["1.5", True], [False, "-2e3"]]).numbers().values.tolist() == [
        [1.5, 1],
        [0, -2000],
    ]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([], "there are no rows; one row is [[1, 2]]"),
        ([[]], "row 0 is empty"),
        ([[1], []], "row 1 is empty"),
        (3, "rows are a list of lists, as in [[1, 2]]; a number came"),
        (None, "rows are a list of lists, as in [[1, 2]]; null came"),
        ("1", "rows are a list of lists, as in [[1, 2]]; a string came"),
        ({}, "rows are a list of lists, as in [[1, 2]]; an object came"),
        ([1, 2], "rows are a list of lists: one row is [[1, 2]], not [1, 2]"),
        ([[1, 2], 3], "row 1 is a number, not a list of numbers"),
        ([[1, 2], [3]], "row 1 has 1 column, row 0 has 2"),
        ([[[1]]], "row 0, column 0: a list is too deep; a table has two dimensions"),
        ([[1, {}]], "row 0, column 1: an object is not a number"),
        ([[None, 2], [3, "x"]], "row 1, column 1: 'x' is not a number"),
        ([["nan", "inf"]], "row 0, column 1: 'inf' is not a finite number"),
        ([[1, "1_000"]], "row 0, column 1: '1_000' is not a number"),
        ([[1, None], ["\u0663", 2]], "row 1, column 0: '\u0663' is not a number"),
        ([[1, 2], "12"], "row 1 is a string, not a list of numbers"),
        ([[1, 2], {"1": 0, "2": 0}], "row 1 is an object, not a list of numbers"),
        ([[None, float("inf")]], "row 0, column 1: inf is not a finite number"),
        ([[1, "abc"]], "row 0, column 1: 'abc' is not a number"),
        ([[1, ""]], "row 0, column 1: '' is not a number"),
        ([[float("inf")]], "row 0, column 0: inf is not a finite number"),
        ([[10**400]], "row 0, column 0: the number is too large for 64 bits"),
        (
            [["x" * 10_000]],
            "row 0, column 0: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' is not a number",
        ),
    ],
)
def test_a_body_that_is_not_a_table_is_refused_with_row_and_column(cells, message):
    with pytest.raises(BadInput) as refusal:
        RawTable(cells).numbers()
    assert str(refusal.value) == message


def test_errors_name_the_column_if_it_has_a_name():
    with pytest.raises(BadInput, match=r"row 0, column 1 \('sd'\): '' is not a number"):
        RawTable([[1, ""]], ("mean", "sd")).numbers()


def test_null_is_a_missing_value():
    rows = RawTable([[1, "2"], [None, 4]], ("mean", "sd")).numbers()
    assert rows.missing
    assert np.isnan(rows.values).tolist() == [[False, False], [True, False]]
    assert not RawTable([[1, 2]]).numbers().missing


@pytest.mark.parametrize(
    "cells",
    [np.array([[1, np.nan]]), [[1, float("nan")]], [["1", "NaN"]], np.array([["1", "nan"]])],
)
def test_nan_is_a_missing_value_in_every_form(cells):
    rows = RawTable(cells).numbers()
    assert rows.missing
    assert np.isnan(rows.values).tolist() == [[False, True]]
    with pytest.raises(BadInput, match=r"row 1, column 0: '?inf'? is not a finite number"):
        RawTable([*np.asarray(cells).tolist(), [float("inf"), 1]]).numbers()


def test_large_tables_are_parsed_in_pieces():
    table = np.arange(20_000.0).reshape(-1, 2)
    cells = table.tolist()
    cells[9_000][1] = str(cells[9_000][1])
    assert np.array_equal(RawTable(cells).numbers().values, table)
    flat = [cell for row in cells for cell in row]
    assert np.array_equal(RawTable(flat, (), (10_000, 2)).numbers().values, table)
    flat[18_001] = None
    assert np.isnan(RawTable(flat, (), (10_000, 2)).numbers().values[9000, 1])
    for wrong, text in (([1], "row 9000 has 1 column"), ([1, "1_0"], "row 9000, column 1: '1_0'")):
        with pytest.raises(BadInput, match=text):
            RawTable([*cells[:9_000], wrong, *cells[9_001:]]).numbers()


def test_one_long_string_among_many_cells_does_not_exhaust_memory():
    with pytest.raises(BadInput, match="row 0, column 0: 'x"):
        RawTable([["x" * 1_000_000], *[[""]] * 100_000]).numbers()


def test_limits_hold_for_rows_and_columns():
    limits = Limits(rows=2, columns=3)
    assert len(RawTable.nested([[1, 2, 3]] * 2, (), limits)) == 2
    with pytest.raises(TooLarge, match="3 rows in one request; at most 2"):
        RawTable.nested([[1]] * 3, (), limits)
    with pytest.raises(TooLarge, match="4 columns in a row; at most 3"):
        RawTable.nested([[1, 2, 3, 4]], (), limits)


def test_a_row_on_the_threshold_is_an_inlier():
    verdict = Verdict(np.array([-0.1, 0.0, 0.1]), threshold=0.0)
    assert verdict.labels.tolist() == [1, 0, 0]


def test_error_messages_use_singular_and_plural_correctly():
    assert (count(1, "row"), count(2000, "row")) == ("1 row", "2,000 rows")


def test_flat_cells_are_reshaped_into_a_table():
    rows = RawTable([1, "2.5", True, 4], ("a", "b"), (2, 2)).numbers()
    assert rows.values.tolist() == [[1, 2.5], [1, 4]]
    assert rows.names == ("a", "b")


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        ([1, 2, {}, 4], "row 1, column 0 ('a'): an object is not a number"),
        ([1, "x", 3, 4], "row 0, column 1 ('b'): 'x' is not a number"),
        ([1, 2, 3, float("inf")], "row 1, column 1 ('b'): inf is not a finite number"),
        ([1, 2, 3, [4]], "row 1, column 1 ('b'): a list is too deep"),
        ([[1], [2], [3], [4]], "row 0, column 0 ('a'): a list is too deep"),
    ],
)
def test_an_invalid_flat_cell_is_named_by_row_and_column(cells, text):
    with pytest.raises(BadInput) as refusal:
        RawTable(cells, ("a", "b"), (2, 2)).numbers()
    assert str(refusal.value).startswith(text)


def test_none_is_missing_in_flat_cells():
    rows = RawTable([1, 2, None, 4], ("a", "b"), (2, 2)).numbers()
    assert rows.missing
    assert rows.at(np.array([1])).missing


def test_limits_hold_before_flat_cells_are_reshaped():
    with pytest.raises(TooLarge, match="3 rows"):
        RawTable.flat([1, 2, 3], (3, 1), (), Limits(rows=2))
    with pytest.raises(TooLarge, match="3 columns"):
        RawTable.flat([1, 2, 3], (1, 3), (), Limits(columns=2))
