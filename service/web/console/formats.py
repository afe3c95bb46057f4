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


def ago(value: float | None) -> str:
    """Return how long ago a time, in seconds since 1970, was, in its largest unit."""
    if value is None:
        return NONE
    passed = max(0, int(time.time() - value))
    for unit, length in _UNITS:
        if passed >= length:
            number_of = passed // length
            return f"{number_of} {unit}{'s' if number_of != 1 else ''} ago"
    return "now"
