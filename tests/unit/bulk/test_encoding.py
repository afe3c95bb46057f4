"""Columns of Arrow become the features, counts and faults of the same cells in a request."""

from collections import Counter
from datetime import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bulk.encoding import encode_batch
from service.errors import BadInput
from service.model.card import Column
from service.model.columns import Columns
from service.model.encoding import ISO
from service.rows import RawTable
from tests.support.cards import number
from tests.support.mixed import NAMES, make_rows


def as_request(columns, rows, names, is_csv):
    return columns.encode(RawTable(rows, tuple(names), is_csv=is_csv))


def assert_equal(encoded, rows):
    assert np.array_equal(encoded.values, rows.values, equal_nan=True)
    odd = Counter()
    for column, kind, many in rows.odd:
        odd[column, kind] += many
    assert (encoded.odd, encoded.faults) == (odd, [])


def test_texts_of_a_csv_file_are_encoded_as_those_of_a_csv_body(detector):
    rows = [[str(row[name]) for name in NAMES] for row in make_rows(300, seed=5)]
    rows[3][1], rows[4][2], rows[5][5], rows[6][0] = "yacht", "no city", " NA ", "1,234.5"
    rows[7][0], rows[8][0] = "1e9", "12"
    columns = [pa.array(cells) for cells in zip(*rows, strict=True)]
    encoded = encode_batch(detector.columns, columns, ".")
    assert_equal(encoded, as_request(detector.columns, rows, NAMES, is_csv=True))


def test_typed_columns_are_encoded_as_the_cells_of_a_request(detector):
    rows = list(make_rows(300, seed=6))
    columns = [
        pa.array([row["amount"] for row in rows]),
        pa.array([row["merchant"] for row in rows]).dictionary_encode(),
        pa.array([row["city"] for row in rows], pa.large_string()),
        pa.array([datetime.fromisoformat(row["when"]) for row in rows]),
        pa.array([row["is_new"] == "yes" for row in rows]),
        pa.array([row["visits"] if row["visits"] != "" else None for row in rows], pa.int16()),
    ]
    cells = [[row[name] if row[name] != "" else None for name in NAMES] for row in rows]
    encoded = encode_batch(detector.columns, columns, "")
    assert_equal(encoded, as_request(detector.columns, cells, NAMES, is_csv=False))


CELLS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(["", "NA", " 5 ", "1_0", "+5", "1.", ".5", "1e", "nan(a)", "inf", "1e999"]),
    st.sampled_from(["1,234", "1.234", "1.234,5", "1,5", "1 234", "\u0663", "0x10", "1e-400"]),
    st.text("0123456789.,+-eE ", max_size=8),
)


@given(cells=st.lists(CELLS, min_size=1, max_size=8), decimal=st.sampled_from([".", ",", ""]))
def test_any_text_is_the_number_or_the_fault_that_it_is_in_a_request(cells, decimal):
    columns = Columns([number("a", missing=1)], decimal=decimal or ".")
    encoded = encode_batch(columns, [pa.array(cells)], decimal)
    bad = {fault.row: fault.text for fault in encoded.faults}
    for i, cell in enumerate(cells):
        table = RawTable([[cell]], ("a",), is_csv=bool(decimal))
        try:
            expected = columns.encode(table).values
        except BadInput as error:
            if "not a finite number" not in str(error):  # it may say inf for 1e999
                assert str(error) == f"row 0, column 0 ('a'): {bad[i]}"
            assert bad[i].split(" is ")[1:] == str(error).split(" is ")[1:]
        else:
            assert i not in bad
            assert np.array_equal(encoded.values[i : i + 1], expected, equal_nan=True)


def test_decimals_are_rounded_as_python_does():
    cells = [Decimal(n).scaleb(-13) for n in range(10**16, 10**16 + 2000)]
    encoded = encode_batch(Columns([number("a")]), [pa.array(cells)], "")
    assert encoded.values[:, 0].tolist() == [float(cell) for cell in cells]


@pytest.mark.parametrize(
    ("cells", "row", "text"),
    [
        (pa.array([1.0, None]), 1, "a missing value (null, NaN or empty); this column takes none"),
        (pa.array([1.0, np.inf]), 1, "inf is not a finite number"),
        (pa.array(["1", "x", "y"]), 1, "'x' is not a number"),
    ],
)
def test_a_fault_has_the_words_of_a_request(cells, row, text):
    encoded = encode_batch(Columns([number("a")]), [cells], "")
    assert (encoded.faults[0].row, encoded.faults[0].text) == (row, text)


def test_each_bad_row_has_its_first_fault():
    when = Column("when", "date", "text", format=ISO, parts=["hour"])
    columns = Columns([number("a"), when])
    cells = [pa.array(["1", "x", "3", "y"]), pa.array(["soon", "later", "2026-01-01 05:00", "x"])]
    faults = encode_batch(columns, cells, ".").faults
    assert [(fault.row, fault.column) for fault in faults] == [(0, 1), (1, 0), (3, 0)]


def test_cells_of_other_types_are_refused_by_column():
    with pytest.raises(BadInput, match="column 'a' holds cells of the type list<item: int64>"):
        encode_batch(Columns([number("a")]), [pa.array([[1]])], "")
