import datetime

import numpy as np
import pandas as pd
import pytest

from service.tables.read import read_table
from training.profiles import Profile
from training.recognition import describe, encode, recognise

N = 40
DAYS = [str(datetime.date(2026, 1, 1) + datetime.timedelta(days=i)) for i in range(N)]


@pytest.fixture
def make_table(tmp_path):
    """Return the function that writes one column, and another, into a file and reads it."""

    def make(name, values, suffix=".csv"):
        path = tmp_path / f"my{suffix}"
        frame = pd.DataFrame({name: values, "other": range(len(values))})
        frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
        return read_table(path)

    return make


@pytest.fixture
def cells(make_table):
    """Return the function that writes one column into a file and reads its cells."""
    return lambda name, values: make_table(name, values).cells(name)


def profile(name, cells, wanted=""):
    """Return the profile of a column that came in one batch."""
    found = Profile(name, wanted)
    found.add(cells, "my.csv")
    return found


def in_batches(table, name, rows, wanted=""):
    """Return the profile of a column that came in batches of so many rows."""
    found = Profile(name, wanted)
    starts = range(0, len(table), rows)
    batches = [table.take(np.arange(i, min(i + rows, len(table)))).cells(name) for i in starts]
    for i, cells in zip(starts, batches, strict=True):
        found.add(cells, "my.csv", i)
    if found.lacks_values:
        found.recount(len(table))
        for cells in batches:
            found.count_values(cells)
    return found


def spread(*values):
    return [values[i % len(values)] for i in range(N)]


COLUMNS = [
    ("amount", [i * 1.5**i for i in range(N)], "number"),
    ("count", spread(3, 1, 2), "number"),
    ("active", spread("yes", "no"), "flag"),
    ("active", spread("True", "FALSE"), "flag"),
    ("active", spread(0, 1), "flag"),
    ("active", spread("1", "0", ""), "flag"),
    ("country", spread("DE", "AT", "CH"), "category"),
    ("country", spread("DE", ""), "category"),
    ("name", [f"n{i % 21}" for i in range(N)] + ["n1"] * 9, "text"),
    ("zip", [f"0{i // 2}{i % 3}" for i in range(N)] * 2, "text"),
    ("zip", spread("01", "02"), "category"),
    ("shop_id", spread(17, 18), "category"),
    ("when", [f"{day} 12:30" for day in DAYS], "date"),
    ("when", [f"{day}T12:30:00+02:00" for day in DAYS], "date"),
    ("when", [f"{day[8:]}.{day[5:7]}.{day[:4]}" for day in DAYS], "date"),
    ("at", spread("12:30", "9:45"), "date"),
    ("created_at", [1_790_000_000 + 5000 * i * i for i in range(N)], "date"),
    ("day", [int(day.replace("-", "")) for day in DAYS], "date"),
    ("amount", [1_790_000_000 + 5000 * i * i for i in range(N)], "number"),
    ("time", spread(0, 1.5, 7), "number"),
    ("key", [f"k{i:x}" for i in range(N)], "id"),
    ("customerId", [i * i for i in range(N)], "id"),
    ("amount", [i * i for i in range(N)], "number"),
    ("row", list(range(N)), "running number"),
    ("row", list(reversed(range(N))), "running number"),
    ("t", [300 * i for i in range(N)], "running number"),
    ("currency", ["EUR"] * N, "constant"),
    ("version", [3] * N, "constant"),
    ("tiny", [1 + i * 1e-12 for i in range(N)], "constant"),
    ("empty", [""] * N, "constant"),
    ("note", [f"this is the order number {i}" for i in range(N)], "free text"),
    ("Unnamed: 0", list(range(N)), "unused"),
    # Columns whose type shows late.
    ("code", ["7"] * 20 + ["x7"] * 60, "category"),
    ("active", ["1", "0"] * 10 + ["yes", "no"] * 10, "flag"),
    ("active", ["yes", "no"] * 10 + ["maybe"] * 10, "category"),
    ("zip", ["99501"] * 20 + ["01001"] * 20, "category"),
    ("when", ["2026-01-02 12:30"] * 9 + ["2026-01-03"] * 30, "date"),
    ("gaps", [""] * 20 + ["2.5", "x", "y"] * 20, "category"),
    ("row", [i * 7 % 40 for i in range(N)], "running number"),
    ("at", [1_790_000_000 + 5000 * i for i in range(N)], "date"),
]


@pytest.mark.parametrize(("name", "values", "kind"), COLUMNS)
def test_columns_are_recognised_the_same_every_time(cells, name, values, kind):
    column = cells(name, values)
    found = recognise(profile(name, column))
    assert (found.kind, bool(found.why)) == (kind, True)
    assert found == recognise(profile(name, column))


@pytest.mark.parametrize("wanted", ["", "use", "text"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_comes_in_batches_is_recognised_as_the_whole_is(
    make_table, column, suffix, wanted
):
    name, values, _ = column
    table = make_table(name, values, suffix)
    if wanted == "text" and not any(values):
        pytest.skip("no value at all is no text")
    whole = profile(name, table.cells(name), wanted)
    expected = recognise(whole)
    for rows in (1, 7, 39):
        found = in_batches(table, name, rows, wanted)
        assert recognise(found) == expected
        if expected.is_used:
            assert describe(expected, found) == describe(expected, whole)
        assert (found.missing, found.type) == (whole.missing, whole.type)
        if whole.has_numbers and whole.known:
            assert (found.low, found.high) == (whole.low, whole.high)


@pytest.mark.parametrize("kind", ["number", "category", "text", "id"])
def test_what_is_chosen_counts(cells, kind):
    assert recognise(profile("row", cells("row", list(range(N))), kind)).kind == kind


def test_a_column_that_is_kept_is_used(cells):
    found = recognise(profile("row", cells("row", list(range(N))), "use"))
    assert (found.kind, found.why) == (
        "number", "kept, though it looks like a running number: it counts the rows",
    )  # fmt: skip
    keys = profile("key", cells("key", [f"k{i:x}" for i in range(N)]), "use")
    assert recognise(keys).kind == "text"


def test_day_before_month_is_said_where_both_are_possible(cells):
    found = recognise(profile("when", cells("when", spread("01/02/2026", "03/04/2026"))))
    assert (found.format, found.why) == ("%d/%m/%Y", "dates as %d/%m/%Y, day before month")
    column = profile("when", cells("when", spread("01/02/2026", "03/14/2026")))
    assert recognise(column).format == "%m/%d/%Y"


def test_only_the_parts_of_a_date_that_vary_are_features(cells):
    column = cells("when", [f"{day} 12:30" for day in DAYS])
    found = recognise(profile("when", column))
    assert found.parts == ("weekday", "day")
    features = encode(describe(found, profile("when", column)), column)
    assert features[:2].tolist() == [[3, 1], [4, 2]]


def test_rare_texts_differ_from_common_ones(cells):
    column = cells("name", ["a"] * 30 + ["b"] * 5 + [f"c{i % 20}" for i in range(40)])
    found = recognise(profile("name", column))
    assert found.kind == "text"
    features = encode(describe(found, profile("name", column)), column).ravel()
    assert features[[0, 30, 35]] == pytest.approx(np.log([30 / 75, 5 / 75, 2 / 75]))


def test_values_are_in_the_card_the_most_common_first(cells):
    column = profile("c", cells("c", ["b"] * 3 + ["a"] * 3 + ["z"] * 9 + [""] * 2))
    described = describe(recognise(column), column)
    assert list(described.values.items()) == [("z", 9), ("a", 3), ("b", 3)]
    assert described.missing == 2
