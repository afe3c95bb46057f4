"""Charts as SVG: pure functions of numbers, drawn by the server.

Every text is escaped. Colours come from the style sheet, by class, so a chart is readable in light,
in dark and on paper. There is no style attribute and no id: the charts obey the content security
policy, and a page may hold any number of them. Each chart has a title and a description for screen
readers, and its parts have titles that a browser shows under the pointer.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from ...rows import Floats

WIDTH = 640
"""The width of a large chart in its own units; the page scales it."""

_AXIS = 24  # height of the axis and its labels
_LONGEST = 24  # the most characters of a label

_SVG = (
    '<svg class="chart %s" viewBox="0 0 %s %s" role="img" aria-label="%s">'
    "<title>%s</title>%s%s</svg>"
)
_DESCRIPTION = "<desc>%s</desc>"
_RECT = '<rect class="%s" x="%s" y="%s" width="%s" height="%s"><title>%s</title></rect>'
_LINE = '<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>'
_PATH = '<path class="%s" d="%s"/>'
_TEXT = '<text class="%s" x="%s" y="%s" text-anchor="%s">%s</text>'
_DOT = '<circle class="%s" cx="%s" cy="%s" r="%s"><title>%s</title></circle>'


class Scale(NamedTuple):
    """Numbers from `low` to `high`, drawn between two coordinates."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value; one beyond an end has that of the end."""
        span = self.high - self.low
        share = (value - self.low) / span if span > 0 else 0.5
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 2)


class Grid(NamedTuple):
    """The scores of a grid of values of two columns."""

    scores: Floats
    """(n, m): the n-th row is the n-th value of the second column, the lowest first."""
    across: tuple[float, float]
    """The lowest and highest value of the first column."""
    upwards: tuple[float, float]
    """The same of the second."""


def histogram(  # noqa: PLR0913 -- two distributions and a line
    edges: Sequence[float],
    recent: Sequence[float],
    training: Sequence[float] | None = None,
    *,
    line: float | None = None,
    marks: Sequence[tuple[float, str]] = (),
    title: str = "Distribution",
    description: str = "",
    height: int = 180,
) -> Markup:
    """Draw the shares of recent rows in some bins, and those of the training rows as a line.

    `edges` (k + 1,) are the limits of the bins; `recent` and `training` (k,) are shares, 0 to 1.
    `line` is a threshold: what is left of it is shaded. `marks` are single values, each with the
    class of its mark, drawn above the axis; those beyond the bins are left out.
    """
    base = height - _AXIS
    x = Scale(edges[0], edges[-1], 4, WIDTH - 4)
    y = Scale(0, 1.06 * max([*recent, *(training or ()), 1e-9]), base, 2)
    parts = []
    if line is not None:
        parts.append(_rect("flagged", x.start, 0, x(line) - x.start, base, "below the threshold"))
    ends = [number(edge) for edge in edges]
    for i, share in enumerate(recent):
        told = f"{ends[i]} to {ends[i + 1]}: {percent(share)} of recent rows"
        told += f", {percent(training[i])} in training" if training else ""
        left, right = x(edges[i]), x(edges[i + 1])
        top = y(share)
        parts.append(_rect("recent", left + 0.5, top, max(right - left - 1, 1), base - top, told))
    if training is not None:
        parts.append(_element(_PATH, "training", _steps(x, y, edges, training)))
    parts += [
        _line(f"mark {kind}", x(value), base - 9, x(value), base)
        for value, kind in marks
        if x.low <= value <= x.high
    ]
    parts += _ticks(x, base, height)
    if line is not None:
        parts.append(_line("threshold", x(line), 0, x(line), base))
    return _svg("histogram", WIDTH, height, title, description, parts)


def pairs(
    labels: Sequence[str],
    recent: Sequence[float],
    training: Sequence[float],
    *,
    title: str = "Distribution",
    description: str = "",
) -> Markup:
    """Draw the shares of the values of a category: recent rows over training, a pair of bars each.

    `recent` and `training` are shares, 0 to 1.
    """
    step, left = 30, 190
    x = Scale(0, max([*recent, *training, 1e-9]), left, WIDTH - 70)
    parts: list[Markup] = []
    for i, (label, now, before) in enumerate(zip(labels, recent, training, strict=True)):
        y = i * step
        told = f"{label}: {percent(now)} of recent rows, {percent(before)} in training"
        parts += [
            _text("label", left - 8, y + 18, label, "end"),
            _rect("recent", left, y + 4, x(now) - left, 12, told),
            _rect("before", left, y + 17, x(before) - left, 6, told),
            _text("value", max(x(now), x(before)) + 6, y + 18, percent(now)),
        ]
    return _svg("pairs", WIDTH, step * max(len(labels), 1), title, description, parts)


def signed_bar(value: float, largest: float, title: str = "") -> Markup:
    """Draw one contribution as a bar from the middle: to the left is more abnormal.

    `largest` is the size of the largest bar beside it.
    """
    x = Scale(-(largest or 1.0), largest or 1.0, 2, 158)
    zero, at = x(0), x(value)
    told = title or number(value)
    kind = "abnormal" if value < 0 else "normal"
    parts = [
        _rect(kind, min(zero, at), 4, abs(at - zero), 12, told),
        _line("axis", zero, 0, zero, 20),
    ]
    return _svg("bar", 160, 20, told, "", parts)


def range_strip(quantiles: Sequence[float], value: float | None, title: str = "") -> Markup:
    """Draw a column's usual range, 5 % to 95 % of the training rows, and a cell as a mark.

    `quantiles` are equally spaced, minimum to maximum. A cell far outside is an arrow at the end;
    None is a missing cell, without a mark.
    """
    low, middle, high = (quantile(quantiles, share) for share in (0.05, 0.5, 0.95))
    room = 0.6 * (high - low) or 0.1 * abs(high) or 1.0
    x = Scale(low - room, high + room, 5, 155)
    told = title or f"usual: {number(low)} to {number(high)}"
    parts = [
        _line("axis", x.start, 10, x.end, 10),
        _rect("usual", x(low), 5, max(x(high) - x(low), 2), 10, told),
        _line("median", x(middle), 4, x(middle), 16),
    ]
    if value is not None:
        told += f"; this cell: {number(value)}"
        is_usual = low <= value <= high
        parts.append(_mark(x, value, "cell" if is_usual else "cell odd", told))
    return _svg("strip", 160, 20, told, "", parts)


def sparkline(values: Sequence[float], title: str = "", height: int = 40) -> Markup:
    """Draw a series as a line, the oldest value first; NaN is a gap."""
    known = [value for value in values if not math.isnan(value)]
    told = f"from {number(known[0])} to {number(known[-1])}" if known else "no values yet"
    x = Scale(0, max(len(values) - 1, 1), 2, 238)
    y = Scale(min([0.0, *known]), max([*known, 1e-9]), height - 3, 3)
    runs = groupby(enumerate(values), lambda item: math.isnan(item[1]))
    d = "".join(
        "M" + " L".join(f"{x(i)} {y(value)}" for i, value in run) for gap, run in runs if not gap
    )
    parts = [_line("axis", 0, height - 1, 240, height - 1), _element(_PATH, "series", d)]
    if not known:
        parts.append(_text("tick", 120, height / 2 + 2, told, "middle"))
    return _svg("sparkline", 240, height, title, told, parts)


def boundary(
    grid: Grid,
    threshold: float,
    row: tuple[float, float] | None = None,
    *,
    names: tuple[str, str] = ("", ""),
    title: str = "Where the boundary is",
) -> Markup:
    """Draw which values of two columns are outliers, and a row among them.

    What scores below the threshold is shaded as flagged; above it are three shades, from the
    border to the most usual values. A row beyond an end is drawn at that end.
    """
    width, height, left = 480, 330, 60
    base = height - 2 * _AXIS
    x = Scale(*grid.across, left, width - 6)
    y = Scale(*grid.upwards, base, _AXIS)
    parts = [_element(_PATH, kind, _cells(mask, x, y)) for kind, mask in _shades(grid, threshold)]
    parts += _ticks(x, base, base + _AXIS, width)
    parts += [
        _text("tick", left - 6, y(value) + 4, number(value), "end")
        for value in _round_numbers(*grid.upwards)
    ]
    parts += [
        _text("label", (left + width) / 2, height - 6, names[0], "middle"),
        _text("label", left, _AXIS - 9, names[1]),
    ]
    if row is not None:
        told = f"{names[0]} = {number(row[0])}, {names[1]} = {number(row[1])}"
        parts.append(_element(_DOT, "cell", x(row[0]), y(row[1]), 6, told))
    return _svg("boundary", width, height, title, "", parts)


def number(value: float) -> str:
    """Return a number with four significant digits.

    >>> number(0.123456), number(1234567.0), number(12.0)
    ('0.1235', '1,235,000', '12')
    """
    if math.isnan(value):
        return "missing"
    if value and not 1e-4 <= abs(value) < 1e9:
        return f"{value:.3e}"
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    if digits == 0:
        return f"{float(f'{value:.4g}'):,.0f}"
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """Return a share, 0 to 1, as a percentage.

    >>> percent(0.03456), percent(0.5), percent(0.00004), percent(0)
    ('3.46 %', '50 %', '0.004 %', '0 %')
    """
    return f"{number(float(f'{100 * share:.3g}'))} %"


def quantile(quantiles: Sequence[float], share: float) -> float:
    """Return one of equally spaced quantiles, minimum to maximum, by its share, 0 to 1."""
    return quantiles[round(share * (len(quantiles) - 1))]


def _svg(  # noqa: PLR0913, PLR0917 -- an element's attributes
    kind: str, width: float, height: float, title: str, description: str, parts: Iterable[Markup]
) -> Markup:
    described = _element(_DESCRIPTION, description) if description else Markup()
    body = Markup().join(parts)
    return _element(_SVG, kind, width, height, title, title, described, body)


def _element(pattern: str, *values: Markup | str | float) -> Markup:
    """Fill in a pattern of this module: each text is escaped.

    `Markup.format` does the same, but takes nine times as long, and a page has some hundred parts.
    """
    safe = tuple(escape(value) if isinstance(value, str) else value for value in values)
    return Markup(pattern % safe)  # noqa: S704 -- its parts are safe


def _rect(  # noqa: PLR0913, PLR0917 -- an element's attributes
    kind: str, x: float, y: float, width: float, height: float, told: str
) -> Markup:
    sizes = (round(size, 2) for size in (x, y, max(width, 0.0), height))
    return _element(_RECT, kind, *sizes, told)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return _element(_LINE, kind, x1, y1, x2, y2)


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> Markup:
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return _element(_TEXT, kind, round(x, 2), round(y, 2), anchor, short)


def _mark(x: Scale, value: float, kind: str, told: str) -> Markup:
    """Draw a cell: a dot, or an arrow at the end that it is beyond."""
    if x.low <= value <= x.high:
        return _element(_DOT, kind, x(value), 10, 4.5, told)
    end, step = (x.start, 7) if value < x.low else (x.end, -7)
    return _element(_PATH, kind, f"M{end - step} 10 L{end} 4 L{end} 16 Z")


def _ticks(x: Scale, base: float, low: float, width: float = WIDTH) -> list[Markup]:
    """Draw an axis with its two ends and up to three round numbers between them."""
    parts = [_line("axis", x.start, base, x.end, base)]
    for value in _round_numbers(x.low, x.high):
        at = x(value)
        anchor = "start" if at < 30 else "end" if at > width - 30 else "middle"
        parts.append(_line("axis", at, base, at, base + 4))
        parts.append(_text("tick", at, low - 6, number(value), anchor))
    return parts


def _round_numbers(low: float, high: float) -> list[float]:
    """Return three to six round numbers from `low` to `high`.

    >>> _round_numbers(-0.21, 0.17)
    [-0.2, -0.1, 0.0, 0.1]
    """
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low] if math.isfinite(low) else []
    power = 10.0 ** math.floor(math.log10(span))
    step = next(s * power for s in (0.1, 0.2, 0.25, 0.5, 1, 2) if span / (s * power) < 6)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{i * step:.6g}") for i in range(first, last + 1)]


def _steps(x: Scale, y: Scale, edges: Sequence[float], shares: Sequence[float]) -> str:
    """Return the path of the outline of a histogram."""
    corners = "".join(
        f" V{y(share)} H{x(right)}" for share, right in zip(shares, edges[1:], strict=True)
    )
    return f"M{x(edges[0])} {y(0)}{corners} V{y(0)}"


def _shades(grid: Grid, threshold: float) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return the cells of each shade: flagged, and three from the border to the most usual."""
    scores = grid.scores
    step = max(float(scores.max()) - threshold, 0.0) / 3
    shades = [("flagged", scores < threshold)]
    for i in range(3):
        above = scores >= threshold + i * step
        below = scores < threshold + (i + 1) * step if i < 2 else np.True_
        shades.append((f"usual-{i + 1}", above & below))
    return shades


def _cells(mask: NDArray[np.bool_], x: Scale, y: Scale) -> str:
    """Return the path of the cells of a grid where `mask` is true: a rectangle for each run."""
    n, m = mask.shape
    width, height = (x.end - x.start) / m, (y.start - y.end) / n
    path = []
    for i, line in enumerate(mask):
        flips = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
        top = round(y.start - (i + 1) * height, 2)
        for first, last in flips.reshape(-1, 2).tolist():
            left, right = x.start + first * width, x.start + last * width
            path.append(f"M{left:.1f} {top}h{right - left:.1f}v{height:.2f}h{left - right:.1f}z")
    return "".join(path)
