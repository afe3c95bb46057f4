import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from training import plots

mpl.use("agg")


@pytest.fixture
def table():
    """A skewed table of 1,000 rows, 900 of them equal."""
    tail = np.random.default_rng(16).lognormal(size=(100, 2))
    return pd.DataFrame(np.vstack([np.zeros((900, 2)), tail]), columns=["mean", "sd"])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plots.plt.close("all")


def test_the_scatter_shows_each_distinct_row_once_and_how_often_it_occurs(table):
    dots = plots.scatter(table).data[0]
    assert len(dots.x) == 101
    assert (dots.x[-1], dots.y[-1], dots.customdata[-1]) == (0, 0, 900)  # on top of the others


def test_histograms_have_twenty_bins_that_hold_every_row(table):
    for bars, name in zip(plots.histograms(table).data, table, strict=True):
        assert len(bars.x) == 20
        assert sum(bars.y) == 1000
        assert bars.customdata[0][0] == table[name].min()
        assert bars.customdata[-1][1] == table[name].max()


def test_a_box_plot_has_quartiles_and_every_value_beyond_its_whiskers():
    column = pd.Series([0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 9.0], name="x")
    table = pd.DataFrame({"x": column, "y": column})
    box = plots.boxes(table).data[0]
    assert (box.q1[0], box.median[0], box.q3[0]) == (1.5, 3.0, 6.5)
    assert (box.lowerfence[0], box.upperfence[0]) == (0.0, 9.0)
    outside = plots.boxes(pd.DataFrame({"x": [*range(9), 99, 99], "y": range(11)})).data[0]
    assert list(outside.y[0]) == [99]  # equal values are one dot


def test_the_grid_has_the_scores_of_its_points(forest):
    grid = plots.boundary_grid(forest)
    assert grid.scores.shape == (100, 100)
    assert (grid.x[0, 0], grid.y[0, 0], grid.x[0, -1], grid.y[-1, 0]) == (-2, -2, 70, 70)
    point = [[grid.x[3, 50], grid.y[3, 50]]]
    assert grid.scores[3, 50] == forest.decision_function(point)[0]


def test_the_boundary_is_drawn_over_the_grid_and_near_most_rows(forest, samples):
    plots.draw_boundary(forest, samples, ["mean", "sd"], "title")
    whole, corner = plots.plt.gcf().axes[:2]
    assert whole.get_xlim() == whole.get_ylim() == (-2, 70)
    assert corner.get_xlim()[1] < samples.max()
    plots.draw_boundary(forest, samples, ["mean", "sd"], "title", corner=False)
    assert len(plots.plt.gcf().axes) == 2  # the grid and its scale of colours


def test_a_forest_without_inliers_on_the_grid_is_drawn(forest, samples):
    strict = plots.boundary_grid(forest)
    forest_of_none = _Shifted(forest, -strict.scores.max() - 1)
    plots.draw_boundary(forest_of_none, samples, ["mean", "sd"], "title")


class _Shifted:
    def __init__(self, forest, by):
        self._forest, self._by = forest, by

    def decision_function(self, X):
        return self._forest.decision_function(X) + self._by


def test_thresholds_are_labelled_with_their_share_of_outliers(forest, samples):
    plots.draw_thresholds(forest, samples, ["mean", "sd"], [-0.1, 0.0])
    texts = [text.get_text() for text in plots.plt.gca().get_legend().get_texts()]
    shares = [(forest.decision_function(samples) < t).mean() for t in (-0.1, 0.0)]
    assert texts == [f"-0.1: {shares[0]:.2%} outside", f"0: {shares[1]:.2%} outside"]


def test_legends_count_inliers_and_outliers():
    plots.draw_scores([0.2, 0.1, -0.3], 0.0, "scores")
    legend = plots.plt.gca().get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["2 inliers", "1 outliers"]
    plots.draw_predictions(np.zeros((2, 2)), np.array([True, False]), ["mean", "sd"], "rows")
    legend = plots.plt.gca().get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["1 inliers", "1 outliers"]
