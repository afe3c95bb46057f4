"""A real Dask scheduler and two worker processes, one of which is killed in the middle."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from service.bulk import job as jobs
from service.bulk.job import Job, score_file, score_folder
from service.bulk.scorer import BatchScorer
from service.bulk.threads import Threads
from service.model.content import read_model_file
from service.model.file import open_model
from service.serving.detector import Detector

# distributed leaves sockets and files to the collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("distributed")

FILES, ROWS = 12, 20_000


@pytest.fixture
def cluster(tmp_path):
    """The scheduler's address, and its two workers' processes."""
    found = str(tmp_path / "scheduler.json")
    plain = ["--scheduler-file", found, "--no-dashboard"]
    worker = ["distributed.cli.dask_worker", *plain, "--nthreads", "1", "--no-nanny"]
    here = ["distributed.cli.dask_scheduler", *plain, "--host", "127.0.0.1", "--port", "0"]
    processes = []
    try:
        for arguments in (here, worker, worker):
            command = [sys.executable, "-m", *arguments]
            log = (tmp_path / f"dask-{len(processes)}.log").open("wb")
            with log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path))
            while not (tmp_path / "scheduler.json").exists():
                assert processes[0].poll() is None
                time.sleep(0.05)
        from distributed import Client

        with Client(scheduler_file=found, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        yield address, processes[1:]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


@pytest.fixture
def tables(tmp_path, write_card):
    """Twelve Parquet files, and a model with a card."""
    write_card()
    folder = tmp_path / "tables"
    folder.mkdir()
    chance = np.random.default_rng(16)
    for i in range(FILES):
        columns = {name: chance.lognormal(size=ROWS) for name in ("mean", "sd")}
        frame = pd.DataFrame({"id": np.arange(ROWS) + i * ROWS, **columns})
        frame.to_parquet(folder / f"{i:02}.parquet", index=False, row_group_size=7_000)
    return folder


@pytest.mark.parametrize("output", ["all.parquet", "out/"])
def test_what_a_killed_worker_had_is_done_again_once(
    cluster, tables, tmp_path, output, monkeypatch
):
    from service.bulk.cluster import score_on_dask

    monkeypatch.setattr(jobs, "ROWS", 1_000)
    address, workers = cluster
    file = read_model_file(tmp_path / "model.pickle")
    scorer = BatchScorer.one_thread(Detector(open_model(file), 0.0), explain=2)
    places = sorted(map(str, tables.iterdir()))
    killed = []

    def kill_one(share, rows):
        if not killed:
            workers[0].kill()
            killed.append((share, workers[0].wait()))

    there = Job(scorer, f"{tmp_path}/{output}")
    totals = score_on_dask(there, file, places, False, address, 0, kill_one)
    assert 0 < killed[0][0] < 1  # in the middle
    assert workers[1].poll() is None

    monkeypatch.setattr(jobs, "ROWS", 8_000)
    here = Job(scorer, str(tmp_path / "here") + ("/" if output.endswith("/") else ".parquet"))
    engine = Threads(scorer, 1)
    if here.is_folder:
        expected = score_folder(here, engine, places, False, lambda share, rows: None)
    else:
        expected = score_file(here, engine, places, lambda share, rows: None)
    assert (totals, totals.rows) == (expected, FILES * ROWS)
    assert read(tmp_path / output).equals(read(tmp_path / here.output))
    assert not list(tmp_path.rglob("*.part"))


def read(path):
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return pa.concat_tables([parquet.read_table(file) for file in files])
