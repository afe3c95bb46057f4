"""Do to isoserve what nobody should, and count what held.

    python tests/torture.py            minutes
    python tests/torture.py --tenth    a tenth of it

Each section tries many things of one kind and returns a `Tally`. To add one, write a function that
takes a folder of its own and the amounts it stands for, and name it in SECTIONS.
"""

import argparse
import logging
import pickle
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import IsolationForest

sys.path.insert(0, str(Path(__file__).parents[1]))

import hostile

from service.artifact import load_model, open_model, read_model_file
from service.errors import BadModel

FORESTS = Path(__file__).parent / "data" / "forests"
PATIENCE = 5.0
"""Seconds that no file may take, whatever is in it."""


@dataclass
class Tally:
    """What came of a section: how much was tried, how much held, and why the rest did not."""

    title: str
    tried: int = 0
    held: int = 0
    found: Counter = field(default_factory=Counter)
    """What was observed, and how often."""
    worst: float = 0.0
    """The longest that one try took, in seconds."""
    faults: list = field(default_factory=list)

    def note(self, name, fault, seconds=0.0, found=None):
        """Take down one try: `fault` is empty where all held."""
        self.tried += 1
        self.worst = max(self.worst, seconds)
        if found:
            self.found[found] += 1
        if fault:
            self.faults.append(f"{name}: {fault}")
        else:
            self.held += 1


def small_forest():
    """Return a forest of two trees over two columns, in whose first tree node 1 is no leaf."""
    table = np.random.default_rng(16).lognormal(size=(200, 2))
    return IsolationForest(n_estimators=2, max_samples=32, random_state=16).fit(table)


def every(amount, things):
    """Return `amount` of some things, evenly spread, or all of them when they are fewer."""
    things = list(things)
    return things[:: max(1, len(things) // amount)] if amount < len(things) else things


def torture_attacks(folder, files=10_000):
    """Pickles that ask for more than a forest's parts: refused, and nothing has happened."""
    sentinel, path = folder / "sentinel", folder / "model.pickle"
    tally = Tally("attack pickles refused")
    for name, content in every(files, hostile.attacks(sentinel)):
        before = sorted(folder.iterdir())
        path.write_bytes(content)
        refusal, seconds = refuse(path)
        path.unlink()
        fault = "" if refusal in ("pickle", "crash") else f"came as far as {refusal}"
        left = sorted(folder.iterdir())
        if left != before:
            fault = f"left {set(left) ^ set(before)}"
        tally.note(name, fault or late(seconds), seconds, refusal)
    return tally


def torture_crafted(folder, files=10_000):
    """Forests of good parts that cannot be walked, and bombs: refused before they are scored."""
    path = folder / "model.pickle"
    tally = Tally("crafted trees and bombs refused")
    forests = ((name, pickle.dumps(one, 5)) for name, one in hostile.crafted(small_forest()))
    for name, content in every(files, [*forests, *hostile.bombs()]):
        path.write_bytes(content)
        refusal, seconds = refuse(path)
        fault = "was let by" if refusal is None else ""
        tally.note(name, fault or late(seconds), seconds, refusal)
    return tally


def torture_torn(folder, files=200):
    """A real file cut anywhere: refused."""
    path, content = folder / "model.pickle", pickle.dumps(small_forest(), 5)
    tally = Tally("truncated and empty files refused")
    for size in np.linspace(0, len(content) - 1, files).astype(int).tolist():
        path.write_bytes(content[:size])
        refusal, seconds = refuse(path)
        fault = "was let by" if refusal is None else ""
        tally.note(f"{size} bytes", fault or late(seconds), seconds, refusal)
    return tally


def torture_mutations(folder, files=4000):
    """Damaged real files: refused, or scored without harm; with the pin, always refused."""
    path = folder / "model.pickle"
    originals = [file.read_bytes() for file in sorted(FORESTS.glob("*.pickle"))]
    tally = Tally("mutated real files survived")
    for number, content in enumerate(hostile.mutations(originals, files)):
        path.write_bytes(content)
        started = time.perf_counter()
        fault, found = "", "scored"
        try:
            model = load_model(path)
            rows = np.random.default_rng(number).lognormal(size=(100, len(model.features)))
            if not np.isfinite(model.scorer.decision_function(rows)).all():
                fault = "scores that are not numbers"
        except BadModel as refusal:
            found = refusal.reason
        seconds = time.perf_counter() - started
        try:
            pinned = read_model_file(FORESTS / "plain-1.9.1.pickle").sha256
            open_model(read_model_file(path), pinned=pinned)
        except BadModel as refusal:
            fault = fault or ("" if refusal.reason == "sha256" else "not told by its pin")
        tally.note(f"file {number}", fault or late(seconds), seconds, found)
    return tally


def refuse(path):
    """Return at which step a file was refused, None if it was not, and after how many seconds."""
    started = time.perf_counter()
    try:
        load_model(path)
        reason = None
    except BadModel as refusal:
        reason = refusal.reason
    return reason, time.perf_counter() - started


def late(seconds):
    return "" if seconds < PATIENCE else f"took {seconds:.1f} s"


SECTIONS = {
    torture_attacks: {},
    torture_crafted: {},
    torture_torn: {"files": 200},
    torture_mutations: {"files": 4000},
}
"""Each section, and what it does in full; a section without amounts is always done in full."""


def run(section, share=1.0):
    """Run a section, or a share of it, and return its tally."""
    amounts = {name: max(1, round(n * share)) for name, n in SECTIONS[section].items()}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what hostile files make numpy say
        logging.getLogger("service").setLevel(logging.ERROR)
        return section(Path(folder), **amounts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tenth", action="store_true", help="a tenth of everything")
    share = 0.1 if parser.parse_args().tenth else 1.0
    table = Table("section", "tried", "held", "longest", "found", "verdict", box=None)
    failed = False
    for section in SECTIONS:
        started = time.monotonic()
        tally = run(section, share)
        failed |= bool(tally.faults)
        print(f"{tally.title}: {time.monotonic() - started:.0f} s", *tally.faults[:20], sep="\n  ")
        sys.stdout.flush()
        table.add_row(
            tally.title, f"{tally.tried:,}", f"{tally.held:,}", f"{tally.worst:.2f} s",
            ", ".join(f"{what} {n:,}" for what, n in tally.found.most_common()),
            "BROKEN" if tally.faults else "held",
        )  # fmt: skip
    Console(width=160).print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
