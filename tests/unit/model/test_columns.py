import numpy as np
import pytest

from service.errors import BadInput
from service.model.card import Column
from service.model.columns import Columns
from service.rows import ODD, RawTable
from tests.support.cards import number

MIXED = [
    number("amount", np.linspace(0, 100, 101).tolist()),
    Column("merchant", "category", "text", 1, values={"cafe": 6, "fuel": 2, "casino": 1}),
    Column("city", "text", "text", values={"Bonn": 8, "Ulm": 2}),
    Column("when", "date", "text", format="ISO 8601", parts=["hour", "weekday"]),
    Column("is_new", "flag", "bool", 0, [0.0] * 50 + [1.0] * 51),
]
ROW = [12.5, "cafe", "Ulm", "2026-11-30 16:42:00", "yes"]
MONDAY = [12.5, 1, 0, 0, 0, np.log(0.2), 16, 0, 1]


def columns(*names, **options):
    return Columns.of_numbers(names, **options)


def mixed(**options):
    return Columns(MIXED, left_out=["id", "note"], id="id", **options)


def refusal(table, by=None):
    with pytest.raises(BadInput) as refused:
        (by or mixed()).encode(table)
    return str(refused.value)


def test_named_columns_may_come_in_any_order():
    table = RawTable([[1, 2], [3, 4]], ("sd", "mean"))
    assert columns("mean", "sd").encode(table).values.tolist() == [[2, 1], [4, 3]]


@pytest.mark.parametrize("names", [[], ["", ""], ["t:0", "t:1"], ["0", "1"]])
def test_without_real_names_columns_have_the_models_order(names):
    table = RawTable([[1, 2]], tuple(names))
    assert columns("mean", "sd").encode(table).values.tolist() == [[1, 2]]


@pytest.mark.parametrize("names", [("t:2", "t:0", "t:1"), ("2", "0", "1")])
@pytest.mark.parametrize("features", [("a", "b", "c"), ("c", "b", "a"), ("t:9", "x", "1.0")])
@pytest.mark.parametrize("named", [True, False])
def test_names_that_count_columns_are_positions_in_whatever_order_they_come(names, features, named):
    rows = columns(*features, named=named).encode(RawTable([[30, 10, 20]], names))
    assert (rows.values.tolist(), rows.names) == ([[10, 20, 30]], features)


@pytest.mark.parametrize(
    "names", [("t:0", "t:0"), ("t:0", "t:2"), ("1", "2"), ("t:0", "1"), ("t:0", ""), ("", "sd")]
)
def test_names_that_count_columns_wrongly_are_refused(names):
    with pytest.raises(BadInput, match="this model expects 2: mean, sd"):
        columns("mean", "sd").encode(RawTable([[1, 2]], names))


@pytest.mark.parametrize(
    "features", [("t:0", "t:1"), ("t:1", "t:0"), ("0", "1"), ("1", "0"), ("f0", "f1")]
)
@pytest.mark.parametrize("named", [True, False])
def test_names_of_the_model_are_matched_by_name_whatever_they_look_like(features, named):
    made = columns(*features, named=named)
    for names, row in ((features, [1, 2]), (features[::-1], [2, 1])):
        assert made.encode(RawTable([row], names)).values.tolist() == [[1, 2]]
    with pytest.raises(BadInput, match="is named twice"):
        made.encode(RawTable([[1, 2]], features[:1] * 2))
    with pytest.raises(BadInput, match=f"column '{features[1]}' is missing"):
        made.encode(RawTable([[1, 2]], (features[0], "x")))


def test_a_model_without_names_takes_columns_as_they_come_but_refuses_what_contradicts_itself():
    made = columns("f0", "f1", named=False)
    assert made.encode(RawTable([[1, 2]], ("sd", "mean"))).values.tolist() == [[1, 2]]
    for names, text in ((("a", "a"), "'a' is named twice"), (("a",), "1 name for 2 columns")):
        with pytest.raises(BadInput, match=text):
            made.encode(RawTable([[1, 2]], names))


@pytest.mark.parametrize("settings", [{}, {"named": False}, {"by_name": False}])
@pytest.mark.parametrize("line", [("60", "40"), ("0", "1"), ("0", "0"), ("1e3", ""), ("NA", "")])
def test_a_first_line_of_cells_is_never_taken_for_names(settings, line):
    table = RawTable([[1, 2]], line, is_headless=True)
    with pytest.raises(BadInput, match="the first line is taken for the names of the columns"):
        columns("mean", "sd", **settings).encode(table)
    assert len(columns(*line, **settings).encode(table)) == 1  # the model's own names


def test_names_are_ignored_when_matching_by_position():
    table = RawTable([[1, 2]], ("x", "x"))
    assert columns("mean", "sd", by_name=False).encode(table).values.tolist() == [[1, 2]]


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
        columns("mean", "sd").encode(RawTable([[1, 2]], tuple(names)))
    assert str(refusal.value) == message


def test_an_extra_column_is_refused_by_name():
    with pytest.raises(BadInput, match=r"column 'means' is unknown \(is it 'mean'\?\)"):
        columns("mean", "sd").encode(RawTable([[1, 2, 3]], ("mean", "sd", "means")))


def test_the_wrong_number_of_columns_is_refused():
    with pytest.raises(BadInput, match="rows have 3 columns; this model expects 2: a, b"):
        columns("a", "b").encode(RawTable([[1, 2, 3]]))


def test_thousands_of_wrong_names_are_refused_quickly():
    names = [f"c{j}" for j in range(4096)]
    features = tuple(f"d{j}" for j in range(4096))
    with pytest.raises(BadInput, match="column 'd0' is missing"):
        columns(*features).encode(RawTable([[1] * 4096], tuple(names)))


def test_missing_values_are_refused_by_name_unless_the_column_had_some_in_training():
    table = RawTable([[1, "2"], [None, 4]], ("mean", "sd"))
    with pytest.raises(BadInput) as refusal:
        columns("mean", "sd").encode(table)
    place = "row 1, column 0 ('mean'): a missing value (null, NaN or empty)"
    assert str(refusal.value) == f"{place}; this column takes none"
    rows = Columns([number("sd"), number("mean", missing=1)]).encode(table)
    assert np.isnan(rows.values).tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize("n", [1, 3])
def test_each_kind_of_column_becomes_its_features(n):
    rows = mixed().encode(RawTable([ROW] * n))
    assert rows.values.tolist() == [MONDAY] * n
    assert mixed().features == (
        *("amount", "merchant = cafe", "merchant = fuel", "merchant = casino", "merchant missing"),
        *("city: log share", "when: hour", "when: weekday", "is_new"),
    )
    assert (rows.odd, rows.missing, rows.ids) == ([], False, None)


@pytest.mark.parametrize("n", [1, 3])
def test_odd_cells_are_scored_and_counted(n):
    row = [-1, "zoo", "Trier", "2026-11-30 16:42:00", 7]
    rows = mixed().encode(RawTable([row] * n))
    assert rows.values[-1].tolist() == [-1, 0, 0, 1, 0, np.log(0.2), 16, 0, 7]
    odd = [(MIXED[j].name, ODD[kind], number) for j, kind, number in rows.odd]
    assert odd == [("amount", "out_of_range", n), ("merchant", "unknown", n),
                   ("city", "unknown", n), ("is_new", "out_of_range", n)]  # fmt: skip
    rows = mixed().encode(RawTable([[1, None, *ROW[2:]]] * n))
    assert rows.values[-1].tolist() == [1, 0, 0, 0, 1, *MONDAY[5:]]
    assert rows.odd == [(1, ODD.index("missing"), n)]


def test_the_same_columns_of_numbers_are_counted_when_they_come_as_an_array():
    two = Columns([number("a", [0.0] * 50 + [1.0] * 51, missing=1), number("b")])
    rows = two.encode(RawTable([[2, 0], [None, 0], [0.5, 0], [-2, 5]]))
    assert rows.odd == [(0, 0, 2), (0, 2, 1), (1, 0, 1)]
    assert rows.missing


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    ("j", "cell", "text"),
    [
        (0, "x", "'x' is not a number"),
        (0, None, "a missing value (null, NaN or empty); this column takes none"),
        (0, float("inf"), "inf is not a finite number"),
        (0, [], "a list is too deep; a table has two dimensions"),
        (1, {}, "an object is not text"),
        (1, ["a"], "a list is not text"),
        (2, "NA", "a missing value (null, NaN or empty); this column takes none"),
        (3, "3 May", "'3 May' is no date; this column takes dates such as 2026-12-31 16:42:00"),
        (3, 5, "5 is no date; this column takes dates such as 2026-12-31 16:42:00"),
        (4, "maybe", "'maybe' is neither a number nor true, false, yes or no"),
    ],
)
def test_a_wrong_cell_is_refused_with_row_column_and_what_the_column_takes(n, j, cell, text):
    row = [*ROW[:j], cell, *ROW[j + 1 :]]
    names = [column.name for column in MIXED]
    place = f"row {n - 1}, column {j} ({names[j]!r}): "
    assert refusal(RawTable([ROW] * (n - 1) + [row])) == place + text
    flat = [cell for one in [ROW] * (n - 1) + [row] for cell in one]
    assert refusal(RawTable(flat, tuple(names), (n, 5))) == place + text


def test_the_first_fault_by_row_is_named():
    rows = [ROW, [1, "cafe", "Ulm", "never", 1], ["x", "cafe", "Ulm", "never", 1]]
    assert refusal(RawTable(rows)).startswith("row 1, column 3 ('when')")


@pytest.mark.parametrize("n", [1, 2])
def test_columns_that_were_left_out_may_come_along_and_the_id_comes_back(n):
    names = ("note", "id", *(column.name for column in MIXED))
    rows = mixed().encode(RawTable([["hello", 17, *ROW]] * n, names))
    assert rows.values.tolist() == [MONDAY] * n
    assert rows.ids == ["17"] * n
    assert rows.cells["texts"][0].tolist() == [b"cafe", b"Ulm", b"2026-11-30 16:42:00", b"17"]
    assert rows.cells["values"][0].tolist() == [12.5, 1]
    assert "column 'nota' is unknown" in refusal(RawTable([["hello", *ROW]], ("nota", *names[2:])))


def test_an_id_comes_along_with_numbers():
    numbers = Columns([number("a"), number("b")], left_out=["id"], id="id")
    assert numbers.encode(RawTable([[0, 0]])).ids is None
    rows = numbers.encode(RawTable([[5, 0, 0], [6, 0, 0]], ("id", "b", "a")))
    assert rows.ids == ["5", "6"]
    assert rows.cells["texts"].tolist() == [[b"5"], [b"6"]]


def test_long_texts_are_recorded_with_a_mark_where_they_were_cut():
    rows = mixed().encode(RawTable([[1, "ü" * 40, *ROW[2:]]] * 2))
    stored = rows.cells["texts"][0, 0]
    assert len(stored) <= 32
    assert stored.decode() == "ü" * 14 + "…"


def test_the_users_cells_are_returned_for_reasons():
    rows = mixed().encode(RawTable([ROW, [1, None, *ROW[2:]]]))
    assert mixed().cells(rows)[0] == [12.5, "cafe", "Ulm", "2026-11-30 16:42:00", 1.0]
    assert mixed().cells(rows.at([1]))[0][1] is None


def test_contributions_of_a_columns_features_are_added_up():
    shares = np.arange(9.0).reshape(1, -1)
    assert mixed().add_up(shares).tolist() == [[0, 1 + 2 + 3 + 4, 5, 6 + 7, 8]]


def test_the_texts_of_a_csv_body_are_read_as_in_the_training_file():
    german = Columns([number("a", [0.0] + [9999.0] * 100)], decimal=",")
    table = RawTable([["1.234,5"], ["2.000"], ["0,5"]], ("a",), is_csv=True)
    assert german.encode(table).values.ravel().tolist() == [1234.5, 2000, 0.5]
    assert german.encode(RawTable([["2.5"]])).values.tolist() == [[2.5]]


def test_names_with_blanks_around_them_are_found():
    assert columns("a", "b").encode(RawTable([[1, 2]], (" b", "a "))).values.tolist() == [[2, 1]]


def test_a_models_own_names_are_matched_even_where_they_look_like_placeholders():
    own = columns("t:0", "t:1")
    assert own.encode(RawTable([[1, 2]], ("t:1", "t:0"))).values.tolist() == [[2, 1]]


def test_a_code_is_the_same_as_a_number_and_as_text():
    codes = Columns([Column("shop", "category", "text", values={"17": 2, "3": 1})])
    rows = codes.encode(RawTable([["17"], [17], [17.0], [" 17 "]]))
    assert rows.values.tolist() == [[1, 0]] * 4
    assert codes.encode(RawTable([[17]])).values.tolist() == [[1, 0]]
