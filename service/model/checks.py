"""Check that a forest from a file can be scored safely.

Scoring trusts a fitted tree: a child or a column out of range would make it read foreign memory,
and a cycle would never end. `check_forest` looks at every number that scoring uses, so any forest
that passes is scored safely, no matter which program wrote the file. What a file says twice, such
as the depth of a node, must agree.
"""

import numpy as np
from numpy.typing import NDArray

from .forest import LEAF, NO_COLUMN, Forest, Tree, average_path_lengths, join

DEEPEST = 64
"""The most levels of a tree. An isolation tree of n samples has about log2(n)."""

_MOST_COLUMNS, _MOST_SAMPLES = 10**6, 2**53


def check_forest(forest: Forest) -> None:
    """Check all values that scoring reads.

    Raises:
        ValueError: the first value that scikit-learn could not have made.
    """
    for name, number, most in (
        ("n_features_in_", forest.n_features, _MOST_COLUMNS),
        ("_max_samples", forest.max_samples, _MOST_SAMPLES),
    ):
        if not 1 <= number <= most:
            raise ValueError(f"{name} is not a whole number from 1 to {most:,}")
    if not abs(forest.offset) <= 1:  # NaN fails, too
        raise ValueError("offset_ is not from -1 to 1")
    for i, tree in enumerate(forest.trees):
        if not ((tree.columns >= 0) & (tree.columns < forest.n_features)).all():
            raise ValueError(f"tree {i} looks at a column that is not among {forest.n_features}")
    nodes = _Nodes(forest.trees)
    _check_values(nodes)
    _check_children(nodes)
    _check_depth(nodes)
    _check_steps(nodes, forest.max_samples)


class _Nodes:
    """The nodes of all trees, one after another: arrays (n_nodes,)."""

    def __init__(self, trees: list[Tree]) -> None:
        self.tree, self.roots, self.index = join(trees)
        self.first = self.roots[self.index]
        """The first node of each node's tree."""
        self.own = np.arange(len(self.index)) - self.first
        """Each node's number in its tree."""
        self.size = np.array([tree.left.size for tree in trees])[self.index]
        """The number of nodes of each node's tree."""
        self.columns = np.array([tree.columns.size for tree in trees])[self.index]
        """The number of columns of each node's tree."""
        self.inner = (self.tree.left != LEAF) | (self.tree.right != LEAF)

    def need(self, sound: NDArray[np.bool_], fault: str) -> None:
        """Raise for the first node that is not `sound`."""
        if not sound.all():
            node = np.argmin(sound)
            raise ValueError(f"node {self.own[node]} of tree {self.index[node]} {fault}")

    def need_inner(self, sound: NDArray[np.bool_], fault: str) -> None:
        """Raise for the first node that is not `sound`, except leaves."""
        self.need(sound | ~self.inner, fault)


def _check_values(nodes: _Nodes) -> None:
    tree = nodes.tree
    # scikit-learn numbers children after their parents, so this alone rules out cycles.
    for child in (tree.left, tree.right):
        nodes.need_inner(
            (child > nodes.own) & (child < nodes.size), "has a child that is not below it"
        )
    nodes.need_inner(
        (tree.feature >= 0) & (tree.feature < nodes.columns), "looks at no column of its tree"
    )
    nodes.need(nodes.inner | (tree.feature == NO_COLUMN), "is a leaf that looks at a column")
    nodes.need_inner(np.isfinite(tree.threshold), "has a threshold that is not a number")
    nodes.need(tree.rows > 0, "has no training rows")
    nodes.need(tree.missing_left <= 1, "sends missing values nowhere")


def _check_children(nodes: _Nodes) -> None:
    """Check that each node but a root has one parent, and that children share its rows."""
    inner, rows = nodes.inner, nodes.tree.rows
    left, right = ((child + nodes.first)[inner] for child in (nodes.tree.left, nodes.tree.right))
    parents = np.bincount(np.concatenate([left, right]), minlength=len(inner))
    nodes.need(parents == (nodes.own > 0), "does not have one parent")
    of_children = np.zeros_like(rows)
    of_children[inner] = rows[left] + rows[right]
    nodes.need_inner(of_children == rows, "has other training rows than its children")


def _check_depth(nodes: _Nodes) -> None:
    level = nodes.roots
    depths = np.zeros_like(nodes.own)
    for number in range(DEEPEST):
        depths[level] = number + 1
        level = level[nodes.inner[level]]
        children = [nodes.tree.left[level], nodes.tree.right[level]]
        level = np.concatenate(children) + np.tile(nodes.first[level], 2)
    if level.size:
        raise ValueError(f"a tree is deeper than {DEEPEST} levels")
    nodes.need(nodes.tree.levels == depths, "is at another depth than its path length says")


def _check_steps(nodes: _Nodes, most: int) -> None:
    tree = nodes.tree
    nodes.need(tree.rows <= most, "has more training rows than _max_samples")
    # Not to the last bit: the logarithm of another machine or numpy may differ in it.
    steps = np.isclose(tree.extra, average_path_lengths(tree.rows), rtol=1e-9, atol=0.0)
    nodes.need(steps, "has a path length that is not the one of its training rows")
