"""Numbers and times as people read them, for the templates."""

import math
import time
from datetime import UTC, datetime

from . import charts

NONE, MINUS = "\u2013", "\u2212"
"""What is shown where there is no value, and a minus sign as wide as a plus."""

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def number(value: float | None) -> str:
    """Return a number with four significant digits, and a whole number whole.

    >>> number(1234567), number(0.0123456), number(None) == NONE
    ('1,234,567', '0.01235', True)
    """
    if value is None or math.isnan(value):
        return NONE
    text = f"{value:,}" if isinstance(value, int) else charts.number(value)
    return text if "e" in text else text.replace("-", MINUS)


def flag_words(of_type: str) -> tuple[str, str]:
    """Return how the two values of a flag are shown, by the type of its cells in training.

    >>> flag_words("bool"), flag_words("int")
    (('no', 'yes'), ('0', '1'))
    """
    return ("no", "yes") if of_type == "bool" else ("0", "1")


def cells(count: int) -> str:
    """Return a number of cells.

    >>> cells(1), cells(2000)
    ('1 cell', '2,000 cells')
    """
    return f"{count:,} cell{'' if count == 1 else 's'}"


def rate(value: float | None) -> str:
    """Return how many a second, with three significant digits.

    >>> rate(151.96), rate(3.9991)
    ('152', '4')
    """
    return number(None if value is None else float(f"{value:.3g}"))


def share(value: float | None) -> str:
    """Return a share (0 to 1) in percent, with three significant digits.

    >>> share(0.01234)
    '1.23 %'
    """
    return NONE if value is None or math.isnan(value) else charts.percent(value)


def seconds(value: float | None) -> str:
    """Return a duration in seconds.

    >>> seconds(0.00042), seconds(0.025), seconds(1.5)
    ('0.42 ms', '25 ms', '1.5 s')
    """
    if value is None:
        return NONE
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def when(value: float | None) -> str:
    """Return a time, in seconds since 1970, in UTC.

    >>> when(0)
    '1970-01-01 00:00:00'
    """
    return NONE if value is None else f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S}"


def span(value: float) -> str:
    """Return a duration, in seconds, in the largest unit of which it has one; cut, not rounded.

    >>> span(7300), span(1), span(0.3)
    ('2 hours', '1 second', 'less than a second')
    """
    for unit, length in _UNITS:
        if value >= length:
            number_of = int(value // length)
            return f"{number_of:,} {unit}{'s' if number_of != 1 else ''}"
    return "less than a second"


def ago(value: float | None) -> str:
    """Return how long ago a time, in seconds since 1970, was, in its largest unit."""
    if value is None:
        return NONE
    passed = time.time() - value
    return f"{span(passed)} ago" if passed >= 1 else "now"
