"""Score the training rows out of bag: each by the trees that were grown without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from service.model.card import Calibration, LabelCurve
from service.model.pvalues import kept_ranks
from service.model.scorer import CompiledForest
from service.rows import Floats

LEAST_TREES = 10
"""The mean number of out-of-bag trees of a row below which its score is too coarse."""

_PIECE = 65_536  # rows of a large sample that are copied at a time
_CHECKED = 3  # trees whose rows are compared with the table's


def calibrate(scores: Floats, without: str) -> Calibration:
    """Return what a card keeps of the out-of-bag scores; `without` says why there are none."""
    known = np.sort(scores[~np.isnan(scores)])
    return Calibration(len(known), known[kept_ranks(len(known)) - 1].tolist(), without)


def keep_labels(scores: Floats, labels: NDArray[np.int64], held_out: bool) -> LabelCurve:
    """Return what a card keeps of labelled rows; labels are (n,), 1 for an outlier, else 0."""
    order = np.argsort(scores, kind="stable")
    kept = kept_ranks(len(scores)) - 1
    found = np.cumsum(labels[order])[kept]
    return LabelCurve(len(scores), held_out, scores[order][kept].tolist(), found.tolist())


def score_out_of_bag(
    forest: IsolationForest, scorer: CompiledForest, X: Floats
) -> tuple[Floats, str]:
    """Return the `decision_function` of each training row by the trees that never saw it.

    A row that fewer than half of `LEAST_TREES` trees left out has NaN. If there are no such scores,
    all are NaN, and the text says why.

    No row goes through a tree twice: the path lengths in the trees that did see a row are taken
    from its sum over all trees. A tree usually saw 256 rows, so this takes almost no time.
    """
    nothing = np.full(len(X), np.nan)
    if not scorer.denominator:
        return nothing, "each tree was grown from a single row"
    samples = _samples(forest)
    if not samples or not _are_of(forest, samples, X):
        return nothing, "the forest was fitted on another table, or by another scikit-learn"
    sums = scorer.depths(X) * len(samples)
    trees = np.full(len(X), len(samples))
    for tree, sample in enumerate(samples):
        trees[sample] -= 1
        for start in range(0, len(sample), _PIECE):
            piece = sample[start : start + _PIECE]
            sums[piece] -= scorer.one_tree(tree).depths(X[piece])
    if trees.mean() < LEAST_TREES:
        return nothing, (
            f"only {trees.mean():.1f} of {len(samples)} trees were grown without a given row, and "
            f"{LEAST_TREES} are needed: take more rows, more trees, or a smaller --max_samples"
        )
    known = trees >= LEAST_TREES // 2
    expected = scorer.denominator / len(samples)
    depths = np.divide(sums, trees * expected, out=nothing, where=known)
    return -np.power(2.0, -depths) - scorer.offset, ""


def _samples(forest: IsolationForest) -> list[NDArray[np.int64]]:
    """Return the indices of the rows that each tree was grown from; none if they are not known."""
    try:
        return [np.unique(sample) for sample in forest.estimators_samples_]
    except AttributeError:  # they are drawn again, for which an old file lacks something
        return []


def _are_of(forest: IsolationForest, samples: list[NDArray[np.int64]], X: Floats) -> bool:
    """Return whether the samples of some trees are these rows of X: they fill the same leaves."""
    if max(sample[-1] for sample in samples) >= len(X):
        return False
    for tree in np.linspace(0, len(samples) - 1, _CHECKED).astype(int):
        estimator, columns = forest.estimators_[tree], forest.estimators_features_[tree]
        leaves = estimator.apply(X[samples[tree]][:, columns].astype(np.float32))
        nodes = estimator.tree_
        found = np.bincount(leaves, minlength=nodes.node_count)
        rows = np.where(nodes.children_left == -1, nodes.n_node_samples, 0)
        if not np.array_equal(found, rows):
            return False
    return True
