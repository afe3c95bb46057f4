"""Time and memory to load a forest, which happens once, in the parent of the workers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from service.model.scorer import compile_forest

from .forests import subject
from .measure import Figure, Result, seconds

COMPILE = """
import time
from pathlib import Path
from sklearn.ensemble import IsolationForest

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

before, start = megabytes(), time.perf_counter()
from service.model import kernels
imported = time.perf_counter()
kernels.kernels(kernels.COMPACT)
took = time.perf_counter() - imported
print(f"import {imported - start:.2f} s, compile {took:.2f} s, {megabytes() - before:.0f} MB")
"""


def run(short: bool) -> Iterator[Result]:
    """Compile the kernels without and with cached machine code, and lay out each forest."""
    with tempfile.TemporaryDirectory() as cache:
        for state in ("nothing on disk", "from the cache"):
            done = subprocess.run(
                [sys.executable, "-c", COMPILE],
                env=os.environ | {"NUMBA_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                check=True,
            )
            yield Figure(f"compile the kernels, {state}", done.stdout.strip())
    for name in ["small"] if short else ["small", "seldon", "wide", "deep"]:
        yield lay_out(name)


def lay_out(name: str) -> Figure:
    """Time `compile_forest` when the kernels are compiled already."""
    found = subject(name)
    nodes, lengths = found.compiled.nodes, found.compiled.lengths
    took = seconds(lambda: compile_forest(found.forest))
    size = (nodes.nbytes + lengths.nbytes) / 2**20
    return Figure(f"{name}: lay out {len(nodes):,} nodes", f"{took:.2f} s, {size:.1f} MB")
