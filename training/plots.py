"""The plots of the notebooks: a table, a forest's decision boundary, a service's scores.

Two columns of the encoded table are drawn: those that tell most about the outliers, or those that
`choose` is given. Functions that draw with Plotly return a figure; those that draw with Matplotlib
leave it for the notebook to show. Rows without a value in one of the two columns are not drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray
from plotly.io.base_renderers import NotebookRenderer
from plotly.subplots import make_subplots
from sklearn.ensemble import IsolationForest

from service.errors import CannotTrain
from service.model.encoding import make_encoder
from service.model.scorer import compile_forest
from service.rows import Floats
from training.datasets import Dataset, listed, pick

BINS = 20
GRID_STEPS = 100
_SEED = 16
_SHALLOW = 1e-3  # the depth of the colours where no point of the grid is an outlier
_LEAST_LOWEST = 20  # rows whose reasons are looked at, of a small table
_FINE_STEPS = 400  # for several lines in one plot, which would cross on a coarse grid

Range = tuple[float, float]
Window = tuple[Range, Range]
"""What a plot shows: the ranges of its two axes."""

# A little more than the range of the normalised spending.
_SPENDING: dict[tuple[str, str], Window] = {("mean", "sd"): ((-2.0, 70.0), (-2.0, 70.0))}

INLIER, OUTLIER, BOUNDARY = "steelblue", "crimson", "darkred"
_CROWDED = [[0.0, "#6baed6"], [0.5, "#54278f"], [1.0, "#1a0a2e"]]  # light blue to near black
_COLUMN_COLOURS = ("steelblue", "mediumseagreen")


class _OfflineRenderer(NotebookRenderer):  # type: ignore[misc]
    """Plotly's renderer for notebooks, without the script that it fetches for formulas."""

    def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, str]:
        bundle = super().to_mimebundle(fig_dict)
        return {kind: _FETCHED.sub("", text) for kind, text in bundle.items()}


_FETCHED = re.compile(r"""<script[^>]*\ssrc=["']https?://[^>]*>\s*</script>""")

pio.renderers["offline"] = _OfflineRenderer()
pio.renderers.default = "plotly_mimetype+offline"


@dataclass(frozen=True)
class View:
    """Two columns of the encoded table. A plot of a forest holds the others at their median."""

    names: tuple[str, str]
    places: tuple[int, int]
    middle: Floats
    """The median of each column of the encoded table, (n_features,)."""
    whole: Window
    crowd: Window
    """The window with 99 % of the values of each column."""

    @classmethod
    def of(cls, dataset: Dataset, *columns: str) -> View:
        """Return the view of two columns of `dataset.encoded`; see `choose` for the default."""
        one, other = choose(dataset, *columns)
        X, names = dataset.X, (one, other)
        x, y = dataset.encoded.index(one), dataset.encoded.index(other)
        whole = _SPENDING.get(names) or (_span(X[:, x], 1.0), _span(X[:, y], 1.0))
        crowd = (_span(X[:, x], 0.99), _span(X[:, y], 0.99))
        return cls(names, (x, y), np.nanmedian(X, axis=0), whole, crowd)

    def pick(self, X: Floats) -> Floats:
        """Return the two columns of some rows, (n_rows, 2); NaN is a missing value."""
        return X[:, list(self.places)]

    def points(self, X: Floats) -> Floats:
        """Return the different pairs of values of some rows, (n, 2), without missing ones."""
        points = self.pick(X)
        return np.unique(points[~np.isnan(points).any(axis=1)], axis=0)

    @property
    def note(self) -> str:
        """What a plot of a forest says of the other columns, empty if there are none."""
        more = len(self.middle) - 2
        return f" ({more} more at the median)" if more else ""


@dataclass(frozen=True)
class Grid:
    """Scores on a square grid over two columns, each (steps, steps) float64."""

    x: Floats
    y: Floats
    scores: Floats
    """`decision_function`: lower is more abnormal."""


def choose(dataset: Dataset, *columns: str) -> list[str]:
    """Return the two of `dataset.encoded` to draw, and say what is left out.

    The default are the two that tell most about the outliers, in the order of the table.

    Raises:
        CannotTrain: a column does not exist, or there are not two.
    """
    features = dataset.encoded
    if len(set(columns)) not in (0, 2) or len(columns) not in (0, 2) or len(features) < 2:
        raise CannotTrain(f"name two columns to draw; there are {listed(features)}")
    chosen = pick(columns or _most_telling(dataset), features)
    rest = [name for name in features if name not in chosen]
    if rest:
        print(f"the plots show {listed(chosen)}; name two others to see {listed(rest)}")
    return chosen


def _most_telling(dataset: Dataset) -> list[str]:
    """Return the two features with the largest share in the reasons of the lowest scores.

    Not two of one column, unless there is no other. A forest fitted on the table gives the reasons.
    """
    if len(dataset.encoded) == 2:
        return list(dataset.encoded)
    scorer = compile_forest(IsolationForest(random_state=_SEED).fit(dataset.X))
    scores = scorer.decision_function(dataset.X)
    lowest = np.argsort(scores, kind="stable")[: max(len(dataset) // 100, _LEAST_LOWEST)]
    shares = scorer.contributions(dataset.X[lowest]).sum(axis=0)
    order = np.argsort(shares, kind="stable").tolist()  # a negative share makes abnormal
    owners = [column.name for column in dataset.columns for _ in make_encoder(column).features]
    other = next((j for j in order[1:] if owners[j] != owners[order[0]]), order[1])
    return [dataset.encoded[j] for j in sorted((order[0], other))]


def readable(value: float) -> str:
    """Return a number for a person: whole, or with six digits.

    >>> readable(20007.0), readable(0.123456789), readable(float("nan"))
    ('20,007', '0.123457', 'nan')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def scatter(table: pd.DataFrame) -> go.Figure:
    """Draw each distinct row once, coloured by how often it occurs."""
    x, y = table.columns[:2]
    points = table.dropna().value_counts(ascending=True).reset_index(name="rows")
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
        rows, edges = np.histogram(table[name].dropna(), BINS)
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
        box = _box(table[name].dropna(), colour)
        figure.add_trace(box, row=1, col=place)
        figure.add_annotation(_describe_box(box), row=1, col=place)
    figure.update_xaxes(showgrid=False)
    return _laid_out(figure, "Quartiles, whiskers, and what lies beyond", height=480)


def boundary_grid(
    forest: IsolationForest, view: View, window: Window | None = None, steps: int = GRID_STEPS
) -> Grid:
    """Score a grid of 100 x 100 points over a window, by default the whole one."""
    across, up = window or view.whole
    x, y = np.meshgrid(np.linspace(*across, steps), np.linspace(*up, steps))
    points = np.tile(view.middle, (x.size, 1))
    points[:, view.places[0]], points[:, view.places[1]] = x.ravel(), y.ravel()
    return Grid(x, y, forest.decision_function(points).reshape(x.shape))


def draw_boundary(
    forest: IsolationForest, X: Floats, view: View, title: str, corner: bool = True
) -> None:
    """Draw where the forest's score is 0: over the whole grid and, if `corner`, near most rows."""
    windows = [("the whole grid" if corner else "", view.whole)]
    if corner:
        windows.append(("the corner with nearly all rows", view.crowd))
    size = (7.2 * len(windows), 6.2)
    figure, axes = plt.subplots(
        1, len(windows), figsize=size, dpi=110, layout="constrained", squeeze=False
    )
    levels = _levels(forest, view)
    points = view.points(X)
    for ax, (name, window) in zip(axes.flat, windows, strict=True):
        shades = _fill(ax, boundary_grid(forest, view, window), levels)
        ax.scatter(
            points[:, 0], points[:, 1], s=9, color="white", edgecolors="black", linewidths=0.4
        )
        _frame(ax, view, window)
        ax.set_title(name)
    axes.flat[0].legend(handles=[_line(BOUNDARY, "score 0")], loc="upper right", framealpha=0.9)
    figure.suptitle(title + view.note, fontsize=15)
    figure.colorbar(shades, ax=axes, label="score: lower is more abnormal", format="%.3f")


def draw_thresholds(
    forest: IsolationForest, X: Floats, view: View, thresholds: Sequence[float]
) -> None:
    """Draw the boundary that each threshold gives for the same scores, near most rows."""
    grid = boundary_grid(forest, view, view.crowd, _FINE_STEPS)
    scores = forest.decision_function(X)
    colours = plt.get_cmap("plasma")(np.linspace(0.0, 0.8, len(thresholds)))
    _, ax = plt.subplots(figsize=(8.5, 7), dpi=110, layout="constrained")
    points = view.points(X)
    ax.scatter(points[:, 0], points[:, 1], s=7, color="silver", linewidths=0)
    lines = []
    for threshold, colour in zip(thresholds, colours, strict=True):
        # The score is constant between the splits of the trees, so a threshold encloses areas.
        inside = (grid.scores >= threshold).astype(np.float64)
        ax.contour(grid.x, grid.y, inside, levels=[0.5], colors=[colour], linewidths=2)
        lines.append(_line(colour, f"{threshold:g}: {(scores < threshold).mean():.2%} outside"))
    ax.legend(handles=lines, title="threshold", loc="upper right", framealpha=0.9)
    _frame(ax, view, view.crowd)
    ax.set_title("One forest, several thresholds" + view.note)


def draw_predictions(forest: IsolationForest, X: Floats, view: View, title: str) -> None:
    """Draw inliers in blue and outliers in red, on the forest's decision boundary."""
    _, ax = plt.subplots(figsize=(8.5, 7), dpi=110, layout="constrained")
    _fill(ax, boundary_grid(forest, view), _levels(forest, view))
    points = view.pick(X)
    _dots(ax, points[:, 0], points[:, 1], forest.predict(X) == -1)
    _frame(ax, view, view.whole)
    ax.set_title(title + view.note, loc="left")


def draw_score_histogram(scores: Mapping[str, ArrayLike], threshold: float, title: str) -> None:
    """Draw how often each score occurs in some tables, and the threshold."""
    _, ax = plt.subplots(figsize=(12, 5), dpi=110, layout="constrained")
    values = [np.asarray(some) for some in scores.values()]
    edges = np.histogram_bin_edges(np.concatenate(values), 60).tolist()
    for name, some in zip(scores, values, strict=True):
        label = f"{name}: {(some < threshold).mean():.2%} below the threshold"
        ax.hist(some, edges, histtype="step", linewidth=2, log=True, label=label)
    ax.axvline(threshold, color=BOUNDARY, linestyle="--", linewidth=1.5, label="threshold")
    ax.set(xlabel="score: lower is more abnormal", ylabel="rows")
    ax.grid(alpha=0.3)
    ax.legend(loc="upper left")
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


def _levels(forest: IsolationForest, view: View) -> Floats:
    """Return the scores at which the blue outside changes its shade, from the lowest to 0."""
    lowest = min(boundary_grid(forest, view).scores.min(), -_SHALLOW)
    return np.linspace(lowest, 0, 8)


def _frame(ax: Axes, view: View, window: Window) -> None:
    """Set the window and the names of the axes, and draw grid lines."""
    ax.set(xlim=window[0], ylim=window[1], xlabel=view.names[0], ylabel=view.names[1])
    ax.grid(alpha=0.3)


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


def _describe_box(box: go.Box) -> dict[str, Any]:
    """Return a note with the numbers of a box, which may be too flat to hover over."""
    quartiles = ", ".join(readable(value[0]) for value in (box.q1, box.median, box.q3))
    whiskers = " to ".join(readable(value[0]) for value in (box.lowerfence, box.upperfence))
    text = f"quartiles {quartiles}<br>whiskers {whiskers}<br>{len(box.y[0]):,} values beyond"
    place = {"xref": "x domain", "yref": "y domain", "x": 0.02, "y": 0.98}
    return {**place, "text": text, "align": "left", "showarrow": False}


def _span(column: Floats, share: float) -> Range:
    """Return bounds that contain a share of the values above the smallest, with a margin."""
    low, high = float(np.nanmin(column)), float(np.nanquantile(column, share))
    space = 0.08 * (high - low) or 1.0
    return low - space, high + space


def _laid_out(figure: go.Figure, title: str, height: int) -> go.Figure:
    return figure.update_layout(
        template="plotly_white",
        title=title,
        height=height,
        showlegend=False,
        margin={"l": 70, "r": 30, "t": 70, "b": 60},
    )
