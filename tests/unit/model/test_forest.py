import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.ensemble._iforest import _average_path_length

from service.model.forest import LEAF, NO_COLUMN, average_path_length, unpack
from tests.stress.files import small_forest
from tests.support import hostile

FORESTS = dict(hostile.crafted(small_forest()))


def test_a_forest_worked_out_by_hand():
    """One tree separates 0 from 1, each in a leaf one step below the root."""
    fitted = IsolationForest(n_estimators=1, random_state=0).fit([[0.0], [1.0]])
    forest = unpack(fitted)
    (tree,) = forest.trees
    assert (forest.n_features, forest.max_samples, forest.offset) == (1, 2, -0.5)
    assert (forest.names, len(forest.trees[0].left), forest.denominator) == (None, 3, 1.0)
    assert (tree.left.tolist(), tree.right.tolist()) == ([1, LEAF, LEAF], [2, LEAF, LEAF])
    assert tree.feature.tolist() == [0, NO_COLUMN, NO_COLUMN]
    assert 0 < tree.threshold[0] < 1
    assert (tree.rows.tolist(), tree.levels.tolist()) == ([2, 1, 1], [1, 2, 2])
    assert (tree.extra.tolist(), tree.columns.tolist()) == ([1, 0, 0], [0])


def test_the_arrays_equal_those_of_the_fitted_forest(forest):
    for tree, fitted in zip(unpack(forest).trees, forest.estimators_, strict=True):
        assert np.shares_memory(tree.threshold, fitted.tree_.threshold)


def test_column_names_of_a_data_frame_are_kept(samples):
    frame = pd.DataFrame(samples, columns=["mean", "sd"])
    assert unpack(IsolationForest(n_estimators=1).fit(frame)).names == ("mean", "sd")


def test_average_path_lengths_equal_scikit_learns_bit_for_bit():
    random = np.random.default_rng(16)
    numbers = [*range(600), *random.integers(1, 2**53, 600).tolist()]
    lengths = [average_path_length(n) for n in numbers]
    assert lengths == _average_path_length(numbers).tolist()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("never fitted", "an IsolationForest that was never fitted"),
        ("a method replaced", "the forest replaces its own decision_function"),
        ("trees in a tuple", "estimators_ is not a list of trees"),
        ("a forest as a tree", "estimator 0 is not an ExtraTreeRegressor"),
        ("half columns", r"estimators_features_\[0\] is not 2 columns"),
        ("path lengths in a list", "_decision_path_lengths is not a tuple with one entry for each"),
        ("too few path lengths", "tree 0 does not have a path length for each node"),
        ("columns by name", "n_features_in_ is not a whole number"),
        ("offset a text", "offset_ is not a number"),
        ("too many names", "feature_names_in_ is not 2 names"),
    ],
)
def test_the_error_names_the_attribute(name, words):
    with pytest.raises(ValueError, match=words):
        unpack(FORESTS[name])
