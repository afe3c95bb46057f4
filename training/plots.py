"""The plots of the notebooks: a table, a forest's decision boundary, a service's scores.

Tables have two numeric columns. Functions that draw with Plotly return a figure; those that draw
with Matplotlib leave it for the notebook to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots
from sklearn.ensemble import IsolationForest

from service.rows import Floats

BINS = 20
GRID_STEPS = 100
GRID_LOW, GRID_HIGH = -2.0, 70.0  # a little more than the range of the normalised spending

INLIER, OUTLIER, BOUNDARY = "steelblue", "crimson", "darkred"
_CROWDED = [[0.0, "#6baed6"], [0.5, "#54278f"], [1.0, "#1a0a2e"]]  # light blue to near black
_COLUMN_COLOURS = ("steelblue", "mediumseagreen")


@dataclass(frozen=True)
class Grid:
    """Scores on a square grid over two columns, each (GRID_STEPS, GRID_STEPS) float64."""

    x: Floats
    y: Floats
    scores: Floats
    """`decision_function`: lower is more abnormal."""


def scatter(table: pd.DataFrame) -> go.Figure:
    """Draw each distinct row once, coloured by how often it occurs."""
    x, y = table.columns[:2]
    points = table.value_counts(ascending=True).reset_index(name="rows")
    powers = range(int(np.log10(points["rows"].max())) + 1)
    marker = {
        "size": 8,
        "opacity": 0.8,
        "color": np.log10(points["rows"]),
        "colorscale": _CROWDED,
        "line": {"width": 0.5, "color": "white"},
        "colorbar": {
            "title": "rows",
            "tickvals": list(powers),
            "ticktext": [f"{10**power:,}" for power in powers],
        },
    }
    hover = f"{x} %{{x:.4f}}<br>{y} %{{y:.4f}}<br>%{{customdata:,}} rows<extra></extra>"
    figure = go.Figure(
        go.Scattergl(
            x=points[x],
            y=points[y],
            mode="markers",
            marker=marker,
            customdata=points["rows"],
            hovertemplate=hover,
        )
    )
    title = f"{len(table):,} rows, {len(points):,} of them distinct"
    return _laid_out(figure, title, height=560).update_xaxes(title=x).update_yaxes(title=y)


def histograms(table: pd.DataFrame) -> go.Figure:
    """Draw a histogram of each column, with 20 bins from its smallest to its largest value."""
    names = list(table.columns[:2])
    figure = make_subplots(cols=2, subplot_titles=names, horizontal_spacing=0.1)
    for place, name, colour in zip((1, 2), names, _COLUMN_COLOURS, strict=True):
        rows, edges = np.histogram(table[name], BINS)
        bars = go.Bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=rows,
            width=np.diff(edges),
            marker={"color": colour, "line": {"width": 1, "color": "white"}},
            customdata=np.column_stack([edges[:-1], edges[1:]]),
            hovertemplate="%{customdata[0]:.2f} to %{customdata[1]:.2f}<br>%{y:,} rows"
            "<extra></extra>",
        )
        figure.add_trace(bars, row=1, col=place)
    figure.update_yaxes(type="log", dtick=1, exponentformat="none", separatethousands=True)
    figure.update_yaxes(title="rows (each line is ten times the one below)", col=1)
    return _laid_out(figure, f"{BINS} bins each", height=420)


def boxes(table: pd.DataFrame) -> go.Figure:
    """Draw a box plot of each column, with whiskers of 1.5 times the box and all rows beyond."""
    names = list(table.columns[:2])
    figure = make_subplots(cols=2, horizontal_spacing=0.1)
    for place, name, colour in zip((1, 2), names, _COLUMN_COLOURS, strict=True):
        figure.add_trace(_box(table[name], colour), row=1, col=place)
    return _laid_out(figure, "Quartiles, whiskers, and what lies beyond", height=480)


def boundary_grid(forest: IsolationForest, low: float = GRID_LOW, high: float = GRID_HIGH) -> Grid:
    """Score a square of 100 x 100 points from `low` to `high` on both columns."""
    axis = np.linspace(low, high, GRID_STEPS)
    x, y = np.meshgrid(axis, axis)
    points = np.column_stack([x.ravel(), y.ravel()])
    return Grid(x, y, forest.decision_function(points).reshape(x.shape))


def draw_boundary(
    forest: IsolationForest, X: Floats, names: Sequence[str], title: str, corner: bool = True
) -> None:
    """Draw where the forest's score is 0: over the whole grid and, if `corner`, near most rows."""
    windows = [("the whole grid", GRID_LOW, GRID_HIGH)]
    if corner:
        windows.append(("the corner with nearly all rows", *_crowd(X)))
    size = (7.2 * len(windows), 6.2)
    figure, axes = plt.subplots(
        1, len(windows), figsize=size, dpi=110, layout="constrained", squeeze=False
    )
    levels = np.linspace(boundary_grid(forest).scores.min(), 0, 8)
    points = np.unique(X, axis=0)
    for ax, (name, low, high) in zip(axes.flat, windows, strict=True):
        shades = _fill(ax, boundary_grid(forest, low, high), levels)
        shown = points[((points >= low) & (points <= high)).all(axis=1)]
        ax.scatter(shown[:, 0], shown[:, 1], s=9, color="white", edgecolors="black", linewidths=0.4)
        ax.set(xlim=(low, high), ylim=(low, high), xlabel=names[0], ylabel=names[1], title=name)
    axes.flat[0].legend(handles=[_line(BOUNDARY, "score 0")], loc="upper right", framealpha=0.9)
    figure.suptitle(title, fontsize=15)
    figure.colorbar(shades, ax=axes, label="score: lower is more abnormal", format="%.3f")


def draw_thresholds(
    forest: IsolationForest, X: Floats, names: Sequence[str], thresholds: Sequence[float]
) -> None:
    """Draw the boundary that each threshold gives for the same scores, near most rows."""
    low, high = _crowd(X)
    grid = boundary_grid(forest, low, high)
    scores = forest.decision_function(X)
    colours = plt.get_cmap("plasma")(np.linspace(0.0, 0.8, len(thresholds)))
    _, ax = plt.subplots(figsize=(8.5, 7), dpi=110, layout="constrained")
    points = np.unique(X, axis=0)
    ax.scatter(points[:, 0], points[:, 1], s=7, color="silver", linewidths=0)
    lines = []
    for threshold, colour in zip(thresholds, colours, strict=True):
        ax.contour(
            grid.x,
            grid.y,
            grid.scores,
            levels=[threshold],
            colors=[colour],
            linestyles="solid",
            linewidths=2,
        )
        lines.append(_line(colour, f"{threshold:g}: {(scores < threshold).mean():.2%} outside"))
    ax.legend(handles=lines, title="threshold", loc="upper right", framealpha=0.9)
    ax.set(xlim=(low, high), ylim=(low, high), xlabel=names[0], ylabel=names[1])
    ax.set_title("One forest, several thresholds")


def draw_predictions(
    X: Floats, outliers: NDArray[np.bool_], names: Sequence[str], title: str
) -> None:
    """Draw inliers in blue and outliers in red."""
    _, ax = plt.subplots(figsize=(8.5, 7), dpi=110, layout="constrained")
    _dots(ax, X[:, 0], X[:, 1], outliers)
    ax.set(xlabel=names[0], ylabel=names[1])
    ax.set_title(title, loc="left")


def draw_scores(scores: ArrayLike, threshold: float, title: str) -> None:
    """Draw the scores in their order, and the threshold."""
    values = np.asarray(scores)
    _, ax = plt.subplots(figsize=(12, 5), dpi=110, layout="constrained")
    _dots(ax, np.arange(len(values)), values, values < threshold)
    ax.axhline(threshold, color=BOUNDARY, linestyle="--", linewidth=1.5)
    ax.text(
        1.01, threshold, f"threshold\n{threshold:g}", color=BOUNDARY, va="center",
        transform=ax.get_yaxis_transform(),
    )  # fmt: skip
    ax.set(xlabel="row, in the order sent", ylabel="score: lower is more abnormal")
    ax.set_title(title, loc="left")


def _fill(ax: Axes, grid: Grid, levels: Floats) -> ContourSet:
    """Fill the outside in blue and the inside in pale violet red, and draw the boundary."""
    inside = max(grid.scores.max(), np.finfo(float).tiny)
    red = [0, inside]
    ax.contourf(grid.x, grid.y, grid.scores, levels=red, colors="palevioletred", alpha=0.6)
    ax.contour(grid.x, grid.y, grid.scores, levels=[0], colors=BOUNDARY, linewidths=2)
    return ax.contourf(
        grid.x, grid.y, grid.scores, levels=levels, cmap="Blues_r", alpha=0.75, extend="min"
    )


def _line(colour: Any, text: str) -> Line2D:
    return Line2D([], [], color=colour, linewidth=2, label=text)


def _dots(ax: Axes, x: NDArray[Any], y: Floats, outliers: NDArray[np.bool_]) -> None:
    """Scatter inliers, then outliers on top, and give their numbers in a legend above."""
    for rows, colour, name in ((~outliers, INLIER, "inliers"), (outliers, OUTLIER, "outliers")):
        ax.scatter(
            x[rows], y[rows], s=16, color=colour, alpha=0.7, linewidths=0,
            label=f"{rows.sum():,} {name}",
        )  # fmt: skip
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)


def _box(column: pd.Series[float], colour: str) -> go.Box:
    """Return a box of precomputed quartiles, with each distinct value beyond the whiskers once.

    Drawing thousands of equal values, which look like one dot, would make the page slow.
    """
    q1, median, q3 = np.quantile(column, [0.25, 0.5, 0.75])
    reach = 1.5 * (q3 - q1)
    within = column[(column >= q1 - reach) & (column <= q3 + reach)]
    beyond = np.setdiff1d(column, within)
    return go.Box(
        name="",
        x=[str(column.name)],
        q1=[q1],
        median=[median],
        q3=[q3],
        lowerfence=[within.min()],
        upperfence=[within.max()],
        y=[beyond],
        boxpoints="all",
        pointpos=0,
        jitter=0.3,
        marker={"color": colour, "size": 4, "opacity": 0.5},
    )


def _crowd(X: Floats) -> tuple[float, float]:
    """Return bounds for both columns that contain 99 % of the values, with a margin."""
    low, high = float(X.min()), float(np.quantile(X, 0.99))
    space = 0.08 * (high - low)
    return low - space, high + space


def _laid_out(figure: go.Figure, title: str, height: int) -> go.Figure:
    return figure.update_layout(
        template="plotly_white",
        title=title,
        height=height,
        showlegend=False,
        margin={"l": 70, "r": 30, "t": 70, "b": 60},
    )
