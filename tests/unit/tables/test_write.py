import stat
import sys

import numpy as np
import pandas as pd
import pytest

from service.errors import BadInput
from service.tables.write import write_table

COLUMNS = {"time": (0.5, 1e9), "row": (None, 7), "reward": (0.1, None), "puid": ("a,b", "ü")}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_survives_writing_and_reading(tmp_path, kind):
    path = tmp_path / f"out.{kind}"
    path.touch(mode=0o666)
    write_table(COLUMNS, path)
    table = pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
    assert pd.to_datetime(table["time"])[1] == pd.Timestamp("2001-09-09T01:46:40Z")
    assert table["row"].isna().tolist() == [True, False]
    assert (table["row"][1], table["reward"][0]) == (7, 0.1)
    assert table["puid"].tolist() == ["a,b", "ü"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_integers_stay_integers_beside_an_empty_cell(tmp_path):
    write_table(COLUMNS, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[2].split(",")[1] == "7"


def test_an_empty_table_keeps_its_columns(tmp_path):
    write_table({"time": (), "puid": ()}, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "time,puid\n"


def test_a_line_break_in_a_cell_does_not_start_a_row(tmp_path):
    cells = ["a\rb", "a\nb", 'a",b', "a\r\n1970-01-01,x"]
    write_table({"time": (0,) * 4, "puid": cells}, tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["puid"].tolist() == cells


def test_a_text_that_a_spreadsheet_would_run_begins_with_an_apostrophe_in_csv(tmp_path):
    cells = ['=HYPERLINK("http://x","y")', "+1", "-1", "@x", "\t=1", "\r=1", "a=1", "", None]
    columns = {"puid": cells, "row": [-1] * len(cells), "-odd": np.full(len(cells), -0.5)}
    write_table(columns, tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert list(table) == ["puid", "row", "'-odd"]
    assert table["puid"].tolist() == [*(f"'{cell}" for cell in cells[:6]), "a=1", "", ""]
    assert (set(table["row"]), set(table["'-odd"])) == ({-1}, {-0.5})
    write_table(columns, tmp_path / "out.parquet")
    assert pd.read_parquet(tmp_path / "out.parquet")["puid"].tolist()[:8] == cells[:8]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_numbers_are_exact_in_a_long_table(tmp_path, kind):
    values = np.random.default_rng(16).lognormal(sigma=9, size=2500)
    values[7] = np.nan
    path = tmp_path / f"out.{kind}"
    write_table({"time": range(2500), "x": values, "row": np.arange(2500, dtype=np.uint32)}, path)
    table = pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
    assert np.array_equal(table["x"], values, equal_nan=True)
    assert table["row"].tolist() == list(range(2500))


def test_a_server_without_pandas_and_pyarrow_writes_csv_and_says_what_parquet_needs(
    tmp_path, monkeypatch
):
    for library in ("pandas", "pyarrow"):
        monkeypatch.setitem(sys.modules, library, None)
    write_table(COLUMNS, tmp_path / "out.csv")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3
    with pytest.raises(
        BadInput, match=r"out\.parquet needs pyarrow.*name a \.csv file, or install"
    ):
        write_table(COLUMNS, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("name", "words"), [("out.txt", "neither a .csv nor a .parquet"), ("no/out.csv", "cannot be")]
)
def test_a_file_that_cannot_be_written_is_refused(tmp_path, name, words):
    with pytest.raises(BadInput, match=words):
        write_table(COLUMNS, tmp_path / name)
