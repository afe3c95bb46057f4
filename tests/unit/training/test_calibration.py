"""Out-of-bag scores: each training row is scored by the trees that never saw it."""

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from service.model.forest import average_path_lengths
from service.model.scorer import compile_forest
from training import calibration
from training.calibration import calibrate, score_out_of_bag
from training.datasets import Dataset
from training.export import describe


def score_plainly(forest, X):
    """Return the same scores by scikit-learn's trees, one after the other."""
    sums, trees = np.zeros(len(X)), np.zeros(len(X))
    parts = forest.estimators_, forest.estimators_features_, forest.estimators_samples_
    for tree, columns, sample in zip(*parts, strict=True):
        table = X[:, columns].astype(np.float32)
        rows = tree.tree_.n_node_samples[tree.apply(table)]
        steps = tree.decision_path(table).sum(axis=1).A1 - 1 + average_path_lengths(rows)
        unseen = ~np.isin(np.arange(len(X)), sample)
        sums[unseen] += steps[unseen]
        trees += unseen
    expected = average_path_lengths(np.array([forest.max_samples_]))[0]
    return -(2.0 ** -(sums / trees / expected)) - forest.offset_


@pytest.mark.parametrize(
    "rows, options",
    [
        (400, {"n_estimators": 60}),
        (900, {"n_estimators": 40, "bootstrap": True}),
        (900, {"n_estimators": 40, "max_samples": 1.0, "bootstrap": True}),
        (700, {"n_estimators": 40, "max_features": 2, "contamination": 0.05}),
    ],
)
def test_scores_equal_those_of_scikit_learns_own_trees(rows, options, monkeypatch):
    monkeypatch.setattr(calibration, "_PIECE", 100)
    X = np.random.default_rng(3).normal(size=(rows, 4))
    X[::9, 1] = np.nan
    forest = IsolationForest(random_state=5, **options).fit(X)
    scores, without = score_out_of_bag(forest, compile_forest(forest), X)
    assert not without
    known = ~np.isnan(scores)
    assert known.mean() > 0.9
    np.testing.assert_allclose(scores[known], score_plainly(forest, X)[known], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "rows, options, words",
    [
        (256, {}, "only 0.0 of 20 trees were grown without a given row, and 10 are needed"),
        (900, {"max_samples": 1.0}, "only 0.0 of 20 trees"),
        (300, {}, "only 2.9 of 20 trees"),
        (300, {"max_samples": 1}, "each tree was grown from a single row"),
    ],
)
def test_a_card_says_why_there_are_no_p_values(rows, options, words):
    X = np.random.default_rng(3).normal(size=(rows, 2))
    forest = IsolationForest(n_estimators=20, random_state=5, **options).fit(X)
    card = describe(forest, Dataset.of_numbers("t", X, ("a", "b")))
    assert card.calibration.rows == 0 and card.calibration.scores == []
    assert card.calibration.without.startswith(words)
    assert type(card).from_json(card.to_json()) == card


def test_a_forest_of_another_table_gets_none(samples, forest):
    scorer = compile_forest(forest)
    for other in (samples[::-1], samples[:1000], np.vstack([samples[1:], samples[:1]])):
        scores, without = score_out_of_bag(forest, scorer, other)
        assert np.isnan(scores).all()
        assert "fitted on another table" in without


def test_a_card_keeps_the_lowest_scores_and_one_for_each_percent():
    scores = np.random.default_rng(1).normal(size=5_000)
    scores[7] = np.nan
    found = calibrate(scores, "")
    known = np.sort(scores[~np.isnan(scores)])
    assert found.rows == 4_999
    assert found.scores[:1000] == known[:1000].tolist()
    assert found.scores[-1] == known[-1] and len(found.scores) < 1_200


def test_labels_are_kept_in_the_order_of_the_out_of_bag_scores():
    rng = np.random.default_rng(2)
    X, labels = rng.normal(size=(600, 2)), (rng.random(600) < 0.1).astype(np.int64)
    labels[::50] = -1  # unknown
    forest = IsolationForest(random_state=5).fit(X)
    table = Dataset.of_numbers("t", X, ("a", "b"), labels=labels)
    kept = describe(forest, table).labels
    scores, _ = score_out_of_bag(forest, compile_forest(forest), X)
    known = labels >= 0
    order = np.argsort(scores[known])
    assert kept.rows == known.sum() and not kept.held_out
    assert kept.scores == scores[known][order].tolist()
    assert kept.found == np.cumsum(labels[known][order]).tolist()
    held_out = describe(forest, table, held_out=table).labels
    assert held_out.held_out
    assert held_out.scores == np.sort(forest.decision_function(X)[known]).tolist()
