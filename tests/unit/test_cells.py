import math
import sys

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


@pytest.mark.parametrize(
    ("text", "in_requests", "in_files"),
    [
        ("", True, True),
        ("NA", True, True),
        ("None", True, True),
        ("0", False, False),
        (" NA", True, False),
        (" ", True, False),
        ("#N/A", False, True),
        ("nan", False, True),  # in a request it is a number
    ],
)
def test_requests_and_files_have_different_missing_values(text, in_requests, in_files):
    assert cells.REQUESTS.is_missing(text) == in_requests
    assert cells.FILES.is_missing(text) == in_files


def test_files_have_the_missing_value_strings_of_pandas():
    parsers = pytest.importorskip("pandas._libs.parsers")
    assert cells.FILES.missing == parsers.STR_NA_VALUES


def test_only_files_have_boolean_words_and_stripped_names():
    assert cells.REQUESTS.truths == {}
    assert cells.FILES.truths == {"true": 1, "false": 0}
    assert cells.REQUESTS.name(" a ") == " a "
    assert cells.FILES.name(" a ") == "a"


def test_files_have_numbers_of_32_bits_and_requests_of_64():
    assert cells.FILES.largest == float(np.finfo(np.float32).max)
    assert cells.REQUESTS.largest == sys.float_info.max


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
