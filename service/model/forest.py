"""A fitted forest as plain arrays. Nothing else in the service knows scikit-learn's attributes."""

from __future__ import annotations

from collections.abc import Callable
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
    """How many training rows passed the node."""
    levels: NDArray[np.integer]
    """The number of nodes from the root to this one, both included."""
    extra: Floats
    """The expected steps that would separate the training rows of the node."""
    columns: NDArray[np.integer]
    """(n_tree_features,) The forest's columns that the tree may look at."""


@dataclass(frozen=True, eq=False)
class Forest:
    """What scoring needs of a fitted forest."""

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

    @property
    def n_nodes(self) -> int:
        """The number of nodes of all trees."""
        return sum(tree.left.size for tree in self.trees)


def unpack(fitted: Any) -> Forest:
    """Read a fitted scikit-learn IsolationForest. The arrays are its own, not copies.

    The types and shapes are checked, because the forest may come from a file; the values are not:
    see `checks`.

    Raises:
        ValueError: the first attribute that is not as scikit-learn leaves it.
    """
    if "estimators_" not in vars(fitted):
        raise ValueError("it holds an IsolationForest that was never fitted")
    _check_methods(fitted, "the forest")
    n_features = _attribute(fitted, "n_features_in_", "a whole number", _is_whole)
    return Forest(
        trees=_trees(fitted),
        n_features=int(n_features),
        max_samples=int(_attribute(fitted, "_max_samples", "a whole number", _is_whole)),
        offset=float(
            _attribute(fitted, "offset_", "a number", lambda value: isinstance(value, float))
        ),
        names=_names(fitted, int(n_features)),
    )


def average_path_length(n: int) -> float:
    """Return the expected path length of a row in an isolation tree of n rows, in steps.

    The result is scikit-learn's to the last bit.
    """
    if n <= 2:
        return float(n == 2)
    return float(2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n)


def _trees(fitted: Any) -> list[Tree]:
    estimators = _attribute(
        fitted, "estimators_", "a list of trees", lambda value: type(value) is list and bool(value)
    )
    trees = []
    for i, (estimator, columns, levels, extra) in enumerate(
        zip(
            estimators,
            _per_tree(fitted, "estimators_features_", len(estimators), list),
            _per_tree(fitted, "_decision_path_lengths", len(estimators), tuple),
            _per_tree(fitted, "_average_path_length_per_tree", len(estimators), tuple),
            strict=True,
        )
    ):
        table = _node_table(estimator, i)
        _need(
            _is_vector(columns, "i", table.n_features),
            f"estimators_features_[{i}] is not {count(table.n_features, 'column')}",
        )
        _need(
            _is_vector(levels, "iu", table.node_count) and _is_vector(extra, "f", table.node_count),
            f"tree {i} has not a path length for each node",
        )
        trees.append(
            Tree(
                table.children_left,
                table.children_right,
                table.feature,
                table.threshold,
                table.missing_go_to_left,
                table.n_node_samples,
                levels,
                extra,
                columns,
            )
        )
    return trees


def _node_table(estimator: Any, i: int) -> Any:
    _need(type(estimator) is ExtraTreeRegressor, f"estimator {i} is not an ExtraTreeRegressor")
    _check_methods(estimator, f"estimator {i}")
    table: Any = vars(estimator).get("tree_")
    _need(type(table) is NodeTable and table.node_count > 0, f"estimator {i} has no tree")
    _need(table.n_outputs == 1 and table.max_n_classes == 1, f"tree {i} is no regression tree")
    return table


def _names(fitted: Any, n_features: int) -> tuple[str, ...] | None:
    names = vars(fitted).get("feature_names_in_")
    if names is None:
        return None
    _need(
        _is_vector(names, "O", n_features) and all(type(name) is str for name in names),
        f"feature_names_in_ is not {count(n_features, 'name')}",
    )
    return tuple(names)


def _check_methods(estimator: Any, name: str) -> None:
    """Refuse attributes that would replace a method of the same name."""
    kind: Any = type(estimator)
    replaced = sorted(vars(estimator).keys() & _members(kind))
    _need(not replaced, f"{name} replaces its own {', '.join(replaced)}")


@cache
def _members(kind: Any) -> set[str]:
    return {name for parent in kind.__mro__ for name in vars(parent)}


def _per_tree(fitted: Any, name: str, trees: int, kind: type) -> Any:
    return _attribute(
        fitted,
        name,
        f"a {kind.__name__} with one entry for each tree",
        lambda value: isinstance(value, kind) and len(value) == trees,  # type: ignore[arg-type]
    )


def _attribute(fitted: Any, name: str, what: str, fits: Callable[[Any], bool]) -> Any:
    value = vars(fitted).get(name)
    _need(fits(value), f"{name} is not {what}")
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer)


def _is_vector(values: Any, kinds: str, length: int) -> bool:
    return type(values) is np.ndarray and values.shape == (length,) and values.dtype.kind in kinds


def _need(sound: bool, fault: str) -> None:
    if not sound:
        raise ValueError(fault)
