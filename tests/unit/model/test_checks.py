"""Forests that can be scored safely, and forests that cannot."""

import pytest
from sklearn.ensemble import IsolationForest

from service.model.checks import check_forest
from service.model.forest import unpack
from tests.stress.files import small_forest
from tests.support import hostile

FORESTS = list(hostile.crafted(small_forest()))
FAR = [name for name, _ in FORESTS if name not in hostile.ONLY_IN_FILES]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"max_samples": 1},
        {"max_features": 1, "bootstrap": True},
        {"contamination": 0.1, "max_samples": 1.0},
    ],
    ids=str,
)
def test_a_fitted_forest_passes_the_checks(samples, parameters):
    forest = IsolationForest(n_estimators=3, random_state=16, **parameters).fit(samples)
    check_forest(unpack(forest))


@pytest.mark.parametrize("name", FAR)
def test_a_forest_that_cannot_be_scored_is_refused(name):
    with pytest.raises(ValueError, match=r"."):
        check_forest(unpack(dict(FORESTS)[name]))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("left child just out of range", "node 0 of tree 0 has a child that is not below it"),
        ("column out of range", "node 0 of tree 0 looks at no column of its tree"),
        ("a node that nobody leads to", "does not have one parent"),
        ("training rows that do not add up", "has other training rows than its children"),
        ("a tree of 100 levels", "a tree is deeper than 64 levels"),
        ("path lengths huge", "node 0 of tree 0 has a path length that is not the one of its"),
        ("levels of other nodes", "node 0 of tree 0 is at another depth than its path length"),
        ("few samples", "node 0 of tree 0 has more training rows than _max_samples"),
        ("columns of another forest", "tree 0 looks at a column that is not among 2"),
        ("10**12 columns", "n_features_in_ is not a whole number from 1 to 1,000,000"),
        ("offset huge", "offset_ is not from -1 to 1"),
    ],
)
def test_the_error_names_the_tree_and_the_node(name, words):
    with pytest.raises(ValueError, match=words):
        check_forest(unpack(dict(FORESTS)[name]))
