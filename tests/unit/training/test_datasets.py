import numpy as np
import pytest

from service.errors import CannotTrain
from training.datasets import Dataset, held_out_spending, oddities, pick, spending, write_spending
from training.export import describe
from training.forest import fit_forest


def table(X, names=None, **fields):
    """Return a dataset of some columns."""
    X = np.asarray(X, dtype=np.float64)
    names = names or tuple(f"c{j}" for j in range(X.shape[1]))
    return Dataset.of_numbers("my.csv", X, tuple(names), **fields)


def test_the_sample_is_the_same_table_every_time():
    first, second = spending(), spending()
    assert (first.name, first.features, first.X.shape) == ("spending", ("mean", "sd"), (20_000, 2))
    assert np.array_equal(first.X, second.X)
    assert np.array_equal(first.labels, second.labels)
    assert first.labels.sum() == 100


def test_the_sample_is_right_skewed_with_mostly_constant_users():
    mean, sd = spending().X.T
    assert (mean.min(), sd.min()) == (-0.28, -0.11)
    assert 40 < mean.max() < 66
    assert 40 < sd.max() < 58
    assert np.median(mean) < mean.mean()  # skewed to the right
    assert (sd == sd.min()).mean() > 0.5  # most have no variation
    assert np.corrcoef(mean, sd)[0, 1] > 0.2


def test_a_default_forest_finds_most_planted_outliers():
    training, held_out = spending(), held_out_spending()
    assert not np.array_equal(training.X, held_out.X)
    quality = describe(fit_forest(training.X), training, held_out).quality
    assert (quality.rows, quality.outliers, quality.held_out) == (20_000, 100, True)
    assert 0.98 < quality.roc_auc < 1


def test_the_sample_is_written_exactly(tmp_path):
    write_spending(tmp_path / "data")
    (tmp_path / "data" / "test.csv").write_text("own")
    write_spending(tmp_path / "data")
    assert (tmp_path / "data" / "test.csv").read_text() == "own"
    (tmp_path / "data" / "test.csv").unlink()
    write_spending(tmp_path / "data")
    lines = (tmp_path / "data" / "train.csv").read_text().splitlines()
    cells = [[float(cell) for cell in line.split(",")] for line in lines[1:]]
    assert lines[0] == "mean,sd"
    assert np.array_equal(cells, spending().X)
    assert len((tmp_path / "data" / "test.csv").read_text().splitlines()) == 20_001


def test_columns_are_returned_in_the_requested_order():
    swapped = spending().only(["sd", "mean"])
    assert swapped.features == ("sd", "mean")
    assert np.array_equal(swapped.X, spending().X[:, ::-1])


def test_sampling_is_uniform_seeded_and_without_replacement():
    whole = table(np.arange(1000.0)[:, None], labels=np.arange(1000) % 2)
    drawn = whole.draw(500, seed=1)
    assert len(np.unique(drawn.X)) == 500
    assert abs(drawn.X.mean() - 499.5) < 30
    assert np.array_equal(drawn.labels, drawn.X[:, 0] % 2)
    assert np.array_equal(drawn.X, whole.draw(500, seed=1).X)
    assert not np.array_equal(drawn.X, whole.draw(500, seed=2).X)


def test_drawing_more_rows_than_available_is_refused():
    with pytest.raises(CannotTrain, match="--samples 4: my"):
        table([[1], [2], [3]]).draw(4, seed=0)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (["men"], "there is no column 'men' (is it 'mean'?); columns are 'mean', 'sd'"),
        (["sd", "sd"], "--keep_cols names the column 'sd' twice"),
    ],
)
def test_a_wrong_column_is_named(wanted, sentence):
    with pytest.raises(CannotTrain) as caught:
        pick(wanted, ["mean", "sd"])
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("column", "constant"),
    [
        ([1.0, 1.0, 1.0], True),
        ([1.0, 2.0, 1.0], False),
        ([1.0, np.nan, 1.0], False),  # a tree can separate missing cells from the others
        ([np.nan, np.nan, np.nan], True),
        ([1e-9, 2e-9, 3e-9], True),  # steps too small for a tree
        ([1_700_000_000.0, 1_700_000_001.0, 1_700_000_002.0], True),  # equal as 32-bit floats
        ([0.0, 2e-7, 0.0], False),
    ],
)
def test_constant_columns_are_those_that_no_tree_can_split(column, constant):
    X = np.tile(np.column_stack([column, [1.0, 2.0, 3.0]]), (50, 1))
    said = any("'c0'" in oddity for oddity in oddities(table(X)))
    assert said == constant
    alone = fit_forest(X[:, :1], n_estimators=20)
    assert all(tree.tree_.node_count == 1 for tree in alone.estimators_) == constant


def test_a_table_of_constant_columns_only_is_refused():
    with pytest.raises(CannotTrain, match="is constant; a forest needs one that varies"):
        oddities(table([[1, 2], [1, 2]]))


@pytest.mark.parametrize(
    ("names", "reported"),
    [(("1.5", "2"), True), (("0", "1"), False), (("a", "2"), False)],
)
def test_a_header_of_numbers_is_reported(names, reported):
    assert (
        any("header" in oddity for oddity in oddities(table([[1, 2], [3, 4]], names))) == reported
    )


def test_labels_used_as_features_or_all_equal_are_reported():
    X = [[1, 0], [3, 1]]
    assert "name it with --label" in oddities(table(X, ("a", "label")))[0]
    assert "every label is 0" in oddities(table(X, labels=np.zeros(2, dtype=int)))[0]
    assert oddities(table(X, labels=np.array([0, 1]))) == []
