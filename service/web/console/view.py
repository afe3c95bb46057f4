"""What a view of the console is: one function that returns plain data, and a template.

The same data are drawn as HTML, and sent as JSON and as CSV.
"""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...serving.feedback import FeedbackMatcher
from ...serving.predictor import Predictor
from ...serving.reload import ModelReloader
from ...settings import Settings
from ...telemetry.history import History
from ...telemetry.readings import Sources
from .access import Access

Query = Mapping[str, str]
"""The options of a URL, or the fields of a form."""

Data = dict[str, Any]
"""Plain data: what JSON has."""


@dataclass(frozen=True)
class Console:
    """What the views read, and what their forms change."""

    settings: Settings
    predictor: Predictor
    matcher: FeedbackMatcher
    reloader: ModelReloader
    readings: Sources
    history: History
    access: Access


@dataclass(frozen=True)
class View:
    """One view: it has a URL, a template of the same name, and the same data as JSON and CSV."""

    name: str
    title: str
    read: Callable[[Console, Query], Data]
    """Returns the data for a query; raises BadInput for one that makes no sense."""
    table: str
    """Which part of the data is the CSV: a list of flat objects."""
    act: Callable[[Console, Query], str] | None = None
    """Handles a form and returns the query of the view to show next, such as 'row=2'."""
    helpers: Mapping[str, Any] = field(default_factory=dict)
    """What else its template uses: functions that turn the data into what a chart draws."""


def encode_csv(rows: list[Data]) -> str:
    """Return flat objects as CSV with a line of names: those of all objects.

    A text that a spreadsheet would take for a formula gets an apostrophe in front of it.

    >>> encode_csv([{"a": 1, "b": "x,y"}, {"a": None, "b": "=1"}]).splitlines()
    ['a,b', '1,"x,y"', ",'=1"]
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_harmless(name) for name in names])
    writer.writerows([_harmless(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def _harmless(cell: Any) -> Any:
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{cell}"
    return cell
