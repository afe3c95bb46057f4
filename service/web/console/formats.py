"""Numbers and times as people read them, for the templates."""

import math
import time
from datetime import UTC, datetime

NONE, MINUS = "\u2013", "\u2212"
"""What is shown where there is no value, and a minus sign as wide as a plus."""

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, and whole numbers whole.

    >>> number(1234567), number(0.012345), number(1234.5), number(0.5)
    ('1,234,567', '0.0123', '1,234', '0.5')
    """
    if value is None or math.isnan(value):
        return NONE
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 10 ** (digits - 1)):
        text = f"{int(value):,}"
    elif abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", MINUS) if "e" not in text else text


def share(value: float | None, digits: int = 2) -> str:
    """Return a share (0 to 1) in percent.

    >>> share(0.01234), share(1)
    ('1.2 %', '100 %')
    """
    if value is None or math.isnan(value):
        return NONE
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 99.95 or not percent else f"{percent:.{digits}g} %"


def seconds(value: float | None) -> str:
    """Return a duration of seconds.

    >>> seconds(0.00042), seconds(0.025), seconds(1.5)
    ('0.42 ms', '25 ms', '1.5 s')
    """
    if value is None:
        return NONE
    return f"{number(value)} s" if value >= 1 else f"{number(1000 * value)} ms"


def when(value: float | None) -> str:
    """Return a time, in seconds since 1970, in UTC.

    >>> when(0)
    '1970-01-01 00:00:00'
    """
    return NONE if value is None else f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S}"


def ago(value: float | None) -> str:
    """Return how long ago a time was, in its largest unit."""
    if value is None:
        return NONE
    passed = max(0, int(time.time() - value))
    for unit, length in _UNITS:
        if passed >= length:
            count = passed // length
            return f"{count} {unit}{'s' if count != 1 else ''} ago"
    return "now"
