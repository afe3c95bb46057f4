import gc
import pickle
import subprocess
import sys
import warnings
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from service.model import kernels
from service.model.content import read_model_file
from service.model.file import load_fitted, load_model
from service.model.scorer import compile_forest
from tests.data.forests import make
from tests.support.adversary import CHOICES, TABLES, Case, answers
from tests.support.examples import examples

ROOT = Path(__file__).parents[3]
OLD = sorted((ROOT / "tests/data/forests").glob("*-*.[pj]*"))

cases = st.builds(
    Case,
    seed=st.integers(0, 2**31),
    **{name: st.sampled_from(choices) for name, choices in CHOICES.items()},
)


def assert_equal(forest, compiled, X):
    """Assert that a compiled forest answers as scikit-learn does, to the last bit."""
    scores, decisions, labels = answers(forest, X)
    assert np.array_equal(compiled.score_samples(X), scores)
    assert np.array_equal(compiled.decision_function(X), decisions)
    assert np.array_equal(np.where(compiled.decision_function(X) < 0, -1, 1), labels)


def test_a_forest_worked_out_by_hand():
    """One tree separates 0 from 1. Both are one step below the root, as expected of two rows."""
    forest = compile_forest(IsolationForest(n_estimators=1, random_state=0).fit([[0.0], [1.0]]))
    X = np.array([[0.0], [1.0], [-7.0]])
    assert forest.depths(X).tolist() == [1, 1, 1]
    assert forest.score_samples(X).tolist() == [-0.5, -0.5, -0.5]
    assert forest.decision_function(X).tolist() == [0, 0, 0]
    assert forest.contributions(X).tolist() == [[0], [0], [0]]
    assert (len(forest.nodes), forest.depth, forest.mean_depth) == (3, 1, 1.0)


@settings(max_examples=examples(80), deadline=None, derandomize=True)
@given(case=cases, n=st.sampled_from([1, 7, 9, 16, 33, 500]), order=st.sampled_from("CF"))
def test_scores_equal_scikit_learns_bit_for_bit(case, n, order):
    forest = case.fit()
    compiled = compile_forest(forest)
    X = np.asarray(case.rows(forest, n), order=order)
    assert_equal(forest, compiled, X)
    assert_equal(forest, replace(compiled, nodes=compiled.nodes.astype(kernels.WIDE)), X)
    shares = compiled.contributions(X).sum(axis=1)
    assert np.allclose(shares, compiled.depths(X) - compiled.mean_depth, rtol=0, atol=1e-12)


@settings(max_examples=examples(15), deadline=None, derandomize=True)
@given(case=cases, n=st.sampled_from([1, 9, 33]))
def test_rows_are_alike_by_the_trees_in_which_they_share_a_leaf(case, n):
    forest = case.fit()
    compiled = compile_forest(forest)
    X = np.asarray(case.rows(forest, n))
    wide = replace(compiled, nodes=compiled.nodes.astype(kernels.WIDE))
    pairs = zip(forest.estimators_, forest.estimators_features_, strict=True)
    with np.errstate(over="ignore"):
        X32 = X.astype(np.float32)
    leaves = np.stack([tree.tree_.apply(X32[:, columns]) for tree, columns in pairs], axis=1)
    expected = (leaves == leaves[0]).mean(axis=1)
    assert np.array_equal(compiled.alikeness(X[0], X), expected)
    assert np.array_equal(wide.alikeness(X[0], X), expected)


@pytest.mark.parametrize("table", TABLES)
def test_every_batch_size_scores_its_rows_alike(table):
    case = Case(table=table, n_rows=1000)
    forest = case.fit()
    compiled = compile_forest(forest)
    X = case.rows(forest, 70)
    together = compiled.score_samples(X)
    assert len(np.unique(together)) > 20
    for n in range(1, 70):
        assert np.array_equal(compiled.score_samples(X[:n]), together[:n])
    assert_equal(forest, compiled, X)


@pytest.mark.parametrize(
    "X",
    [
        np.arange(2**24 - 30, 2**24 + 30).reshape(20, 3),  # from here float32 skips integers
        # 2**53 + 2**29 + 1 rounds up to float32 from int64, but down by way of float64.
        2**53 + (2**29 + 1) * np.arange(60).reshape(20, 3),
        np.array([[True, False, True]]),
        np.linspace(-3, 3, 60, dtype=np.float16).reshape(20, 3),
        np.linspace(-3, 3, 60, dtype=np.float32).reshape(20, 3),
        np.linspace(-3, 3, 60, dtype=">f8").reshape(20, 3),
        np.linspace(-3, 3, 60, dtype=np.longdouble).reshape(20, 3),
        np.linspace(-3, 3, 60).reshape(3, 20).T,
        np.linspace(-3, 3, 240).reshape(40, 6)[::-2, ::2],
        np.broadcast_to(np.array([0.5, 1.5, -0.5]), (20, 3)),
    ],
    ids=lambda X: f"{X.dtype.str}-{X.strides}",
)
def test_any_numeric_type_and_memory_order_is_accepted(X):
    training = np.linspace(X.min(), X.max() + 1, 300, dtype=np.float32).reshape(100, 3)
    forest = IsolationForest(n_estimators=20, random_state=16).fit(training)
    assert_equal(forest, compile_forest(forest), X)


def test_values_beyond_float32_are_infinite_and_no_warning_escapes(forest):
    compiled = compile_forest(forest)
    large, infinite = np.array([[1e300, -1e300]]), np.array([[np.inf, -np.inf]])
    assert compiled.score_samples(large) == compiled.score_samples(infinite)
    assert compiled.score_samples(large.astype(np.longdouble)) == compiled.score_samples(large)


def test_a_forest_of_single_rows_scores_like_scikit_learn():
    forest = IsolationForest(n_estimators=3, max_samples=1).fit([[0.0], [1.0], [2.0]])
    assert_equal(forest, compile_forest(forest), np.array([[5.0], [1.0]]))


@pytest.mark.parametrize(
    ("case", "layout"),
    [
        (Case(n_features=2048, n_rows=400), kernels.COMPACT),
        (Case(n_features=2200, n_rows=400), kernels.WIDE),
        (Case(n_features=4096, n_rows=400, table="missing"), kernels.WIDE),
    ],
    ids=["just fits", "too many columns", "widest request"],
)
def test_a_forest_too_large_for_the_compact_layout_uses_the_wide_one(case, layout):
    forest = case.fit()
    compiled = compile_forest(forest)
    assert compiled.nodes.dtype == layout
    X = case.training_rows()[:40]
    assert_equal(forest, compiled, X)
    assert_equal(forest, compiled, X[:1])


def test_rows_with_another_number_of_columns_are_refused(forest):
    compiled = compile_forest(forest)
    for X in (np.zeros((4, 3)), np.zeros(2), np.zeros((1, 1, 2))):
        with pytest.raises(ValueError, match=r"the forest takes \(n, 2\)"):
            compiled.score_samples(X)


def test_zero_rows_give_zero_scores(forest):
    compiled = compile_forest(forest)
    assert compiled.score_samples(np.zeros((0, 2))).shape == (0,)
    assert compiled.contributions(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_large_batch_scores_alike_on_any_number_of_threads(samples, forest, threads):
    X = np.tile(samples, (4, 1))[:19_999]
    compiled = compile_forest(forest, threads)
    assert_equal(forest, compiled, X)
    assert_equal(forest, compiled, X.astype(np.float32))
    some = [0, 6_666, 13_333, 19_998]
    assert np.array_equal(compiled.contributions(X)[some], compiled.contributions(X[some]))


def test_the_compiled_forest_keeps_no_reference_to_the_forest():
    forest = Case().fit()
    tree = weakref.ref(forest.estimators_[0])
    compiled = compile_forest(forest)
    del forest
    gc.collect()
    assert tree() is None
    assert compiled.score_samples(np.zeros((1, 3))).shape == (1,)


def test_a_compiled_forest_survives_a_pickle(samples, forest):
    compiled = compile_forest(forest)
    expected = compiled.contributions(samples[:50])
    again = pickle.loads(pickle.dumps(compiled))
    assert np.array_equal(again.contributions(samples[:50]), expected)
    assert np.array_equal(again.score_samples(samples), forest.score_samples(samples))


@pytest.mark.parametrize("contamination", [0.001, 0.1, 0.37])
def test_the_offset_for_a_contamination_is_a_percentile_of_the_scores(samples, contamination):
    expected = IsolationForest(contamination=contamination, random_state=16).fit(samples)
    forest = IsolationForest(random_state=16).fit(samples)
    scores = compile_forest(forest).score_samples(samples)
    assert np.percentile(scores, 100.0 * contamination) == expected.offset_


def slow_contributions(forest, row):
    """Take one row down each tree and add up the changes of its expected path length."""
    shares = np.zeros(forest.n_features_in_)
    for t, (estimator, columns) in enumerate(
        zip(forest.estimators_, forest.estimators_features_, strict=True)
    ):
        tree = estimator.tree_
        ends = forest._decision_path_lengths[t] + forest._average_path_length_per_tree[t] - 1

        def expected(i, tree=tree, ends=ends):
            left, right = tree.children_left[i], tree.children_right[i]
            if left < 0:
                return ends[i]
            rows = tree.n_node_samples
            return (rows[left] * expected(left) + rows[right] * expected(right)) / rows[i]

        i = 0
        while tree.children_left[i] >= 0:
            j = columns[tree.feature[i]]
            with np.errstate(over="ignore"):
                x = np.float32(row[j])
            left = tree.missing_go_to_left[i] if np.isnan(x) else x <= tree.threshold[i]
            child = tree.children_left[i] if left else tree.children_right[i]
            shares[j] += (expected(child) - expected(i)) / len(forest.estimators_)
            i = child
    return shares


@pytest.mark.parametrize("n_estimators", [3, 8, 9])
@pytest.mark.parametrize("case", [Case(), Case(table="missing", max_features=0.5, n_features=7)])
def test_contributions_equal_a_slow_direct_computation(case, n_estimators):
    forest = replace(case, n_rows=60, n_estimators=n_estimators).fit()
    X = case.rows(forest, 9)
    expected = [slow_contributions(forest, row) for row in X]
    assert np.allclose(compile_forest(forest).contributions(X), expected, rtol=0, atol=1e-12)


def test_the_outlying_feature_has_the_most_negative_contribution():
    case = Case(n_features=5, n_rows=2000, n_estimators=100)
    compiled = compile_forest(case.fit())
    shares = compiled.contributions(np.array([[0.0, 0.0, 0.0, 9.0, 0.0]]))[0]
    assert shares.argmin() == 3
    assert shares[3] < -1 < np.delete(shares, 3).min()


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.name)
def test_forests_of_each_scikit_learn_version_score_as_they_did_there(path):
    """To the last bit, where this processor and numpy round logarithms and powers as theirs."""
    recorded, model = np.load(path.with_suffix(".npz")), load_model(path)
    X, same = recorded["rows"], np.array_equal(recorded["probe"], make.probe(np))
    for name in ("score_samples", "decision_function"):
        scores = getattr(model.scorer, name)(X)
        assert np.allclose(scores, recorded[name], rtol=0, atol=0 if same else 1e-12)
    if not path.stem.endswith(("1.0.2", "1.2.2")):  # which scikit-learn itself can no longer read
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another version, and of names
            fitted = load_fitted(read_model_file(path))
            assert_equal(fitted, model.scorer, X)


def test_the_test_data_has_forests_of_nine_scikit_learn_versions():
    versions = {path.name.split("-")[1].rsplit(".", 2)[0] for path in OLD}
    assert versions == {f"1.{minor}" for minor in (0, 2, 3, 4, 5, 6, 7, 8, 9)}


FORK = """
import os, signal, numpy as np
from sklearn.ensemble import IsolationForest
from service.model.scorer import compile_forest
X = np.random.default_rng(16).normal(size=(100_000, 2))
forest = compile_forest(IsolationForest(random_state=16).fit(X), threads=2)
expected = forest.score_samples(X)
child = os.fork()
if not child:
    signal.alarm(5)
    os._exit(0 if np.array_equal(forest.score_samples(X), expected) else 1)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.slow
def test_a_forked_worker_scores_a_large_batch_within_five_seconds():
    quiet = [
        "-W",
        "ignore::DeprecationWarning",
    ]  # Python 3.12 warns that threads do not survive a fork
    subprocess.run([sys.executable, *quiet, "-c", FORK], cwd=ROOT, check=True, timeout=60)
