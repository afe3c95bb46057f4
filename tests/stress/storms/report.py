"""The report of a storm, and checks that several storms share."""

import time
from dataclasses import dataclass, field

import numpy as np

from service.state.records import open_records
from tests.support.running import find_traceback


@dataclass
class Report:
    """The counts and faults of a storm."""

    name: str
    sent: int = 0
    acknowledged: int = 0
    counted: int = 0
    broken: int = 0
    broken_counted: int = 0
    worst_wait: float = 0.0
    """Longest time in seconds from a kill to the first answer to a request sent after it."""
    faults: list = field(default_factory=list)

    def check(self, true, fault):
        if not true:
            self.faults.append(fault)

    def note_wait(self, killed, times):
        """Note the time from a kill to the first answer to a request sent after it.

        `times` has (sent, answered) of each request, in seconds of the same clock as `killed`.
        """
        waits = [answered - killed for sent, answered in times if sent > killed]
        self.check(waits, "no answer after a kill")
        self.worst_wait = max(self.worst_wait, min(waits, default=0.0))


def check_records(report, model, service):
    """Check that the score of every recorded row belongs to its values."""
    rows = open_records(service.state).read()
    right = np.array_equal(model.scorer.decision_function(rows["values"]), rows["score"])
    report.check(len(rows) and right, "a recorded row is incomplete")
    return rows


def check_drift(report, model, service):
    """Check that every worker soon reports the drift computed from the record."""
    drift = model.baseline.measure(open_records(service.state).scored_by)
    expected = drift.features | {"": drift.score}
    limit = time.monotonic() + 15
    while read_drift(service) != expected and time.monotonic() < limit:
        time.sleep(0.1)
    said = [read_drift(service) for _ in range(12)]
    report.check(len(expected) == 3 and all(one == expected for one in said), "drift is wrong")


def read_drift(service):
    """Return the drift of each feature in /metrics; that of the score has the key ''."""
    return {
        dict(labels).get("feature", ""): value
        for (name, labels), value in service.scrape().items()
        if name.endswith("drift_psi")
    }


def check_log(report, service):
    log = service.log.read_text()
    report.check("quarantined" not in log and "damaged" not in log, "a state file was damaged")
    report.check(not find_traceback(service.log), "the log has a traceback")
