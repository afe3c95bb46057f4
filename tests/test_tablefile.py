import stat

import pandas as pd
import pytest

from service.errors import BadInput
from service.tablefile import write_table

COLUMNS = {"time": (0.5, 1e9), "row": (None, 7), "reward": (0.1, None), "puid": ("a,b", "ü")}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_is_read_back_as_it_was(tmp_path, kind):
    path = tmp_path / f"out.{kind}"
    path.touch(mode=0o666)
    write_table(COLUMNS, path)
    table = pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
    assert pd.to_datetime(table["time"])[1] == pd.Timestamp("2001-09-09T01:46:40Z")
    assert table["row"].isna().tolist() == [True, False]
    assert (table["row"][1], table["reward"][0]) == (7, 0.1)
    assert table["puid"].tolist() == ["a,b", "ü"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_whole_numbers_stay_whole_beside_an_empty_cell(tmp_path):
    write_table(COLUMNS, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[2].split(",")[1] == "7"


def test_a_table_without_lines_has_its_columns(tmp_path):
    write_table({"time": (), "puid": ()}, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "time,puid\n"


@pytest.mark.parametrize(
    ("name", "words"), [("out.txt", "neither a .csv nor a .parquet"), ("no/out.csv", "cannot be")]
)
def test_what_cannot_be_written_is_told(tmp_path, name, words):
    with pytest.raises(BadInput, match=words):
        write_table(COLUMNS, tmp_path / name)
