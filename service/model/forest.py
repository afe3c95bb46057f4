"""A fitted forest as plain arrays. Nothing else in the service reads scikit-learn's attributes."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import count
from ..rows import Floats

LEAF, NO_COLUMN = -1, -2
"""scikit-learn's marks in a leaf: no child, and no column."""

MOST_TREES = 25_000
"""More than a pickle of the most instructions can hold."""

LONGEST_NAME = 1_000
"""The most characters of a column's name."""

_NODES = {
    "left_child": "i", "right_child": "i", "feature": "i", "threshold": "f",
    "missing_go_to_left": "bu", "n_node_samples": "i", "split_kind": "i",
}  # fmt: skip
"""The fields of scikit-learn's nodes that scoring needs, and the kinds of their numbers."""


class Tree(NamedTuple):
    """One tree as scikit-learn numbers its nodes: arrays (n_nodes,), apart from `columns`."""

    left: NDArray[np.integer]
    """The left child; LEAF in a leaf."""
    right: NDArray[np.integer]
    feature: NDArray[np.integer]
    """An index into `columns`; NO_COLUMN in a leaf."""
    threshold: Floats
    missing_left: NDArray[np.integer]
    """1 where a missing value goes left, 0 where it goes right."""
    rows: NDArray[np.integer]
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
        return len(self.trees) * float(average_path_lengths(np.array([self.max_samples]))[0])

    @property
    def knows_gaps(self) -> bool:
        """Whether some tree has seen missing values in training.

        Where a node has seen none, missing values go to the child with more training rows; where it
        has, the tree chose a side by chance. Versions that take no missing values leave all 0.
        """
        return any(map(_has_chosen_sides, self.trees))


def _has_chosen_sides(tree: Tree) -> bool:
    inner = tree.left != LEAF
    sides = tree.missing_left[inner] != 0
    left, right = tree.rows[tree.left[inner]], tree.rows[tree.right[inner]]
    return bool(sides.any() and (sides != (left > right)).any())


def join(trees: list[Tree]) -> tuple[Tree, NDArray[np.intp], NDArray[np.intp]]:
    """Join trees into one table of nodes, in which children keep their numbers in their tree.

    Returns also the index of each tree's first node, and of each node's tree.
    """
    sizes = np.array([tree.left.size for tree in trees])
    table = Tree(*map(np.concatenate, zip(*trees, strict=True)))
    return table, np.cumsum(sizes) - sizes, np.repeat(np.arange(len(trees)), sizes)


def unpack(fitted: Any) -> Forest:
    """Read a fitted IsolationForest: scikit-learn's own, or what stands for one in `pickles`.

    The arrays are its own, not copies. Their types and shapes are checked, because the forest may
    come from a file; the values are not: see `checks`.

    Raises:
        ValueError: the first attribute that is not as scikit-learn leaves it.
    """
    values = vars(fitted)
    if "estimators_" not in values:
        raise ValueError("it holds an IsolationForest that was never fitted; call its fit first")
    n_features = _whole(values.get("n_features_in_"), "n_features_in_")
    samples = {_whole(values[name], name) for name in _SAMPLES if name in values}
    _need(len(samples) == 1, "_max_samples and max_samples_ are not one whole number")
    _need(isinstance(values.get("offset_"), float), "offset_ is not a number")
    names = _names(values.get("feature_names_in_"), n_features)
    return Forest(_trees(values), n_features, samples.pop(), float(values["offset_"]), names)


_SAMPLES = (
    "_max_samples",
    "max_samples_",
)  # scikit-learn scores with the first, before 1.3 the other


def average_path_lengths(n: NDArray[Any]) -> Floats:
    """Return the expected path length of a row in an isolation tree of n rows, in steps.

    The results are scikit-learn's to the last bit.
    """
    lengths = np.where(n <= 1, 0.0, 1.0)
    many = n[n > 2]
    lengths[n > 2] = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return lengths


def check_names(names: tuple[str, ...]) -> None:
    """Check that requests and answers can name each column.

    Raises:
        ValueError: a name occurs twice, is too long or is no valid text.
    """
    if len(set(names)) < len(names):
        raise ValueError("two columns have one name")
    for j, name in enumerate(names):
        if len(name) > LONGEST_NAME:
            raise ValueError(f"the name of column {j} has more than {LONGEST_NAME:,} characters")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the name of column {j} is not valid text") from error


def contradiction(names: tuple[str, ...], forest: Forest) -> str:
    """Return how the columns of a card or table contradict the forest's own; '' if they do not.

    A forest that was fitted on an array has no names, only a number of columns.
    """
    if len(names) != forest.n_features:
        return f"has {count(len(names), 'column')}, and the forest {forest.n_features}"
    if forest.names is None or names == forest.names:
        return ""
    j = next(j for j, name in enumerate(names) if name != forest.names[j])
    how = "in another order than" if set(names) == set(forest.names) else "otherwise than"
    return (
        f"names the columns {how} the table that the forest was fitted on: column {j} is "
        f"{names[j]!a}, there {forest.names[j]!a}"
    )


def _trees(values: dict[str, Any]) -> list[Tree]:
    estimators = values["estimators_"]
    _need(type(estimators) is list and bool(estimators), "estimators_ is not a list of trees")
    _need(len(estimators) <= MOST_TREES, f"it has more than {MOST_TREES:,} trees")
    columns = _each(values, "estimators_features_", list, len(estimators))
    levels = _each(values, "_decision_path_lengths", tuple, len(estimators))
    extra = _each(values, "_average_path_length_per_tree", tuple, len(estimators))
    entries = zip(estimators, columns, levels, extra, strict=True)
    trees = [_tree(i, *entry) for i, entry in enumerate(entries)]
    distinct = {id(vars(estimator)["tree_"]) for estimator in estimators}
    _need(len(distinct) == len(trees), "two entries of estimators_ are one tree")
    return trees


def _each(values: dict[str, Any], name: str, kind: type[Any], n: int) -> Any:
    """Return an attribute with an entry for each tree; path lengths are new in 1.3."""
    if kind is tuple and name not in values:
        return [None] * n
    entries: Any = values.get(name)
    sound = type(entries) is kind and len(values[name]) == n
    _need(sound, f"{name} is not a {kind.__name__} with one entry for each tree")
    return entries


def _tree(i: int, estimator: Any, columns: Any, levels: Any, extra: Any) -> Tree:
    sound = type(estimator).__name__ == "ExtraTreeRegressor"
    _need(sound, f"estimator {i} is not an ExtraTreeRegressor")
    tree: Any = vars(estimator).get("tree_")
    _need(type(tree).__name__ == "Tree", f"estimator {i} has no tree")
    n_features = _whole(tree.n_features, f"n_features of tree {i}")
    sound = _is_vector(columns, "i", n_features)
    _need(sound, f"estimators_features_[{i}] is not {count(n_features, 'column')}")
    left, right, feature, threshold, missing_left, rows = _nodes(i, tree.__getstate__())
    if levels is None:
        levels = _count_levels(left, right)
    if extra is None:
        extra = average_path_lengths(rows)
    sound = _is_vector(levels, "iu", left.size) and _is_vector(extra, "f", left.size)
    _need(sound, f"tree {i} does not have a path length for each node")
    return Tree(left, right, feature, threshold, missing_left, rows, levels, extra, columns)


def _nodes(i: int, state: dict[str, Any]) -> list[NDArray[Any]]:
    """Return the fields of a tree's nodes, in any of scikit-learn's layouts."""
    nodes: Any = state.get("nodes")
    _need(_is_vector(nodes, "V", state.get("node_count")) and nodes.size, f"tree {i} has no nodes")
    fields: dict[str, Any] = {name: nodes[name] for name in nodes.dtype.names or ()}
    threshold_or_set = fields.get("split_value")  # a union, on the way to scikit-learn 1.10
    if threshold_or_set is not None and "threshold" in (threshold_or_set.dtype.names or ()):
        fields["threshold"] = threshold_or_set["threshold"]
    fields.setdefault("missing_go_to_left", np.zeros(nodes.size, np.uint8))  # from 1.3 on
    fields.setdefault("split_kind", np.zeros(nodes.size, np.int8))  # from 1.10 on
    for name, kinds in _NODES.items():
        sound = _is_vector(fields.get(name), kinds, nodes.size)
        _need(sound, f"tree {i} has no {name}, as no known version; fit it with scikit-learn 1.9")
    by_category = (fields["left_child"] != LEAF) & (fields["split_kind"] != 0)
    _need(
        not by_category.any(),
        f"tree {i} splits a column by categories, not by a threshold; fit it on numbers",
    )
    return [fields[name] for name in _NODES if name != "split_kind"]


def _count_levels(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    """Return the level of each node, the root's is 1, as versions from 1.3 on store it."""
    levels = [1] * len(left)
    for node, children in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        for child in children:
            if node < child < len(levels):
                levels[child] = levels[node] + 1
    return np.array(levels)


def _names(names: Any, n_features: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    sound = _is_vector(names, "O", n_features) and all(type(name) is str for name in names)
    _need(sound, f"feature_names_in_ is not {count(n_features, 'name')}")
    found = tuple(names)
    check_names(found)
    return found


def _whole(number: Any, name: str) -> int:
    _need(type(number) is int or isinstance(number, np.integer), f"{name} is not a whole number")
    return int(number)


def _is_vector(values: Any, kinds: str, length: Any) -> bool:
    return type(values) is np.ndarray and values.shape == (length,) and values.dtype.kind in kinds


def _need(sound: Any, fault: str) -> None:
    if not sound:
        raise ValueError(fault)
