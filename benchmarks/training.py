"""Time and memory to train on a Parquet file with more rows than the pool, start-up included."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from .measure import AtMost, Figure, Result, peak_memory

_PIECE = 1_000_000
_TARGET = 700.0  # MB, for 50 million rows of two columns

_PROGRAM = """
import sys
from training.train import main
if code := main():
    sys.exit(code)
"""


def run(short: bool) -> Iterator[Result]:
    """Train on 2 and on 50 million rows of two columns; the memory hardly depends on the rows."""
    for millions in [2] if short else [2, 50]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.parquet"
            _write(path, millions)
            began = time.perf_counter()
            peak = _train(path)
            took = time.perf_counter() - began
        what = f"train on {millions},000,000 x 2 of Parquet"
        yield Figure(f"{what}, the whole command", f"{took:.1f} s")
        yield AtMost(f"{what}, peak memory", peak, _TARGET, "MB")


def _write(path: Path, millions: int) -> None:
    chance = np.random.default_rng(16)
    schema = pa.schema([("mean", pa.float64()), ("sd", pa.float64())])
    with parquet.ParquetWriter(path, schema) as writer:
        for _ in range(millions):
            columns = [chance.lognormal(size=_PIECE) for _ in schema]
            writer.write_table(pa.table(columns, schema=schema))


def _train(path: Path) -> float:
    """Train in a process of its own; return the most memory that it took, in MB (10^6 bytes)."""
    arguments = ["--dataset", str(path), "--contamination", "0.01"]
    arguments += ["--save_path", str(path.parent / "model")]
    return peak_memory(_PROGRAM, *arguments)
