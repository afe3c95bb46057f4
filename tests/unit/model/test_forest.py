import copy
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.ensemble._iforest import _average_path_length

from service.model.forest import LEAF, NO_COLUMN, average_path_lengths, contradiction, unpack
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
    numbers = np.array([*range(600), *random.integers(1, 2**53, 600).tolist()])
    assert average_path_lengths(numbers).tolist() == _average_path_length(numbers).tolist()


def test_levels_and_steps_that_are_not_stored_are_those_of_scikit_learn(forest):
    """Versions before 1.3 do not store them."""
    older = copy.copy(forest)
    del older._decision_path_lengths, older._average_path_length_per_tree
    for tree, expected in zip(unpack(older).trees, unpack(forest).trees, strict=True):
        assert np.array_equal(tree.levels, expected.levels)
        assert np.array_equal(tree.extra, expected.extra)


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_a_forest_tells_whether_it_has_seen_missing_values(samples, share):
    gaps = np.where(np.random.default_rng(16).random(samples.shape) < share, np.nan, samples)
    assert unpack(IsolationForest(n_estimators=20, random_state=16).fit(gaps)).knows_gaps
    for options in ({}, {"bootstrap": True}, {"max_features": 0.5}):
        whole = IsolationForest(n_estimators=20, random_state=16, **options).fit(samples)
        assert not unpack(whole).knows_gaps


def in_next_layout(forest, kind=0, union=False):
    """Return the forest with nodes as scikit-learn 1.10 has them, or had on the way to it."""
    copied = copy.deepcopy(forest)
    for estimator in copied.estimators_:
        estimator.tree_ = Next(estimator.tree_, kind, union)
    return copied


class Next:
    """A tree whose nodes have a kind of split, and room for sets of categories."""

    def __init__(self, tree, kind, union):
        old = tree.__getstate__()["nodes"]
        names = [name for name in old.dtype.names if not (union and name == "threshold")]
        fields = [(name, old.dtype[name]) for name in names]
        categories = ("left_cat_bitset", "u4", (8,))
        both = np.dtype({"names": ["threshold", "left_cat_bitset"],
                         "formats": ["f8", ("u4", (8,))], "offsets": [0, 0]})  # fmt: skip
        fields += [("split_value", both) if union else categories, ("split_kind", "i1")]
        nodes = np.zeros(len(old), fields)
        for name in names:
            nodes[name] = old[name]
        if union:
            nodes["split_value"]["threshold"] = old["threshold"]
        nodes["split_kind"] = np.where(old["left_child"] < 0, -1, kind)
        self.n_features, self.state = tree.n_features, {"nodes": nodes, "node_count": len(old)}

    def __getstate__(self):
        return self.state


Next.__name__ = "Tree"


@pytest.mark.parametrize("union", [False, True])
def test_the_layout_of_the_next_version_is_read(forest, union):
    trees = unpack(in_next_layout(forest, union=union)).trees
    for tree, expected in zip(trees, unpack(forest).trees, strict=True):
        assert all(map(np.array_equal, tree, expected))


@pytest.mark.parametrize("kind", [1, 2])
def test_a_split_by_categories_is_refused(forest, kind):
    with pytest.raises(ValueError, match=r"tree 0 splits a column by categories, .*fit it on num"):
        unpack(in_next_layout(forest, kind))


def test_nodes_of_no_known_version_are_refused(forest):
    strange = in_next_layout(forest)
    state = strange.estimators_[0].tree_.state
    state["nodes"] = state["nodes"][["left_child", "right_child", "feature"]]
    with pytest.raises(ValueError, match="tree 0 has no threshold, as no known version; fit it w"):
        unpack(strange)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("mean", "sd"), ""),
        (("sd", "mean"), "in another order .*column 0 is 'sd', there 'mean'"),
        (("mean", "x"), "otherwise .*column 1 is 'x', there 'sd'"),
        (("mean",), "has 1 column, and the forest 2"),
    ],
)
def test_names_that_contradict_the_forest_are_told(samples, names, words):
    frame = pd.DataFrame(samples, columns=["mean", "sd"])
    forest = unpack(IsolationForest(n_estimators=1).fit(frame))
    found = contradiction(names, forest)
    assert re.search(words, found) if words else found == ""
    unnamed = unpack(IsolationForest(n_estimators=1).fit(samples))
    assert (contradiction(names, unnamed) == "") == (len(names) == 2)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a\ud800", "b"], "the name of column 0 is not valid text"),
        (["a", "a"], "two columns have one name"),
        (["a", "b" * 1001], "the name of column 1 has more than 1,000 characters"),
    ],
)
def test_names_that_no_answer_can_hold_are_refused(forest, names, words):
    named = copy.copy(forest)
    named.feature_names_in_ = np.array(names, dtype=object)
    with pytest.raises(ValueError, match=words):
        unpack(named)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("never fitted", "an IsolationForest that was never fitted"),
        ("trees in a tuple", "estimators_ is not a list of trees"),
        ("a forest as a tree", "estimator 0 is not an ExtraTreeRegressor"),
        ("half columns", r"estimators_features_\[0\] is not 2 columns"),
        ("path lengths in a list", "_decision_path_lengths is not a tuple with one entry for each"),
        ("too few path lengths", "tree 0 does not have a path length for each node"),
        ("columns by name", "n_features_in_ is not a whole number"),
        ("offset a text", "offset_ is not a number"),
        ("two counts of samples", "_max_samples and max_samples_ are not one whole number"),
        ("a tree twice", "two entries of estimators_ are one tree"),
        ("too many names", "feature_names_in_ is not 2 names"),
    ],
)
def test_the_error_names_the_attribute(name, words):
    with pytest.raises(ValueError, match=words):
        unpack(FORESTS[name])
