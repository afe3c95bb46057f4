"""Do to isoserve what nobody should, and count what held.

    python -m tests.stress            an hour or two
    python -m tests.stress --tenth    a tenth of it
    python -m tests.stress slow       the section of that name alone

Each section tries many things of one kind and returns a `Tally`. To add one, write a function that
takes a folder of its own and the amounts it stands for, and name it in SECTIONS.
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

from tests.stress.files import torture_attacks, torture_crafted, torture_mutations, torture_torn
from tests.stress.http import (
    torture_api,
    torture_bodies,
    torture_edge,
    torture_framing,
    torture_fuzz,
    torture_labels,
    torture_overload,
    torture_slow,
    torture_stops,
)
from tests.stress.reloads import torture_flips, torture_kills, torture_refusals, torture_swaps

SECTIONS = {
    torture_attacks: {},
    torture_crafted: {"files": 10_000},
    torture_torn: {"files": 200},
    torture_mutations: {"files": 4000},
    torture_swaps: {"swaps": 20},
    torture_flips: {"flips": 1000},
    torture_kills: {"rounds": 10},
    torture_refusals: {"files": 100},
    torture_bodies: {"bodies": 10_000},
    torture_framing: {},
    torture_edge: {},
    torture_labels: {"requests": 10_000},
    torture_fuzz: {"seconds": 600},
    torture_overload: {"seconds": 30},
    torture_stops: {"stops": 20},
    torture_slow: {"clients": 200},
    torture_api: {"cases": 2000},
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
    parser.add_argument("section", nargs="*", help="only these")
    options = parser.parse_args()
    share = 0.1 if options.tenth else 1.0
    chosen = [one for one in SECTIONS if one.__name__.split("_", 1)[1] in options.section]
    table = Table("section", "tried", "held", "longest", "found", "verdict", box=None)
    failed = False
    for section in chosen or SECTIONS:
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
