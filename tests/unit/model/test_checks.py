"""Forests that can be walked, and forests that cannot."""

import pytest
from sklearn.ensemble import IsolationForest

from service.model.checks import check_forest
from tests.stress.files import small_forest
from tests.support import hostile

FORESTS = list(hostile.crafted(small_forest()))


def test_a_fitted_forest_is_sound(forest):
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    assert check_forest(forest) == (5, nodes)


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_samples": 1},
        {"max_features": 1, "bootstrap": True},
        {"contamination": 0.1, "max_samples": 1.0},
    ],
    ids=str,
)
def test_so_is_one_of_any_parameters(samples, parameters):
    forest = IsolationForest(n_estimators=3, random_state=16, **parameters).fit(samples)
    assert check_forest(forest)[0] == 3


@pytest.mark.parametrize(("name", "broken"), FORESTS, ids=[name for name, _ in FORESTS])
def test_what_cannot_be_walked_is_told(name, broken):
    with pytest.raises(ValueError, match=r"."):
        check_forest(broken)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("left child just out of range", "node 0 of tree 0 has a child that is not below it"),
        ("column out of range", "node 0 of tree 0 looks at no column of its tree"),
        ("a node that nobody leads to", "does not have one parent"),
        ("training rows that do not add up", "has other training rows than its children"),
        ("a tree of 100 levels", "a tree is deeper than 64 levels"),
        ("a method replaced", "the forest hides its own decision_function"),
    ],
)
def test_the_sentence_names_the_place(name, words):
    with pytest.raises(ValueError, match=words):
        check_forest(dict(FORESTS)[name])
