import pickle

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from service.errors import CannotTrain
from training.forest import fit_forest


@pytest.mark.parametrize("contamination", ["auto", 0.001, 0.1, 0.5])
def test_the_pickled_forest_equals_scikit_learns_byte_for_byte(samples, contamination):
    ours = fit_forest(samples, contamination=contamination, n_estimators=20, seed=3)
    theirs = IsolationForest(contamination=contamination, n_estimators=20, random_state=3)
    theirs.fit(samples)
    assert ours.offset_ == theirs.offset_
    assert np.array_equal(ours.score_samples(samples), theirs.score_samples(samples))
    assert pickle.dumps(ours, protocol=5) == pickle.dumps(theirs, protocol=5)


def test_the_forest_equals_scikit_learns_with_missing_values(samples):
    X = samples.copy()
    X[::7, 0] = np.nan
    ours = fit_forest(X, contamination=0.05, n_estimators=20, seed=3)
    theirs = IsolationForest(contamination=0.05, n_estimators=20, random_state=3).fit(X)
    assert pickle.dumps(ours, protocol=5) == pickle.dumps(theirs, protocol=5)


def test_a_refit_uses_the_requested_contamination(samples):
    forest = fit_forest(samples, contamination=0.25, n_estimators=5)
    assert forest.get_params()["contamination"] == 0.25
    assert (forest.fit(samples).decision_function(samples) < 0).mean() == pytest.approx(0.25, 0.1)


@pytest.mark.parametrize(
    ("amounts", "sentence"),
    [
        ({"max_samples": 5001}, "--max_samples 5001: the table has 5,000 rows"),
        ({"max_samples": 1e-4}, "--max_samples 0.0001 of 5,000 rows is less than one"),
        ({"max_features": 3}, "--max_features 3: the table has 2 columns"),
    ],
)
def test_more_samples_or_features_than_the_table_has_are_refused(samples, amounts, sentence):
    with pytest.raises(CannotTrain) as caught:
        fit_forest(samples, **amounts)
    assert str(caught.value) == sentence
