"""Files of millions of rows: against pandas with scikit-learn, on threads and on Dask; memory."""

from __future__ import annotations

import importlib.util
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from service.bulk.job import Job, score_file
from service.bulk.scorer import BatchScorer
from service.bulk.threads import Threads
from service.model.content import read_model_file
from service.model.file import open_model
from service.serving.detector import Detector

from .forests import Subject, subject
from .measure import Absent, AtMost, Figure, Ratio, Result, in_turns, peak_memory, seconds

MEGABYTES = 350
"""The most that a process may have resident, whatever the number of rows."""

_PROGRAM = """
import sys
sys.argv[0] = "isoserve"
from service.__main__ import cli
cli(sys.argv[1:], standalone_mode=False)
"""


def run(short: bool, millions: float = 10) -> Iterator[Result]:
    """Score a Parquet file of two columns, and write it with the scores beside them."""
    n, rounds = (200_000, 2) if short else (int(millions * 1e6), 3)
    with tempfile.TemporaryDirectory(prefix="bulk-") as name:
        bench = Bench(Path(name), n)
        assert bench.equal()
        what = f"Parquet file of {n:,} x 2"
        times = in_turns(rounds, bench.threads(1), bench.pandas)
        yield Ratio(f"{what}, one thread", "pandas and scikit-learn", *times, target=5)
        times = in_turns(rounds, bench.threads(2), bench.threads(1))
        yield Ratio(f"{what}, two threads", "one thread", *times, target=1.7)
        yield from _coniferest(bench, what, rounds)
        for rows in [n // 10, n] if short else [n // 10, n, 5 * n]:
            value = bench.megabytes(rows)
            yield AtMost(f"memory of the command, {rows:,} rows", value, MEGABYTES, "MB")
        yield from _dask(bench, what, rounds)


class Bench:
    """A forest, a table, and the ways to score it."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.subject = folder, subject("small")
        self.model = folder / "model.pickle"
        self.model.write_bytes(pickle.dumps(self.subject.forest, protocol=5))
        self.table = self.write(n)
        self.file = read_model_file(self.model)
        self.scorer = BatchScorer.one_thread(Detector(open_model(self.file)))

    def write(self, n: int) -> Path:
        """Write a table of n rows, a million at a time."""
        path, chance = self.folder / f"{n}.parquet", np.random.default_rng(16)
        schema = pa.schema([("f0", pa.float32()), ("f1", pa.float32())])
        with parquet.ParquetWriter(path, schema) as writer:
            for start in range(0, n, 1_000_000):
                drawn = chance.lognormal(size=(2, min(1_000_000, n - start))).astype(np.float32)
                writer.write_table(pa.table(list(drawn), schema=schema))
        return path

    def job(self, name: str, threads: int = 1) -> Job:
        """Return the job that writes a file of this name."""
        return Job(self.scorer, str(self.folder / name), threads=threads > 1)

    def threads(self, n: int) -> Callable[[], object]:
        """Return the function that scores the table on n threads."""
        job, engine = self.job("ours.parquet", n), Threads(self.scorer, n)
        return lambda: score_file(job, engine, [str(self.table)], lambda share, rows: None)

    def dask(self, address: str) -> None:
        """Score the table on the cluster at an address."""
        from service.bulk.cluster import score_on_dask

        job, places = self.job("dask.parquet"), [str(self.table)]
        score_on_dask(job, self.file, places, False, address, 0, lambda share, rows: None)

    def pandas(self) -> None:
        """Score the table as many would: all of it at a time, with scikit-learn."""
        frame = pd.read_parquet(self.table)
        scores = self.subject.forest.decision_function(frame.to_numpy())
        frame.assign(score=scores, outlier=(scores < 0).astype(np.int8)).to_parquet(
            self.folder / "theirs.parquet", index=False
        )

    def equal(self) -> bool:
        """Return whether both write the same table, from the first rows of this one."""
        whole, self.table = self.table, self.write(100_000)
        self.threads(2)()
        self.pandas()
        self.table = whole
        ours, theirs = (
            parquet.read_table(self.folder / f"{name}.parquet") for name in ("ours", "theirs")
        )
        return bool(ours.equals(theirs.replace_schema_metadata(None)))

    def megabytes(self, n: int) -> float:
        """Return the most memory that the command has resident for n rows."""
        path, target = self.write(n), self.folder / "measured.parquet"
        command = ["score", str(path), "-o", str(target)]
        peak = peak_memory(_PROGRAM, *command, ISOSERVE_MODEL=str(self.model))
        if path != self.table:
            path.unlink()
        return peak


def _coniferest(bench: Bench, what: str, rounds: int) -> Iterator[Result]:
    if importlib.util.find_spec("coniferest") is None:
        yield Absent(f"{what}, one thread", "coniferest is not installed; `make bench` brings it")
        return
    score = coniferest(bench.subject)

    def theirs() -> None:
        source = parquet.ParquetFile(bench.table)
        schema = source.schema_arrow.append(pa.field("score", pa.float64()))
        with parquet.ParquetWriter(bench.folder / "coniferest.parquet", schema) as writer:
            for batch in source.iter_batches(2**18):
                rows = np.column_stack([column.to_numpy() for column in batch.columns])
                columns = [*batch.columns, pa.array(np.asarray(score(rows), np.float64))]
                writer.write_table(pa.table(columns, schema=schema))

    times = in_turns(rounds, bench.threads(1), theirs)
    yield Ratio(f"{what}, one thread", "pyarrow and coniferest, a forest of its own", *times)


def coniferest(found: Subject) -> Callable[[np.ndarray], np.ndarray]:
    """Fit coniferest's own forest of the same size, on one thread; its scores are different."""
    from coniferest.isoforest import IsolationForest

    forest = IsolationForest(n_trees=100, n_subsamples=256, random_seed=16, n_jobs=1)
    score: Callable[[np.ndarray], np.ndarray] = forest.fit(
        found.rows[:50_000].astype(np.float64)
    ).score_samples
    return score


def _dask(bench: Bench, what: str, rounds: int) -> Iterator[Result]:
    if importlib.util.find_spec("distributed") is None:
        yield Absent(f"{what}, Dask", "distributed is not installed; `make bench` brings it")
        return
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options, memory_limit=0) as cluster, Client(cluster):
        address = cluster.scheduler_address
        times = in_turns(rounds, lambda: bench.dask(address), bench.threads(2))
        yield Ratio(f"{what}, two Dask workers", "two threads", *times)

    bench.table = bench.folder / "100000.parquet"

    def started() -> None:
        with LocalCluster(**options, memory_limit=0) as cluster, Client(cluster):
            bench.dask(cluster.scheduler_address)

    took = median(seconds(started) for _ in range(rounds - 1))
    yield Figure("Parquet file of 100,000 x 2, two Dask workers and their start", f"{took:.1f} s")
