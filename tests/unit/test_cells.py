import math

import numpy as np
import pytest

from service import cells


@pytest.mark.parametrize(
    ("cell", "number"),
    [(1, 1.0), (2.5, 2.5), (True, 1.0), ("1e3", 1000.0), (" -2. ", -2.0), ("inf", math.inf)],
)
def test_numbers_numeric_strings_and_booleans_are_numbers(cell, number):
    assert cells.parse_number(cell) == number


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "NAN"])
def test_every_spelling_of_nan_is_a_missing_value(text):
    assert math.isnan(cells.parse_number(text))
    assert cells.fault(text) is None


@pytest.mark.parametrize("text", ["", "1_000", "\u0663", "\u00a01", "1,0", "0x10", "True", "yes"])
def test_other_numeric_notations_are_refused(text):
    with pytest.raises(ValueError, match="not"):
        cells.parse_number(text)
    assert cells.fault(text) == f"{text!r} is not a number"


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        (None, None),
        (0.5, None),
        ([1], "a list is too deep; a table has two dimensions"),
        ({"a": 1}, "an object is not a number"),
        (10**400, "the number is too large for 64 bits"),
        ("-Infinity", "'-Infinity' is not a finite number"),
        (math.inf, "inf is not a finite number"),
        ("x" * 100, f"'{'x' * 35}...' is not a number"),
    ],
)
def test_the_reason_for_a_refused_cell_is_one_sentence(cell, sentence):
    assert cells.fault(cell) == sentence


def test_a_cell_in_an_error_message_is_short_and_on_one_line():
    assert cells.short("a\nb") == r"'a\nb'"
    assert cells.short(np.float64(2)) == "2.0"
    assert cells.short(list(range(99))) == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1...]"


@pytest.mark.parametrize(
    ("value", "words"),
    [({}, "an object"), ([], "a list"), ("", "a string"), (True, "a boolean"), (None, "null"),
     (1, "a number"), (1.5, "a number")],
)  # fmt: skip
def test_types_of_json_values_have_names(value, words):
    assert cells.kind(value) == words


@pytest.mark.parametrize("cell", [None, math.nan, "", " ", "NA", " NA ", "NAN", "null", "?"])
def test_one_list_says_what_a_missing_cell_is(cell):
    assert cells.is_missing(cell)
    assert math.isnan(cells.parse_cell(cell))
    assert not cells.parse_text(cell)


@pytest.mark.parametrize("cell", [0, "0", "no", "nil", "-", False])
def test_other_cells_are_not_missing(cell):
    assert not cells.is_missing(cell)


def test_every_missing_text_of_pandas_is_one_here():
    parsers = pytest.importorskip("pandas._libs.parsers")
    assert parsers.STR_NA_VALUES <= cells.MISSING


@pytest.mark.parametrize(
    ("text", "decimal", "number"),
    [
        ("1,234.5", ".", 1234.5),
        ("1,234,567", ".", 1234567),
        ("1 234.5", ".", 1234.5),
        ("1\u00a0234", ".", 1234),
        ("1'234.50", ".", 1234.5),
        ("-1.234,5", ",", -1234.5),
        ("1.234", ",", 1234),
        ("12,5", ",", 12.5),
        ("12.5", ",", 12.5),
        ("1e3", ",", 1000),
    ],
)
def test_numbers_of_files_may_have_a_decimal_comma_and_thousands(text, decimal, number):
    assert cells.parse_cell(text, decimal) == number


@pytest.mark.parametrize(("text", "decimal"), [("12,5", "."), ("1,23,456", "."), ("1,2,3", ",")])
def test_marks_in_other_places_are_no_number(text, decimal):
    with pytest.raises(ValueError, match=r"not a number|could not convert"):
        cells.parse_cell(text, decimal)


@pytest.mark.parametrize("text", ["yes", "Yes", "TRUE", " true "])
def test_flags_are_words_or_numbers(text):
    assert cells.parse_cell(text, flag=True) == 1
    with pytest.raises(ValueError, match="could not convert"):
        cells.parse_cell(text)


def test_a_text_is_cut_between_characters():
    assert cells.bounded("abc", 32) == b"abc"
    for most in range(4, 40):
        cut = cells.bounded("\u00e4" * 40, most)
        assert len(cut) <= most
        assert cut.decode().endswith("\u2026")


def test_a_forest_has_numbers_of_32_bits():
    assert float(np.finfo(np.float32).max) == cells.LARGEST


@pytest.mark.parametrize(
    ("names", "positions"),
    [(("t:0", "t:12"), [0, 12]), (("1", "0"), [1, 0]), (("t:1", "t:1"), [1, 1]),
     (("t:0", "a"), None), (("t:0", "1"), None), (("t:", "t:1"), None), (("t:0x",), None),
     (("", ""), None), (("01",), None), (("-1",), None), (("1.0",), None), (("\u0661",), None)],
)  # fmt: skip
def test_names_of_seldon_and_pandas_that_count_columns_are_positions(names, positions):
    assert cells.read_positions(names) == positions


def test_a_column_without_a_name_is_recognised():
    assert cells.is_unnamed(cells.name_column(12))
    assert not cells.is_unnamed("Unnamed")
    assert not cells.is_unnamed("my Unnamed: 1")
