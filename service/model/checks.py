"""Whether a forest that came out of a file is one that can be walked.

scikit-learn and the compiled walk trust a fitted tree: a child or a column out of range would make
them read foreign memory, a cycle would never end. `check_forest` looks at each number that scoring
uses, so that any forest it lets by is scored safely, whatever made it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.tree import ExtraTreeRegressor
from sklearn.tree._tree import Tree

from ..errors import count

DEEPEST = 64
"""Levels of a tree. An isolation tree has as many as its samples have binary digits."""

_MOST_COLUMNS, _MOST_SAMPLES = 10**6, 2**53

_LONGEST = 2 * DEEPEST  # the path to expect among 2**64 samples has 88 steps

_LEAF, _NO_COLUMN = -1, -2  # scikit-learn's marks of a missing child and, in a leaf, column


def check_forest(forest: IsolationForest) -> tuple[int, int]:
    """Check everything that scoring reads, and return the numbers of trees and nodes.

    Raises:
        ValueError: the first thing that is not as scikit-learn leaves it.
    """
    if "estimators_" not in vars(forest):
        raise ValueError("it holds an IsolationForest that was never fitted")
    _check_attributes(forest, "the forest")
    n_features = _whole(forest, "n_features_in_", _MOST_COLUMNS)
    _whole(forest, "_max_samples", _MOST_SAMPLES)
    offset = vars(forest).get("offset_")
    _need(isinstance(offset, float) and bool(abs(offset) <= 1), "offset_ is not from -1 to 1")
    trees = _trees(forest)
    columns = _per_tree(forest, "estimators_features_", len(trees), list)
    for i, (tree, chosen) in enumerate(zip(trees, columns, strict=True)):
        _need(_is_vector(chosen, "i"), f"estimators_features_[{i}] is not a list of columns")
        _need(
            len(chosen) == tree.n_features and bool(((chosen >= 0) & (chosen < n_features)).all()),
            f"tree {i} looks at a column that is not among the {n_features}",
        )
    sizes = [tree.node_count for tree in trees]
    for name, kinds in (("_decision_path_lengths", "iu"), ("_average_path_length_per_tree", "f")):
        for i, lengths in enumerate(_per_tree(forest, name, len(trees), tuple)):
            sound = _is_vector(lengths, kinds) and len(lengths) == sizes[i]
            in_range = sound and bool(((lengths >= 0) & (lengths <= _LONGEST)).all())
            _need(in_range, f"{name}[{i}] is not a tree's")
    _check_nodes(_Nodes(trees))
    _check_names(forest, n_features)
    return len(trees), sum(sizes)


def _trees(forest: IsolationForest) -> list[Tree]:
    estimators = forest.estimators_
    _need(type(estimators) is list and bool(estimators), "estimators_ is not a list of trees")
    trees = []
    for i, estimator in enumerate(estimators):
        _need(type(estimator) is ExtraTreeRegressor, f"estimator {i} is not an ExtraTreeRegressor")
        _check_attributes(estimator, f"estimator {i}")
        tree = vars(estimator).get("tree_")
        _need(type(tree) is Tree and tree.node_count > 0, f"estimator {i} has no tree")
        _need(tree.n_outputs == 1 and tree.max_n_classes == 1, f"tree {i} is no regression tree")
        trees.append(tree)
    return trees


class _Nodes:
    """The nodes of all trees, one after another: arrays (n_nodes,)."""

    def __init__(self, trees: list[Tree]) -> None:
        sizes = np.array([tree.node_count for tree in trees])
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        """Where each tree begins, and the end of the last."""
        self.own = np.concatenate([np.arange(size) for size in sizes])
        """Each node's number in its tree."""
        self.size = np.repeat(sizes, sizes)
        """The number of nodes of each node's tree."""
        self.columns = np.repeat([tree.n_features for tree in trees], sizes)
        self.left = np.concatenate([tree.children_left for tree in trees])
        self.right = np.concatenate([tree.children_right for tree in trees])
        self.feature = np.concatenate([tree.feature for tree in trees])
        self.threshold = np.concatenate([tree.threshold for tree in trees])
        self.rows = np.concatenate([tree.n_node_samples for tree in trees])
        self.missing = np.concatenate([tree.missing_go_to_left for tree in trees])


def _check_nodes(nodes: _Nodes) -> None:
    left, right = nodes.left, nodes.right
    inner = (left != _LEAF) | (right != _LEAF)

    def need(sound: NDArray[np.bool_], fault: str) -> None:
        """Raise for the first inner node that is not `sound`; leaves are not looked at."""
        _need_all(nodes, sound | ~inner, fault)

    # scikit-learn numbers children after their parents, so this alone rules cycles out.
    for child in (left, right):
        need((child > nodes.own) & (child < nodes.size), "has a child that is not below it")
    need((nodes.feature >= 0) & (nodes.feature < nodes.columns), "looks at no column of its tree")
    _need_all(nodes, inner | (nodes.feature == _NO_COLUMN), "is a leaf that looks at a column")
    need(np.isfinite(nodes.threshold), "has a threshold that is not a number")
    _need_all(nodes, nodes.rows > 0, "has no training rows")
    _need_all(nodes, nodes.missing <= 1, "sends missing values nowhere")

    base = nodes.starts[:-1].repeat(np.diff(nodes.starts))
    children = np.concatenate([(left + base)[inner], (right + base)[inner]])
    parents = np.bincount(children, minlength=len(left))
    _need_all(nodes, parents == (nodes.own > 0), "does not have one parent")
    of_children = np.zeros_like(nodes.rows)
    of_children[inner] = nodes.rows[(left + base)[inner]] + nodes.rows[(right + base)[inner]]
    need(of_children == nodes.rows, "has other training rows than its children")

    level = nodes.starts[:-1]
    for _ in range(DEEPEST):
        level = level[inner[level]]
        level = np.concatenate([left[level], right[level]]) + np.tile(base[level], 2)
    if level.size:
        raise ValueError(f"a tree is deeper than {DEEPEST} levels")


def _need_all(nodes: _Nodes, sound: NDArray[np.bool_], fault: str) -> None:
    if not sound.all():
        place = int(np.argmin(sound))
        tree = int(np.searchsorted(nodes.starts, place, side="right")) - 1
        raise ValueError(f"node {nodes.own[place]} of tree {tree} {fault}")


def _check_attributes(estimator: Any, name: str) -> None:
    """Let no attribute stand in the way of a method of the same name."""
    kind: Any = type(estimator)
    hidden = sorted(vars(estimator).keys() & _members(kind))
    _need(not hidden, f"{name} hides its own {', '.join(hidden)}")


@cache
def _members(kind: Any) -> set[str]:
    return {name for parent in kind.__mro__ for name in vars(parent)}


def _check_names(forest: IsolationForest, n_features: int) -> None:
    names = vars(forest).get("feature_names_in_")
    if names is None:
        return
    sound = type(names) is np.ndarray and names.shape == (n_features,) and names.dtype == object
    _need(
        sound and all(type(name) is str for name in names.tolist()),
        f"feature_names_in_ is not {count(n_features, 'name')}",
    )


def _per_tree(forest: IsolationForest, name: str, trees: int, kind: type) -> Any:
    values: Any = vars(forest).get(name)
    _need(isinstance(values, kind), f"{name} is not a {kind.__name__}")
    _need(len(values) == trees, f"{name} has not one entry for each tree")
    return values


def _is_vector(values: Any, kinds: str) -> bool:
    return type(values) is np.ndarray and values.ndim == 1 and values.dtype.kind in kinds


def _whole(forest: IsolationForest, name: str, most: int) -> int:
    number: Any = vars(forest).get(name)
    sound = isinstance(number, int | np.integer) and bool(1 <= number <= most)
    _need(sound, f"{name} is not a whole number from 1 to {most:,}")
    return int(number)


def _need(sound: bool, fault: str) -> None:
    if not sound:
        raise ValueError(fault)
