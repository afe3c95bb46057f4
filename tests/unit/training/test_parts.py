from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from service.errors import BadInput
from service.tables.read import Table
from training.parts import Parts, Pool, concatenate


def watch(rows, share):
    pass


def rows_of(parts, **options):
    tables = [batch.table.arrow for batch in parts.read(watch, **options)]
    return concatenate(tables).to_pydict()


@pytest.fixture
def write(tmp_path):
    """Return the function that writes tables into files of any kind, and returns their places."""

    def write(**tables):
        places = []
        for name, columns in tables.items():
            stem, kind = name.split("_")
            path = tmp_path / f"{stem}.{kind}"
            if kind == "parquet":
                parquet.write_table(pa.table(columns), path)
            else:
                csv.write_csv(pa.table(columns), path)
            places.append(str(path))
        return places

    return write


def test_files_are_one_table_with_the_columns_of_the_first(write):
    places = write(a_parquet={"x": [1, 2], "y": ["p", "q"]}, b_parquet={"y": ["r"], "x": [3]})
    assert rows_of(Parts(places)) == {"x": [1, 2, 3], "y": ["p", "q", "r"]}
    assert rows_of(Parts(places), names=["y"]) == {"y": ["p", "q", "r"]}


def test_rows_are_numbered_in_their_own_file(write):
    places = write(a_csv={"x": [1, 2]}, b_csv={"x": [3]})
    found = [(Path(b.table.path).name, b.first, len(b.table)) for b in Parts(places).read(watch)]
    assert found == [("a.csv", 0, 2), ("b.csv", 0, 1)]


def test_what_is_read_is_told(write):
    told = []
    places = write(a_parquet={"x": range(10)}, b_parquet={"x": range(30)})
    list(Parts(places).read(lambda rows, share: told.append((rows, share))))
    assert told == [(10, 0.5), (40, 1.0)]


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ({"x": [1]}, "b.parquet has no column 'year', and a.parquet has"),
        ({"x": [1], "yaer": [1]}, "b.parquet has no column 'year' (is it 'yaer'?), and a.parquet "
         "has"),
        ({"x": [1], "year": [1], "z": [1]}, "a.parquet has no column 'z', and b.parquet has"),
    ],
)  # fmt: skip
def test_files_of_other_columns_are_refused(write, tmp_path, second, sentence):
    places = write(a_parquet={"x": [1], "year": [2]}, b_parquet=second)
    with pytest.raises(BadInput) as refused:
        rows_of(Parts(places))
    expected = f"{sentence}; the files of a table have the same columns"
    assert str(refused.value).replace(f"{tmp_path}/", "") == expected


def test_files_of_several_kinds_are_refused(write):
    with pytest.raises(BadInput, match="is CSV, and the other is not"):
        rows_of(Parts(write(a_parquet={"x": [1]}, b_csv={"x": [1]})))


def test_whole_numbers_and_others_fit_together(write):
    parts = Parts(write(a_parquet={"x": [1]}, b_parquet={"x": [1.5]}, c_parquet={"x": [None]}))
    assert rows_of(parts) == {"x": [1.0, 1.5, None]}


def make_pool(n, most, seed=1, batch=100):
    pool = Pool(most, seed)
    for start in range(0, n, batch):
        rows = np.arange(start, min(start + batch, n))
        pool.add(Table("my.csv", pa.table({"x": rows})))
    return pool.rows()["x"].to_pylist()


def test_a_pool_that_is_large_enough_has_all_rows_in_their_order():
    assert make_pool(1_000, 1_000) == list(range(1_000))


def test_a_pool_is_a_sample_in_order_that_depends_on_the_seed_alone():
    found = make_pool(10_000, 500)
    assert len(found) == 500
    assert found == sorted(set(found))
    assert found == make_pool(10_000, 500, batch=333)
    assert found != make_pool(10_000, 500, seed=2)


def test_each_row_is_as_likely_in_the_pool():
    times = np.bincount(np.concatenate([make_pool(100, 20, s, 10) for s in range(1_000)]))
    assert abs(times - 200).max() < 65  # five standard deviations
    halves = times[:50].sum(), times[50:].sum()
    assert abs(halves[0] - 10_000) < 360
