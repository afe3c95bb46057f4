import pickle

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from service.bulk.arrow import ArrowScorer
from service.errors import BadInput


def test_a_table_and_its_batches_get_the_scores_of_the_command(score, mixed, tmp_path):
    parquet.write_table(csv.read_csv(mixed / "my.csv"), tmp_path / "my.parquet")
    assert score("my.parquet", "-o", "out.parquet", "--explain", 1)[0] == 0
    expected = parquet.read_table(tmp_path / "out.parquet")
    scorer = pickle.loads(pickle.dumps(ArrowScorer(mixed / "model.pickle", explain=1)))
    table = parquet.read_table(tmp_path / "my.parquet")
    assert scorer(table).equals(expected)
    batches = [scorer(batch) for batch in table.to_batches(max_chunksize=100)]
    assert pa.Table.from_batches(batches).equals(expected)
    assert scorer(table.to_batches()[0].slice(0, 0)).schema == expected.schema


def test_a_table_without_a_column_is_refused(mixed):
    with pytest.raises(BadInput, match="the table: column 'city' is missing"):
        ArrowScorer(mixed / "model.pickle")(csv.read_csv(mixed / "my.csv").drop_columns(["city"]))
