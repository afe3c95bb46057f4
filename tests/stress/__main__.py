"""Test isoserve with hostile files, malformed requests and overload, and count the failures.

    python -m tests.stress            half an hour
    python -m tests.stress --tenth    a tenth of it
    python -m tests.stress slow       only the section of that name

Each section tries many inputs of one kind and returns a `Tally`. To add one, write a function that
takes a temporary folder and its amounts as arguments, and list it in SECTIONS.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.stress.files import stress_attacks, stress_crafted, stress_mutations, stress_torn
from tests.stress.http import (
    stress_bodies,
    stress_edge,
    stress_framing,
    stress_fuzz,
    stress_labels,
    stress_overload,
    stress_slow,
    stress_stops,
)
from tests.stress.reloads import stress_flips, stress_kills, stress_refusals, stress_swaps
from tests.stress.replicas import stress_replicas
from tests.stress.slow import stress_silent
from tests.stress.state import stress_state

SECTIONS = {
    stress_attacks: {},
    stress_crafted: {"files": 10_000},
    stress_torn: {"files": 200},
    stress_mutations: {"files": 4000},
    stress_state: {"damages": 1000},
    stress_swaps: {"swaps": 20},
    stress_flips: {"flips": 1000},
    stress_kills: {"rounds": 10},
    stress_refusals: {"files": 100},
    stress_bodies: {"bodies": 10_000},
    stress_framing: {},
    stress_edge: {},
    stress_labels: {"requests": 10_000},
    stress_fuzz: {"seconds": 600},
    stress_overload: {"seconds": 30},
    stress_stops: {"stops": 20},
    stress_slow: {"clients": 200},
    stress_silent: {"seconds": 600},
    stress_replicas: {"rolls": 2},
}
"""Each section and its full amounts; a section without amounts always runs in full."""


def run(section, share=1.0):
    """Run a section, or a share of it, and return its tally."""
    amounts = {name: max(1, round(n * share)) for name, n in SECTIONS[section].items()}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hostile files make numpy warn
        return section(Path(folder), **amounts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tenth", action="store_true", help="run a tenth of each amount")
    names = {section.__name__.removeprefix("stress_"): section for section in SECTIONS}
    parser.add_argument("section", nargs="*", help=f"only these: {', '.join(names)}")
    options = parser.parse_args()
    logging.getLogger("service").setLevel(logging.ERROR)
    share = 0.1 if options.tenth else 1.0
    if unknown := set(options.section) - names.keys():
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(names)}")
    table = Table("section", "tried", "held", "longest", "found", "verdict", box=None)
    failed = False
    for section in map(names.get, options.section or names):
        started = time.monotonic()
        tally = run(section, share)
        failed |= bool(tally.faults)
        print(f"{tally.title}: {time.monotonic() - started:.0f} s", *tally.faults[:20], sep="\n  ")
        sys.stdout.flush()
        table.add_row(
            tally.title, f"{tally.tried:,}", f"{tally.held:,}", f"{tally.worst:.2f} s",
            ", ".join(f"{what} {n:,}" for what, n in tally.found.most_common()),
            tally.verdict,
        )  # fmt: skip
    Console(width=160).print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
