"""All that is looked at, in the order in which a start would meet it."""

from collections.abc import Callable
from pathlib import Path

from ..capacity import ROOT
from ..errors import count
from .compose import look_at_compose
from .host import (
    look_at_cache,
    look_at_limits,
    look_at_memory,
    look_at_variables,
    look_at_versions,
)
from .report import Finding, Report
from .start import (
    look_at_clock,
    look_at_folder,
    look_at_model,
    look_at_port,
    look_at_settings,
    look_at_space,
    look_at_state,
)


def examine(
    checkout: Path, tell: Callable[[Finding], None] = lambda finding: None, root: Path = ROOT
) -> Report:
    """Look at everything with this process's variables, and report it.

    Nothing is changed. `tell` is called with each finding; `root` is where /proc and /sys are.
    """
    report = Report(tell)
    look_at_versions(report)
    look_at_variables(report)
    settings = look_at_settings(report)
    if settings is not None:
        runs = look_at_folder(report, settings, root)
        look_at_port(report, settings, bool(runs))
        has_room = look_at_memory(report, settings, root)
        sizes: dict[str, int] = {}
        if has_room and (loaded := look_at_model(report, settings)):
            look_at_cache(report, loaded.detector.model.scorer)
            if runs is not None:
                sizes = look_at_state(report, settings, loaded)
                look_at_space(report, settings.state_dir, sizes)
        look_at_clock(report, settings)
        look_at_limits(report, settings, sizes, root)
    look_at_compose(report, checkout)
    return report


def show(finding: Finding) -> str:
    """Return the line of a finding.

    >>> show(Finding("ok", "port", "8000 is free"))
    'ok       port       8000 is free'
    """
    return f"{finding.level:<8} {finding.subject:<10} {finding.text}"


def summarize(report: Report) -> str:
    """Return the last line."""
    faults, warnings = report.count("fault"), report.count("warning")
    if not faults and not warnings:
        return "Everything is as it should be."
    return f"{count(faults, 'fault')} and {count(warnings, 'warning')}."
