"""Drift: how far recent rows have moved from the training rows, as population stability indices.

The index of a column compares the shares of its values in some bins, training (expected) against
recent (actual): the sum of (actual - expected) * ln(actual / expected). 0 is the same distribution;
by custom 0.1 is worth a look and 0.25 is another population. Without any drift it is about the
number of bins divided by the number of rows.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from ..model.baseline import Baseline, Drift, Read
from ..state.shared import DoubleBuffer, MappedFile

# Seconds from one measurement to the next, and until one is too old to be shown.
_EVERY, _STALE = 5.0, 60.0

# The numbers that are shared, by place in a copy of their cell; place 0 is the sequence.
_VERSION, _MEASURED, _ROWS, _SCORE, _FEATURES = range(1, 6)


logger = logging.getLogger(__name__)


class DriftWatch:
    """The drift of the model being served, measured in one process and read in all.

    The latest figures lie in memory that is shared with the processes forked after this object was
    made. One of those that have begun to watch holds a lock and measures every few seconds; when it
    dies, the kernel gives the lock to another. So every process tells the same, and none measures
    while it answers. Figures of another model than the reader's, or of a minute ago, are not shown.
    """

    def __init__(self, read: Read, baseline: Callable[[], Baseline | None], features: int) -> None:
        """Watch the drift from `baseline()`, that of the current model, of so many features.

        It is None where training's quantiles are not known.
        """
        self._read, self._baseline = read, baseline
        layout = {"kind": "drift", "features": features}
        self._file = MappedFile.anonymous(layout, 8 * DoubleBuffer.words(_FEATURES + features))
        body = memoryview(self._file.memory)[self._file.start :]
        self._cell = DoubleBuffer(body.cast("q"), body.cast("d"), 0, _FEATURES + features)

    def begin(self) -> None:
        """Measure from now on, in a thread of this process, unless another process does."""
        threading.Thread(target=self._watch, name="drift", daemon=True).start()

    def latest(self) -> Drift:
        """Return the latest drift of the current model; an empty one while there is none."""
        baseline = self._baseline()
        words, floats = self._cell.read()
        age = time.monotonic_ns() - words[_MEASURED]
        if baseline is None or words[_VERSION] != int(baseline.version, 16) or age > _STALE * 1e9:
            return Drift()
        score = None if math.isnan(floats[_SCORE]) else floats[_SCORE]
        indices = zip(baseline.features, floats[_FEATURES:], strict=True)
        known = {name: index for name, index in indices if not math.isnan(index)}
        return Drift(words[_ROWS], score, known)

    def measure(self) -> None:
        """Measure now, and let every process know; for one process at a time."""
        baseline = self._baseline()
        if baseline is None:
            return
        drift = baseline.measure(self._read)
        words, floats, place = self._cell.begin()
        words[place + _VERSION] = int(baseline.version, 16)
        words[place + _MEASURED] = time.monotonic_ns()
        words[place + _ROWS] = drift.rows
        floats[place + _SCORE] = math.nan if drift.score is None else drift.score
        for i, name in enumerate(baseline.features, place + _FEATURES):
            floats[i] = drift.features.get(name, math.nan)
        self._cell.commit()

    def _watch(self) -> None:
        locks = self._file.locks()  # released by the kernel when this process dies
        while True:
            try:
                if locks.take(0):
                    self.measure()
            except Exception:  # what is wrong now may be right in a while
                logger.exception("drift cannot be measured")
            time.sleep(_EVERY)
