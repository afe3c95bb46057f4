"""Cause faults in a real service under load, and compare its counts with the clients' answers.

    python -m tests.stress.storms            some minutes
    python -m tests.stress.storms --tenth    a tenth of it

Each storm prints what was sent, what was acknowledged with a 200, and what the service counted.
A request whose connection broke may or may not have been counted. The clients' batches have 1, 2,
4, 8, ... rows, and the counts are read after every kill, so the sum shows which were counted.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.support.running import Service

from .feedback import (
    storm_feedback_full,
    storm_feedback_group,
    storm_feedback_locked,
    storm_feedback_many,
    storm_feedback_repeats,
    storm_feedback_workers,
)
from .model import Model
from .predictions import (
    storm_clock,
    storm_disk,
    storm_group,
    storm_restarts,
    storm_rows,
    storm_workers,
)

STORMS = {
    storm_workers: {"kills": 100},
    storm_group: {"kills": 30},
    storm_disk: {"predictions": 1000},
    storm_clock: {"seconds": 10},
    storm_restarts: {"restarts": 5},
    storm_rows: {"rows": 200_000},
    storm_feedback_workers: {"kills": 100},
    storm_feedback_group: {"kills": 30},
    storm_feedback_repeats: {"messages": 10_000},
    storm_feedback_many: {"labels": 100_000},
    storm_feedback_locked: {"seconds": 30},
    storm_feedback_full: {"seconds": 10},
}


def run(storm, share=1.0, **more):
    """Run a storm, or a share of it, and return its report; stop all its services."""
    started = []
    with tempfile.TemporaryDirectory() as folder:

        def start(again=None, **settings):
            """Start a service; `again` gives a stopped one whose folder and port to use."""
            if again:
                settings = {"port": again.port, "state_dir": again.state} | settings
            state = Path(settings.pop("state_dir", Path(folder) / "state"))
            log = Path(folder) / "service.log"
            service = Service(model.path, log, state_dir=state, log_level="WARNING", **settings)
            service.state = state
            started.append(service)
            service.wait_until_ready()
            return service

        model = Model(Path(folder))
        amounts = {name: max(1, int(n * share)) for name, n in STORMS[storm].items()}
        try:
            return storm(model, start, **amounts, **more)
        finally:
            for service in started:
                service.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tenth", action="store_true", help="run a tenth of each amount")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="only storms whose name contains WORD"
    )
    arguments = parser.parse_args()
    share = 0.1 if arguments.tenth else 1.0
    table = Table(
        "storm", "rows sent", "acknowledged", "counted", "connections broken", "of them counted",
        "longest wait", "verdict", box=None,
    )  # fmt: skip
    faults = []
    for storm in (storm for storm in STORMS if arguments.only in storm.__name__):
        started = time.monotonic()
        report = run(storm, share)
        report.check(report.worst_wait < 1.0, "no answer within a second of a kill")
        print(f"{report.name}: {time.monotonic() - started:.0f} s", flush=True)
        numbers = report.sent, report.acknowledged, report.counted
        faults += [f"{report.name}: {fault}" for fault in report.faults]
        table.add_row(
            report.name, *(f"{n:,}" for n in numbers), str(report.broken),
            str(report.broken_counted),
            f"{report.worst_wait:.3f} s" if report.worst_wait else "",
            "WRONG" if report.faults else "exact",
        )  # fmt: skip
    Console(width=140).print(table)
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
