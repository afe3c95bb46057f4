import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest

from service.errors import CannotTrain
from training import plots, tables
from training.datasets import Dataset

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


@pytest.fixture
def view(samples):
    """The columns mean and sd of a table that has no others."""
    return plots.View.of(Dataset.of_numbers("it", samples, ["mean", "sd"]))


def test_the_grid_has_the_scores_of_its_points(forest, view):
    grid = plots.boundary_grid(forest, view)
    assert grid.scores.shape == (100, 100)
    assert (grid.x[0, 0], grid.y[0, 0], grid.x[0, -1], grid.y[-1, 0]) == (-2, -2, 70, 70)
    point = [[grid.x[3, 50], grid.y[3, 50]]]
    assert grid.scores[3, 50] == forest.decision_function(point)[0]


def test_the_boundary_is_drawn_over_the_grid_and_near_most_rows(forest, samples, view):
    plots.draw_boundary(forest, samples, view, "title")
    whole, corner = plots.plt.gcf().axes[:2]
    assert whole.get_xlim() == whole.get_ylim() == (-2, 70)
    assert corner.get_xlim()[1] < samples.max()
    plots.draw_boundary(forest, samples, view, "title", corner=False)
    alone, _scale = plots.plt.gcf().axes
    assert alone.get_title() == ""


def test_a_forest_without_inliers_on_the_grid_is_drawn(forest, samples, view):
    strict = plots.boundary_grid(forest, view)
    forest_of_none = _Shifted(forest, -strict.scores.max() - 1)
    plots.draw_boundary(forest_of_none, samples, view, "title")


class _Shifted:
    def __init__(self, forest, by):
        self._forest, self._by = forest, by

    def decision_function(self, X):
        return self._forest.decision_function(X) + self._by


def test_thresholds_are_labelled_with_their_share_of_outliers(forest, samples, view):
    plots.draw_thresholds(forest, samples, view, [-0.1, 0.0])
    texts = [text.get_text() for text in plots.plt.gca().get_legend().get_texts()]
    shares = [(forest.decision_function(samples) < t).mean() for t in (-0.1, 0.0)]
    assert texts == [f"-0.1: {shares[0]:.2%} outside", f"0: {shares[1]:.2%} outside"]


def test_legends_count_inliers_and_outliers(forest, view):
    plots.draw_scores([0.2, 0.1, -0.3], 0.0, "scores")
    legend = plots.plt.gca().get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["2 inliers", "1 outliers"]
    plots.draw_predictions(forest, np.array([[1.0, 1.0], [60.0, 40.0]]), view, "rows")
    legend = plots.plt.gca().get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["1 inliers", "1 outliers"]
    kinds = {type(one).__name__ for one in plots.plt.gca().collections}
    assert kinds == {"PathCollection", "QuadContourSet"}  # dots on the decision boundary


@pytest.fixture(scope="module")
def wide():
    """A table of four columns and a forest fitted on all of them."""
    X = np.random.default_rng(16).lognormal(size=(500, 4)) * [1, 1000, 0.01, 1]
    X[:10, [1, 3]] *= 50  # the outliers
    forest = IsolationForest(n_estimators=5, random_state=16).fit(X)
    return Dataset.of_numbers("it", X, ["a", "b", "c", "d"]), forest


@pytest.mark.parametrize("columns", [[], ["d", "b"], ["a", "c"]])
def test_any_two_columns_of_a_table_are_drawn(wide, columns, capsys):
    dataset, forest = wide
    X, features = dataset.X, dataset.features
    view = plots.View.of(dataset, *columns)
    drawn = columns or ["b", "d"]
    assert list(view.names) == drawn
    assert "the plots show" in capsys.readouterr().out
    plots.draw_boundary(forest, X, view, "title")
    plots.draw_thresholds(forest, X, view, [-0.1, 0.0])
    plots.draw_predictions(forest, X, view, "title")
    ax = plots.plt.gca()
    assert [ax.get_xlabel(), ax.get_ylabel()] == drawn
    assert ax.get_title(loc="left") == "title (2 more at the median)"
    for column, (low, high) in zip(view.pick(X).T, view.whole, strict=True):
        assert low < column.min() < column.max() < high
    grid = plots.boundary_grid(forest, view)
    point = np.median(X, axis=0)
    point[[features.index(name) for name in drawn]] = grid.x[3, 5], grid.y[3, 5]
    assert grid.scores[3, 5] == forest.decision_function([point])[0]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (["a", "x"], "there is no column 'x'"),
        (["a"], "name two columns to draw; there are 'a', 'b', 'c', 'd'"),
        (["a", "b", "c"], "name two columns to draw"),
        (["a", "a"], "name two columns to draw"),
    ],
)
def test_other_columns_are_refused_in_a_sentence(wide, columns, sentence):
    with pytest.raises(CannotTrain, match=sentence):
        plots.View.of(wide[0], *columns)


def test_columns_of_text_and_with_gaps_are_drawn_as_the_forest_takes_them(tmp_path):
    kinds = ["grocer"] * 150 + ["baker"] * 45 + ["casino"] * 5
    amounts = [*np.random.default_rng(16).normal(20, 2, 195), *[900.0] * 5]
    table = pd.DataFrame({"age": np.arange(200) % 50, "merchant": kinds, "amount": amounts})
    table.loc[::20, "amount"] = np.nan
    table.to_csv(tmp_path / "it.csv", index=False)
    dataset = tables.from_file(tmp_path / "it.csv")
    view = plots.View.of(dataset)
    assert view.names == ("merchant = casino", "amount")
    assert np.isfinite(view.middle).all()
    assert np.isfinite(view.whole).all()
    forest = IsolationForest(n_estimators=5, random_state=16).fit(dataset.X)
    plots.draw_boundary(forest, dataset.X, view, "title")
    plots.draw_predictions(forest, dataset.X, view, "title")
    encoded = pd.DataFrame(dataset.X, columns=dataset.encoded)[list(view.names)]
    assert sum(plots.histograms(encoded).data[1].y) == 190
    assert sum(plots.scatter(encoded).data[0].customdata) == 190
    assert np.isfinite(plots.boxes(encoded).data[1].q3[0])


def test_two_columns_are_chosen_without_a_word(capsys):
    dataset = Dataset.of_numbers("it", np.arange(6.0).reshape(3, 2), ["mean", "sd"])
    assert plots.choose(dataset) == ["mean", "sd"]
    assert capsys.readouterr().out == ""


def test_a_histogram_of_scores_has_every_row_and_the_threshold():
    plots.draw_score_histogram({"train": [0.2, 0.1, -0.3], "test": [0.0]}, 0.0, "title")
    texts = [text.get_text() for text in plots.plt.gca().get_legend().get_texts()]
    assert set(texts) == {
        "train: 33.33% below the threshold",
        "test: 0.00% below the threshold",
        "threshold",
    }


def test_the_numbers_of_a_flat_box_are_written_beside_it():
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0, 4.0, 99.0], "y": range(6)})
    (note, _) = plots.boxes(table).layout.annotations
    assert note.text == "quartiles 1.25, 2.5, 3.75<br>whiskers 0 to 4<br>1 values beyond"


def test_figures_of_plotly_fetch_nothing(table):
    for draw in (plots.scatter, plots.histograms, plots.boxes):
        page = plots.pio.renderers["offline"].to_mimebundle(draw(table).to_dict())["text/html"]
        assert "Plotly.newPlot" in page
        assert re.findall(r"<script[^>]*src", page) == []
