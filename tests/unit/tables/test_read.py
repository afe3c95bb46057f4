import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.cells import FILES
from service.errors import BadInput
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


def test_columns_have_their_names_types_and_numbers(write):
    table = read_table(write("a,b,yes\n1,2.5,True\n-3,1e3,False\n"))
    assert (len(table), table.names) == (2, ["a", "b", "yes"])
    assert [table.type(name) for name in table.names] == ["int", "float", "bool"]
    assert [table.floats(name).tolist() for name in table.names] == [[1, -3], [2.5, 1e3], [1, 0]]
    assert [table.first_text(name) for name in table.names] == [None, None, None]


def test_decimals_are_read_exactly(write):
    bits = np.random.default_rng(16).integers(0, 2**63, 20_000)
    numbers = bits.view(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    path = write("a\n" + "\n".join(map(repr, numbers.tolist())))
    assert np.array_equal(read_table(path).floats("a"), numbers)


def test_parquet_and_csv_give_the_same_table(write, tmp_path):
    csv = write("a,b\n1,2.5\n3,0.1\n")
    pd.read_csv(csv).to_parquet(tmp_path / "my.parquet")
    one, other = read_table(tmp_path / "my.parquet"), read_table(csv)
    assert one.names == other.names == ["a", "b"]
    assert all(np.array_equal(one.floats(name), other.floats(name)) for name in one.names)


def test_parquet_columns_of_other_types_may_contain_numbers(tmp_path):
    frame = pd.DataFrame({"n": pd.array([1, 2], "Int64"), "s": ["1.5", "2"], 3: [True, None]})
    frame.columns = frame.columns.map(str)
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert [table.type(name) for name in table.names] == ["int", "float", "float"]
    columns = [table.floats(name) for name in table.names]
    np.testing.assert_array_equal(columns, [[1, 2], [1.5, 2], [1, np.nan]])


def test_names_are_stripped_of_spaces_and_a_byte_order_mark(write):
    assert read_table(write("\ufeffa, b c \n1,2\n")).names == ["a", "b c"]


def test_a_column_without_a_name_gets_its_number(write):
    assert read_table(write(",a, \n0,5,1\n")).names == ["Unnamed: 0", "a", "Unnamed: 2"]


@pytest.mark.parametrize("text", sorted(FILES.missing))
def test_missing_cells_are_nan_and_not_text(write, text):
    table = read_table(write(f"a,b\n1,2\n{text},3\n"))
    np.testing.assert_array_equal(table.floats("a"), [1, np.nan])
    assert table.first_text("a") is None
    assert table.cell("a", 1) is None


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "false", "False", "FALSE"])
def test_a_column_of_truth_values_counts_as_numbers(write, text):
    table = read_table(write(f"a\n{text}\nTrue\n"))
    assert table.type("a") == "bool"
    assert table.floats("a").tolist() == [FILES.truths[text.lower()], 1]


@pytest.mark.parametrize("text", [" NA", "1_000", "0x10", "\u0663", "NAN", "yes", "True"])
def test_the_first_cell_of_text_is_found(write, text):
    table = read_table(write(f"a,b\n1,2\n,3\n{text},4\nx,5\n"))
    assert table.first_text("a") == 2
    assert table.cell("a", 2) == text
    np.testing.assert_array_equal(table.floats("a"), [1, np.nan, np.nan, np.nan])


def test_a_date_is_not_a_number(tmp_path):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"when": pd.to_datetime([None, "2026-01-02"])}).to_parquet(path)
    assert read_table(path).first_text("when") == 1


def test_an_integer_that_a_float_cannot_represent_is_refused(write):
    table = read_table(write("a\n1\n" + "9" * 400 + "\n"))
    with pytest.raises(BadInput, match=r"column 'a' of .* holds too large a number"):
        table.floats("a")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "my.csv is empty"),
        ("a,b\n", "my.csv has no rows"),
        ("a,a\n1,2\n", "my.csv has two columns named 'a'; rename one"),
        ("a, a\n1,2\n", "my.csv has two columns named 'a'; rename one"),
        ("a,b\n1,2,3\n4,5,6\n", "my.csv has rows with more cells than its header"),
        ("a,b\n1,2\n4,5,6\n", "my.csv cannot be read: Expected 2 fields in line 3, saw 3"),
        ("größe\n1\n".encode("latin-1"), "my.csv is not text in UTF-8; save it as CSV in UTF-8"),
        ("a\n1\n".encode("utf-16"), "my.csv is not text in UTF-8; save it as CSV in UTF-8"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused_with_one_sentence(write, content, sentence):
    assert refusal(write(content)) == sentence


def test_a_missing_file_or_another_file_type_is_refused(write, tmp_path):
    path = write("a\n1\n", "train.csv")
    assert refusal(path.with_name("tarin.csv")) == "there is no file tarin.csv (is it 'train.csv'?)"
    assert refusal(write("a\n1\n", "my.xlsx")) == "my.xlsx is neither a .csv nor a .parquet file"
    assert refusal(write("PAR1", "my.parquet")).startswith("my.parquet cannot be read: ")
    (tmp_path / "folder.csv").mkdir()
    assert refusal(tmp_path / "folder.csv") == "folder.csv cannot be read: Is a directory"


def test_a_url_is_refused():
    with pytest.raises(BadInput, match="there is no file"):
        read_table(Path("http://127.0.0.1:9/my.csv"))


@pytest.mark.parametrize(
    ("library", "name"), [("pandas", "my.csv"), ("pandas", "my.parquet"), ("pyarrow", "my.parquet")]
)
def test_a_missing_library_is_named(write, monkeypatch, library, name):
    path = write("a\n1\n", name)
    monkeypatch.setitem(sys.modules, library, None)
    sentence = f"{name} is read with pandas and pyarrow, which are not installed: pip install "
    assert refusal(path) == sentence + "pandas pyarrow"
