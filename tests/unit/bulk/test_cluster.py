"""Dask workers in this process: tests/system/test_cluster.py has real ones, and kills one."""

import pytest

from service.bulk import cluster, job

distributed = pytest.importorskip("distributed")
# distributed leaves sockets and files to the collector.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def scheduler():
    """The address of a scheduler with two workers."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as started:
        yield started.scheduler_address


def test_a_cluster_writes_the_files_that_threads_write(
    score, mixed, tmp_path, scheduler, monkeypatch
):
    there = ["--engine", "dask", "--scheduler", scheduler]
    monkeypatch.setattr(job, "ROWS", 100)
    assert score(mixed / "my.csv", "-o", "one.parquet", "--explain", 2)[0] == 0
    code, said = score(mixed / "my.csv", "-o", "two.parquet", "--explain", 2, *there)
    assert (code, said.startswith("600 rows in ")) == (0, True)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()

    assert score(mixed / "my.csv", "-o", f"{tmp_path}/out/", *there)[0] == 0
    assert score(mixed / "my.csv", "-o", "my.csv")[0] == 0
    assert (tmp_path / "out/my.csv").read_bytes() == (tmp_path / "my.csv").read_bytes()

    (tmp_path / "bad.csv").write_text((mixed / "my.csv").read_text().replace("A00123,", "A,lots"))
    code, said = score("bad.csv", "-o", "no.csv", *there)
    assert (code, said.startswith("isoserve: bad.csv, row 123 (the first is 0), column 1")) == (
        1,
        True,
    )


def test_where_no_scheduler_is_the_command_ends_with_a_sentence(score, mixed, monkeypatch):
    monkeypatch.setattr(cluster, "_WAIT", 0.2)
    nowhere = ["--engine", "dask", "--scheduler", "tcp://127.0.0.1:9"]
    code, said = score(mixed / "my.csv", "-o", "out.csv", *nowhere)
    expected = "isoserve: there is no Dask scheduler at tcp://127.0.0.1:9 ("
    assert (code, said.startswith(expected)) == (1, True)
