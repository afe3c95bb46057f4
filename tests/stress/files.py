"""Hostile, crafted and damaged model files."""

import pickle
import time
from pathlib import Path

import numpy as np
from sklearn.ensemble import IsolationForest

from service.errors import BadModel
from service.model.content import read_model_file
from service.model.file import load_model, open_model
from tests.support import hostile
from tests.support.tally import Tally

FORESTS = Path(__file__).parents[1] / "data" / "forests"
LIMIT = 5.0
"""The most seconds of processor time that any file may take."""


def small_forest():
    """Return a forest of two trees and two columns; node 1 of the first tree is not a leaf."""
    table = np.random.default_rng(16).lognormal(size=(200, 2))
    return IsolationForest(n_estimators=2, max_samples=32, random_state=16).fit(table)


def every(amount, things):
    """Return `amount` evenly spaced items, or all if there are fewer."""
    things = list(things)
    return things[:: max(1, len(things) // amount)] if amount < len(things) else things


def stress_attacks(folder, files=10_000):
    """Check that pickles with other names than a forest's parts are refused without any effect."""
    sentinel, path = folder / "sentinel", folder / "model.pickle"
    tally = Tally("attack pickles refused")
    for name, content in every(files, hostile.attacks(sentinel)):
        before = sorted(folder.iterdir())
        path.write_bytes(content)
        refusal, seconds = refuse(path)
        path.unlink()
        fault = "" if refusal == "pickle" else f"came as far as {refusal}"
        left = sorted(folder.iterdir())
        if left != before:
            fault = f"left {set(left) ^ set(before)}"
        tally.note(name, fault or late(seconds), seconds, refusal)
    return tally


def stress_crafted(folder, files=10_000):
    """Check that forests that cannot be scored safely, and bombs, are refused before scoring."""
    path = folder / "model.pickle"
    tally = Tally("crafted trees and bombs refused")
    small = small_forest()
    for name, content in every(files, list(_crafted(small))):
        path.write_bytes(content)
        refusal, seconds = refuse(path)
        fault = "was accepted" if refusal is None else ""
        tally.note(name, fault or late(seconds), seconds, refusal)
    return tally


def _crafted(forest):
    """Yield (name, content) of crafted forests in each format, of false arrays, and of bombs."""
    for name, one in hostile.crafted(forest):
        yield name, pickle.dumps(one, 5)
        yield f"{name}, by joblib", hostile.by_joblib(one)
        yield f"{name}, by joblib, compressed", hostile.by_joblib(one, 3)
    yield from hostile.streams(forest)
    yield from hostile.bombs(forest)


def stress_torn(folder, files=200):
    """Check that a real file, truncated at many lengths, is refused."""
    path, small = folder / "model.pickle", small_forest()
    kinds = pickle.dumps(small, 5), hostile.by_joblib(small), hostile.by_joblib(small, 3)
    tally = Tally("truncated and empty files refused")
    for number, share in enumerate(np.linspace(0, 1, files, endpoint=False)):
        content = kinds[number % len(kinds)]
        size = int(share * len(content))
        path.write_bytes(content[:size])
        refusal, seconds = refuse(path)
        fault = "was accepted" if refusal is None else ""
        tally.note(f"{size} bytes", fault or late(seconds), seconds, refusal)
    return tally


def stress_mutations(folder, files=4000):
    """Check that damaged files are refused or have finite scores; with a pin, always refused."""
    path = folder / "model.pickle"
    originals = [file.read_bytes() for file in sorted(FORESTS.glob("*-*.[pj]*"))]
    tally = Tally("mutated real files survived")
    load_model(FORESTS / "plain-1.9.1.pickle")  # compiles the kernels if necessary
    for number, content in enumerate(hostile.mutations(originals, files)):
        path.write_bytes(content)
        started = time.process_time()
        fault, found = "", "scored"
        try:
            model = load_model(path)
            rows = np.random.default_rng(number).lognormal(size=(100, len(model.features)))
            if not np.isfinite(model.scorer.decision_function(rows)).all():
                fault = "scores that are not numbers"
        except BadModel as refusal:
            found = refusal.reason
        seconds = time.process_time() - started
        try:
            pinned = read_model_file(FORESTS / "plain-1.9.1.pickle").sha256
            open_model(read_model_file(path), pinned=pinned)
        except BadModel as refusal:
            fault = fault or ("" if refusal.reason == "sha256" else "not refused by its pin")
        tally.note(f"file {number}", fault or late(seconds), seconds, found)
    return tally


def refuse(path):
    """Return the step at which a file was refused (None: it was not), and the processor time."""
    started = time.process_time()
    try:
        load_model(path)
        reason = None
    except BadModel as refusal:
        reason = refusal.reason
    return reason, time.process_time() - started


def late(seconds):
    return "" if seconds < LIMIT else f"took {seconds:.1f} s"
