"""Measure drift in one worker every few seconds, and show the latest result in all."""

import logging
import math
import threading
import time
from collections.abc import Callable

from ..model.baseline import Baseline, Drift, Read
from ..state.double_buffer import DoubleBuffer
from ..state.shared import MappedFile

# Seconds between two measurements, and the age at which a result is no longer shown.
_EVERY, _STALE = 5.0, 60.0

# Index of each number in the shared buffer; index 0 is its sequence number.
_VERSION, _MEASURED, _ROWS, _SCORE, _FEATURES = range(1, 6)

logger = logging.getLogger(__name__)


class DriftWatch:
    """The drift of the model that is served, measured in one process and read in all.

    The latest result is in memory that is shared with all processes forked later. One of the
    processes that called `begin` holds a lock and measures; when it dies, the kernel releases the
    lock and another process takes it. So all show the same, and no request waits for a measurement.
    A result that is older than a minute, or of another model, is not shown.
    """

    def __init__(self, read: Read, baseline: Callable[[], Baseline | None], features: int) -> None:
        """Prepare to measure the drift from `baseline()`, which is None if the model has no card.

        `features` is the number of features of all models that may be served.
        """
        self._read, self._baseline = read, baseline
        layout = {"kind": "drift", "features": features}
        self._file = MappedFile.anonymous(layout, 8 * DoubleBuffer.words(_FEATURES + features))
        body = memoryview(self._file.memory)[self._file.start :]
        self._buffer = DoubleBuffer(body.cast("q"), body.cast("d"), 0, _FEATURES + features)

    def begin(self) -> None:
        """Start a thread that measures whenever no other process does."""
        threading.Thread(target=self._watch, name="drift", daemon=True).start()

    def latest(self) -> Drift:
        """Return the latest drift of the current model; an empty one if there is none."""
        baseline = self._baseline()
        words, floats = self._buffer.read()
        age = time.monotonic_ns() - words[_MEASURED]
        if baseline is None or words[_VERSION] != int(baseline.version, 16) or age > _STALE * 1e9:
            return Drift()
        score = None if math.isnan(floats[_SCORE]) else floats[_SCORE]
        indices = zip((c.name for c in baseline.columns), floats[_FEATURES:], strict=True)
        known = {name: index for name, index in indices if not math.isnan(index)}
        return Drift(words[_ROWS], score, known)

    def measure(self) -> None:
        """Measure now and publish the result; only one process may do so at a time."""
        baseline = self._baseline()
        if baseline is None:
            return
        drift = baseline.measure(self._read)
        words, floats, start = self._buffer.begin()
        words[start + _VERSION] = int(baseline.version, 16)
        words[start + _MEASURED] = time.monotonic_ns()
        words[start + _ROWS] = drift.rows
        floats[start + _SCORE] = math.nan if drift.score is None else drift.score
        for i, column in enumerate(baseline.columns, start + _FEATURES):
            floats[i] = drift.features.get(column.name, math.nan)
        self._buffer.commit()

    def _watch(self) -> None:
        locks = self._file.locks()  # released by the kernel when this process dies
        while True:
            try:
                if locks.acquire(0):
                    self.measure()
            except Exception:  # the next attempt may succeed
                logger.exception("drift cannot be measured")
            time.sleep(_EVERY)
