"""Hostile, crafted and damaged model files, for `make torture`."""

import pickle
import time
from pathlib import Path

import numpy as np
from sklearn.ensemble import IsolationForest

from service.errors import BadModel
from service.model.file import load_model, open_model, read_model_file
from tests.support import hostile
from tests.support.tally import Tally

FORESTS = Path(__file__).parents[1] / "data" / "forests"
PATIENCE = 5.0
"""Seconds that no file may take, whatever is in it."""


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
    load_model(FORESTS / "plain-1.9.1.pickle")  # which compiles the walk, if nobody has yet
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
