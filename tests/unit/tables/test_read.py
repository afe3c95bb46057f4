import gzip
import sys
import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from service.cells import MISSING
from service.errors import BadInput
from service.tables.batches import Choices
from service.tables.read import read_table


@pytest.fixture
def write(tmp_path):
    """Write a file into a folder of its own and return its path."""

    def write(content, name="my.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(path):
    """Return the sentence that a file is refused with, without the folder."""
    with pytest.raises(BadInput) as caught:
        read_table(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def numbers(table):
    return [table.cells(name).numbers.tolist() for name in table.names]


def types(table):
    return [table.cells(name).type for name in table.names]


def test_columns_have_their_names_types_and_numbers(write):
    table = read_table(write("a,b,yes,t\n1,2.5,True,x\n-3,1e3,False,y\n"))
    assert (len(table), table.names) == (2, ["a", "b", "yes", "t"])
    assert types(table) == ["int", "float", "bool", "text"]
    assert [table.cells(n).numbers.tolist() for n in "ab"] == [[1, -3], [2.5, 1e3]]
    assert table.cells("yes").numbers.tolist() == [1, 0]
    assert table.cells("t").texts.to_pylist() == ["x", "y"]


def test_decimals_are_read_exactly(write):
    bits = np.random.default_rng(16).integers(0, 2**63, 20_000)
    expected = bits.view(np.float64)
    expected = expected[np.isfinite(expected)]
    path = write("a\n" + "\n".join(map(repr, expected.tolist())))
    assert np.array_equal(read_table(path).cells("a").numbers, expected)


def test_parquet_arrow_and_csv_give_the_same_table(write, tmp_path):
    csv = write("a,b,t\n1,2.5,x\n3,0.1,\n")
    frame = pd.read_csv(csv)
    frame.to_parquet(tmp_path / "my.parquet")
    frame.to_feather(tmp_path / "my.arrow")
    one = read_table(csv)
    for name in ("my.parquet", "my.arrow"):
        other = read_table(tmp_path / name)
        assert one.names == other.names == ["a", "b", "t"]
        assert all(np.array_equal(one.cells(n).numbers, other.cells(n).numbers) for n in "ab")
        assert other.cells("t").texts.to_pylist() == ["x", None]


def test_typed_columns_of_parquet_are_numbers_text_or_dates(tmp_path):
    berlin = pd.to_datetime(["2026-01-02 03:04:05", None]).tz_localize("Europe/Berlin")
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None], "Int64"),
            "s": ["1.5", "2"],
            3: [True, None],
            "d": [Decimal("1.10"), None],
            "c": pd.Categorical(["x", None]),
            "when": berlin,
            "day": [pd.Timestamp("2026-01-02").date(), None],
        }
    )
    frame.columns = frame.columns.map(str)
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert types(table) == ["int", "float", "bool", "float", "text", "text", "text"]
    np.testing.assert_array_equal(
        [table.cells(name).numbers for name in ("n", "s", "3", "d")],
        [[1, np.nan], [1.5, 2], [1, np.nan], [1.1, np.nan]],
    )
    texts = [table.cells(name).texts.to_pylist() for name in ("c", "when", "day")]
    assert texts == [["x", None], ["2026-01-02 03:04:05+0100", None], ["2026-01-02", None]]


def test_an_index_that_was_stored_is_a_column(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0]}, index=pd.Index([30, 40], name="age"))
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").names == ["a", "age"]
    frame.rename_axis(None).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").names == ["a", "Unnamed: 1"]


def test_lists_are_refused_by_name(tmp_path):
    pd.DataFrame({"a": [1.0], "tags": [[1, 2]]}).to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    with pytest.raises(BadInput, match=r"column 'tags' of .* holds cells of the type list<.*leave"):
        table.cells("tags")


def test_names_are_stripped_of_spaces_and_a_byte_order_mark(write):
    assert read_table(write("\ufeffa, b c \n1,2\n")).names == ["a", "b c"]


def test_a_column_without_a_name_gets_its_number(write):
    assert read_table(write(",a, \n0,5,1\n")).names == ["Unnamed: 0", "a", "Unnamed: 2"]


@pytest.mark.parametrize("text", sorted(MISSING))
def test_missing_cells_are_nan_and_not_text(write, text):
    cells = read_table(write(f"a,b\n1,2\n {text} ,3\n")).cells("a")
    np.testing.assert_array_equal(cells.numbers, [1, np.nan])
    assert cells.missing.tolist() == [False, True]
    assert cells.cell(1) is None


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "Yes", "1"])
def test_a_column_of_truth_values_counts_as_numbers(write, text):
    cells = read_table(write(f"a,b\n{text},1\nNo,2\n,3\n")).cells("a")
    assert cells.type == "bool"
    np.testing.assert_array_equal(cells.numbers, [1, 0, np.nan])


@pytest.mark.parametrize("text", ["1_000", "0x10", "\u0663", "1,5", "yes"])
def test_the_cells_that_are_no_numbers_are_found(write, text):
    cells = read_table(write(f"a;b\n1.5;2\n;3\n{text};4\nx;5\n")).cells("a")
    assert (cells.type, cells.numbers) == ("text", None)
    assert cells.bad.tolist() == [False, False, True, True]
    assert cells.written(2) == text


def test_numbers_may_have_a_decimal_comma_and_thousands(write):
    table = read_table(write("a;b\n1.234,5;1\n12,25;2\n"))
    assert numbers(table) == [[1234.5, 12.25], [1, 2]]
    assert table.notes == ("cells are separated by a semicolon", "numbers have a decimal comma")
    assert numbers(read_table(write('a,b\n"1,234.5",1\n2,2\n'))) == [[1234.5, 2], [1, 2]]
    table = read_table(write("a;b\n1,234;1\n"), Choices(decimal="."))
    assert numbers(table) == [[1234], [1]]


@pytest.mark.parametrize("name", ["my.csv.gz", "my.zip", "my.csv.zst", "my.tsv", "no_suffix"])
def test_packed_files_are_recognised_by_their_content(write, tmp_path, name):
    text = b"a\tb\n1\t2\n"
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("my.tsv", text)
        path = tmp_path / name
    else:
        pack = {".gz": gzip.compress, ".zst": lambda data: pa.compress(data, "zstd", asbytes=True)}
        path = write(pack.get(Path(name).suffix, bytes)(text), name)
    assert numbers(read_table(path)) == [[1], [2]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_files_of_other_encodings_are_read(write, encoding):
    assert read_table(write("größe\n1\n".encode(encoding))).names == ["größe"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "my.csv is empty"),
        ("a,b\n", "my.csv has no rows"),
        ("a,b\n\n \n", "my.csv has no rows"),
        ("a,a\n1,2\n", "my.csv has two columns named 'a'; rename one"),
        ("a, a\n1,2\n", "my.csv has two columns named 'a'; rename one"),
        ("0,tcp,0\n1,udp,2\n", "the first line of my.csv is taken for the names of the columns, "
         "and '0' is in it twice; add a line of names before the rows"),
        ("a,b\n1,2\n4,5,6\n", "my.csv, row 1 (the first is 0) has 3 cells, the line of names 2; "
         "cells with a comma in them need quotes; another separator: --sep"),
        ("a,b\n1\n4,5\n", "my.csv, row 0 (the first is 0) has 1 cell, the line of names 2; "
         "cells with a comma in them need quotes; another separator: --sep"),
        ('[{"a": 1}]', "my.csv is JSON; tables are CSV, Parquet or Arrow files"),
        (b"\xff\x00\x01", "my.csv is not text: it holds bytes of 0"),
        (b"\x1f\x8b\x08", "my.csv cannot be read: Truncated compressed stream"),
        (b"\xd0\xcf\x11\xe0", "my.csv is an Excel workbook; save the sheet as CSV"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_table_is_refused_with_one_sentence(write, content, sentence):
    assert refusal(write(content)).startswith(sentence)


def test_a_missing_file_or_another_file_type_is_refused(write, tmp_path):
    path = write("a\n1\n", "train.csv")
    assert refusal(path.with_name("tarin.csv")) == "there is no file tarin.csv (is it 'train.csv'?)"
    assert refusal(write("a\n1\n", "my.parquet")) == (
        "my.parquet is no Parquet file, or its beginning is lost"
    )
    assert refusal(write("PAR1", "my.parquet")).startswith("my.parquet cannot be read: ")
    (tmp_path / "folder.csv").mkdir()
    assert refusal(tmp_path / "folder.csv") == "folder.csv cannot be read: Is a directory"
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "")
    assert refusal(tmp_path / "book.xlsx").startswith("book.xlsx is an Excel workbook; save")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "a\n1")
        archive.writestr("b.csv", "a\n1")
    assert refusal(tmp_path / "two.zip") == ("two.zip holds 2 files; pack a single one")


def test_a_url_is_refused():
    with pytest.raises(BadInput, match="there is no file"):
        read_table(Path("http://127.0.0.1:9/my.csv"))


@pytest.mark.parametrize("name", ["my.csv", "my.parquet"])
def test_a_missing_library_is_named(write, monkeypatch, name):
    path = write("PAR1" if name.endswith("t") else "a\n1\n", name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert refusal(path).startswith(f"{name} is read with pyarrow, which is not installed")
    assert refusal(path).endswith(": pip install 'isoserve[bulk]'")
