"""A fitted forest as plain arrays. Nothing else in the service reads scikit-learn's attributes."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import ExtraTreeRegressor
from sklearn.tree._tree import Tree as NodeTable

from ..errors import count
from ..rows import Floats

LEAF, NO_COLUMN = -1, -2
"""scikit-learn's marks in a leaf: no child, and no column."""

_PER_TREE = {
    "estimators_features_": list,
    "_decision_path_lengths": tuple,
    "_average_path_length_per_tree": tuple,
}


class Tree(NamedTuple):
    """One tree as scikit-learn numbers its nodes: arrays (n_nodes,), apart from `columns`."""

    left: NDArray[np.intp]
    """The left child; LEAF in a leaf."""
    right: NDArray[np.intp]
    feature: NDArray[np.intp]
    """An index into `columns`; NO_COLUMN in a leaf."""
    threshold: Floats
    missing_left: NDArray[np.uint8]
    """1 where a missing value goes left, 0 where it goes right."""
    rows: NDArray[np.intp]
    """How many training rows passed through the node."""
    levels: NDArray[np.integer]
    """The number of nodes from the root to this one, both included."""
    extra: Floats
    """The expected steps that would separate the training rows of the node."""
    columns: NDArray[np.integer]
    """(n_tree_features,) The forest's columns that the tree may look at."""


@dataclass(frozen=True, eq=False)
class Forest:
    """The parts of a fitted forest that scoring needs."""

    trees: list[Tree]
    n_features: int
    max_samples: int
    """Training rows from which each tree was grown."""
    offset: float
    """scikit-learn's `offset_`: decision_function = score_samples - offset."""
    names: tuple[str, ...] | None
    """The columns' names, if the forest was fitted on a table with names."""

    @property
    def denominator(self) -> float:
        """The sum of path lengths that scores -0.5, or 0 for a forest grown from single rows."""
        return len(self.trees) * average_path_length(self.max_samples)


def join(trees: list[Tree]) -> tuple[Tree, NDArray[np.intp], NDArray[np.intp]]:
    """Join trees into one table of nodes, in which children keep their numbers in their tree.

    Returns also the index of each tree's first node, and of each node's tree.
    """
    sizes = np.array([tree.left.size for tree in trees])
    table = Tree(*map(np.concatenate, zip(*trees, strict=True)))
    return table, np.cumsum(sizes) - sizes, np.repeat(np.arange(len(trees)), sizes)


def unpack(fitted: Any) -> Forest:
    """Read a fitted scikit-learn IsolationForest. The arrays are its own, not copies.

    The types and shapes are checked, because the forest may come from a file; the values are not:
    see `checks`.

    Raises:
        ValueError: the first attribute that is not as scikit-learn leaves it.
    """
    values = vars(fitted)
    if "estimators_" not in values:
        raise ValueError("it holds an IsolationForest that was never fitted")
    _check_methods(fitted, "the forest")
    for name in ("n_features_in_", "_max_samples"):
        _need(isinstance(values.get(name), int | np.integer), f"{name} is not a whole number")
    _need(isinstance(values.get("offset_"), float), "offset_ is not a number")
    n_features, max_samples = int(values["n_features_in_"]), int(values["_max_samples"])
    names = _names(values.get("feature_names_in_"), n_features)
    return Forest(_trees(values), n_features, max_samples, float(values["offset_"]), names)


def average_path_length(n: int) -> float:
    """Return the expected path length of a row in an isolation tree of n rows, in steps.

    The result is scikit-learn's to the last bit.
    """
    if n <= 2:
        return float(n == 2)
    return float(2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n)


def _trees(values: dict[str, Any]) -> list[Tree]:
    estimators = values["estimators_"]
    _need(type(estimators) is list and bool(estimators), "estimators_ is not a list of trees")
    for name, kind in _PER_TREE.items():
        entries = values.get(name)
        _need(
            type(entries) is kind and len(entries) == len(estimators),
            f"{name} is not a {kind.__name__} with one entry for each tree",
        )
    entries = zip(estimators, *(values[name] for name in _PER_TREE), strict=True)
    return [_tree(i, *entry) for i, entry in enumerate(entries)]


def _tree(i: int, estimator: Any, columns: Any, levels: Any, extra: Any) -> Tree:
    _need(type(estimator) is ExtraTreeRegressor, f"estimator {i} is not an ExtraTreeRegressor")
    _check_methods(estimator, f"estimator {i}")
    nodes: Any = vars(estimator).get("tree_")
    _need(type(nodes) is NodeTable and nodes.node_count > 0, f"estimator {i} has no tree")
    _need(nodes.n_outputs == 1 and nodes.max_n_classes == 1, f"tree {i} is not a regression tree")
    sound = _is_vector(columns, "i", nodes.n_features)
    _need(sound, f"estimators_features_[{i}] is not {count(nodes.n_features, 'column')}")
    sound = _is_vector(levels, "iu", nodes.node_count) and _is_vector(extra, "f", nodes.node_count)
    _need(sound, f"tree {i} does not have a path length for each node")
    children = nodes.children_left, nodes.children_right
    decision = nodes.feature, nodes.threshold, nodes.missing_go_to_left
    return Tree(*children, *decision, nodes.n_node_samples, levels, extra, columns)


def _names(names: Any, n_features: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    sound = _is_vector(names, "O", n_features) and all(type(name) is str for name in names)
    _need(sound, f"feature_names_in_ is not {count(n_features, 'name')}")
    return tuple(names)


def _check_methods(estimator: Any, name: str) -> None:
    """Refuse attributes that would replace a method of the same name."""
    kind: Any = type(estimator)
    replaced = sorted(vars(estimator).keys() & _members(kind))
    _need(not replaced, f"{name} replaces its own {', '.join(replaced)}")


@cache
def _members(kind: Any) -> set[str]:
    return {name for parent in kind.__mro__ for name in vars(parent)}


def _is_vector(values: Any, kinds: str, length: int) -> bool:
    return type(values) is np.ndarray and values.shape == (length,) and values.dtype.kind in kinds


def _need(sound: bool, fault: str) -> None:
    if not sound:
        raise ValueError(fault)
