"""Run benchmarks, print a table and write it to a file."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import median

from . import (
    bulk,
    columns,
    contributions,
    fitting,
    loading,
    peers,
    references,
    scoring,
    training,
    web,
)
from .measure import Absent, AtMost, Family, Ratio, Result

# Each family is a module with a function `run`.
FAMILIES: dict[str, Family] = {
    "scoring": scoring.run,
    "references": references.run,
    "contributions": contributions.run,
    "fitting": fitting.run,
    "training": training.run,
    "loading": loading.run,
    "columns": columns.run,
    "bulk": bulk.run,
    "web": web.run,
    "peers": peers.run,
}

# These need separate environments and run only when named.
APART = {"peers"}

HEADER = """# Benchmarks

`make bench` writes this page. The two sides of a row were timed in turns, in several rounds of one
run. Times are medians. A ratio says how many times faster isoserve ("ours") was: the median of the
rounds, with the middle half of them in brackets. "Hot" is the median of 200 consecutive calls of
ours for one of theirs. "In turns" is one call each, so each side finds the caches as the other
left them. Times depend on this machine and its load at the time; ratios are more portable.
"""

COLUMNS = ["what", "ours", "against", "theirs", "ratio", "target"]


def main() -> None:
    """Run the families that the command line names, by default all that need no environment."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("families", nargs="*", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument(
        "--short", action="store_true", help="run for half a minute, only as a check"
    )
    parser.add_argument("--output", type=Path, help="the Markdown file to write")
    options = parser.parse_args()
    table = [COLUMNS, ["---"] * len(COLUMNS)]
    for name in options.families or [name for name in FAMILIES if name not in APART]:
        for result in FAMILIES[name](options.short):
            table.append(cells(result))
            print("  ".join(f"{cell:<12}" for cell in table[-1]), flush=True)
    lines = [HEADER, *machine(), "", *(f"| {' | '.join(row)} |" for row in table)]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cells(result: Result) -> list[str]:
    """Return a result as a row of the table."""
    if isinstance(result, Ratio):
        lower, upper = result.spread
        target = "" if result.target is None else f"at least {result.target:,g}"
        return [
            result.what,
            duration(median(result.ours)),
            result.other,
            duration(median(result.theirs)),
            f"**{short(result.value)}** ({short(lower)} to {short(upper)})",
            target if result.met else f"{target}, missed",
        ]
    if isinstance(result, AtMost):
        target = f"at most {result.target:g} {result.unit}" + ("" if result.met else ", missed")
        return [result.what, f"**{result.value:.3g}** {result.unit}", "", "", "", target]
    if isinstance(result, Absent):
        return [result.what, "", "", "", result.reason, ""]
    return [result.what, result.value, "", "", "", ""]


def short(ratio: float) -> str:
    """Return a ratio with three digits, or as a whole number from 100 on.

    >>> short(1.2345), short(12.345), short(1234.5)
    ('1.23', '12.3', '1,234')
    """
    return f"{ratio:.3g}" if ratio < 100 else f"{ratio:,.0f}"


def duration(seconds: float) -> str:
    """Return a time with three digits and its unit.

    >>> duration(0.00123456)
    '1.23 ms'
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def machine() -> list[str]:
    """Describe the processor and the versions, without any name or address of the machine."""
    libraries = ["scikit-learn", "numpy", "numba"]
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return [
        f"{processor()}, {os.cpu_count()} processors (shared with other work), "
        f"{platform.system()}; Python {platform.python_version()}, {versions}."
    ]


def processor() -> str:
    """Return the processor's model name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
