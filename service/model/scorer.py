"""A compiled forest: it gives scikit-learn's scores, bit for bit, in microseconds.

`compile_forest` arranges the trees for the loops of `kernels`; a `CompiledForest` runs these.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import kernels
from ..rows import Floats
from .forest import Forest, Tree, join, unpack
from .jit import find_cache

PIECE = 2048, 8192
"""The fewest rows that are worth a thread, and the most that one call of a kernel takes."""

BLOCK = 24 * 1024
"""Bytes of row keys that stay in the first-level cache beside a small tree: half of it."""

AT_ONCE = 128
"""Trees that are laid out together: many for speed, not all, to limit the memory."""

_FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True, eq=False)
class CompiledForest:
    """A fitted forest that scores tables of floats.

    X is (n_rows, n_features) of any numeric type and memory order; NaN is a missing value. The
    arrays are described in `kernels`. Nothing writes to them, so forked workers share their memory.
    """

    nodes: NDArray[np.void]
    lengths: Floats
    roots: NDArray[np.uint64]
    depth: int
    n_features: int
    denominator: float
    """The sum of path lengths that scores -0.5, or 0 for a forest grown from single rows."""
    offset: float
    """scikit-learn's `offset_`."""
    threads: int
    """How many threads share a large batch."""

    def score_samples(self, X: NDArray[Any]) -> Floats:
        """Return scikit-learn's `score_samples`: (n_rows,) in [-1, 0), lower is more abnormal."""
        return np.negative(self.anomalies(X))

    def decision_function(self, X: NDArray[Any]) -> Floats:
        """Return scikit-learn's `decision_function`: (n_rows,), lower is more abnormal."""
        # This is score_samples - offset, rounded the same, with one operation less.
        return np.subtract(-self.offset, self.anomalies(X))

    def anomalies(self, X: NDArray[Any]) -> Floats:
        """Return 2 ** -(mean path length / expected path length): (n_rows,) in (0, 1]."""
        if not self.denominator:  # scikit-learn's case of single samples
            return np.full(len(self._table(X)), 0.5)
        exponents = self._path_lengths(X, -self.denominator)
        # numpy's own power: the C library's differs from it in the last bit.
        return np.power(2.0, exponents, out=exponents)

    def row_anomaly(self, row: Floats) -> Floats:
        """Return the `anomalies` of a contiguous (1, n_features) float64 row, faster."""
        if not self.denominator:
            return self.anomalies(row)
        sums = np.empty(1)
        self._path_kernel(
            self.nodes, self.lengths, self.roots, self.depth,
            self._block_rows, -self.denominator, row, sums,
        )  # fmt: skip
        return np.power(2.0, sums)

    def depths(self, X: NDArray[Any]) -> Floats:
        """Return the mean path length of each row: (n_rows,), in steps, shorter is more abnormal.

        A leaf with several training rows adds the steps that would be expected to separate them.
        """
        return self._path_lengths(X, float(self.roots.size))

    def contributions(self, X: NDArray[Any]) -> Floats:
        """Return each feature's share in the path length of each row: (n_rows, n_features), steps.

        Every step down a tree changes the expected path length. The change counts for the feature
        that the node compares; a negative one makes the row more abnormal. The shares of a row add
        up to its `depths` minus `mean_depth`. They are not SHAP values.
        """
        table = self._table(X)
        shares = np.zeros(table.shape)
        self._run(kernels.kernels(self.nodes.dtype).contributions, (), table, shares)
        shares /= self.roots.size
        return shares

    def one_tree(self, tree: int) -> "CompiledForest":
        """Return the forest of this one tree; it has the same arrays, and `depths` in steps."""
        return replace(self, roots=self.roots[tree : tree + 1])

    @property
    def cache(self) -> Path | None:
        """The folder that keeps the machine code; None if each process compiles it again."""
        return find_cache(kernels.kernels(self.nodes.dtype).path_lengths)

    @cached_property
    def mean_depth(self) -> float:
        """The mean path length of the training rows, in steps."""
        return float(self.lengths[self.roots].mean())

    def alikeness(self, row: Floats, X: NDArray[Any]) -> Floats:
        """Return how alike each row of X is to one row (n_features,): (n_rows,), 0 to 1.

        It is the share of the trees in which both are in the same leaf (the proximity of Breiman
        and Cutler, Random Forests, 2003).
        """
        table = self._table(X)
        shares = np.empty(len(table))
        self._run(kernels.kernels(self.nodes.dtype).shared_leaves, (_plain(row),), table, shares)
        return shares

    def _path_lengths(self, X: NDArray[Any], divisor: float) -> Floats:
        """Return the sum of each row's path lengths, over `divisor`."""
        table = self._table(X)
        sums = np.empty(len(table))
        self._run(self._path_kernel, (self._block_rows, divisor), table, sums)
        return sums

    def _table(self, X: NDArray[Any]) -> NDArray[Any]:
        table = np.asarray(X)
        if table.ndim != 2 or table.shape[1] != self.n_features:
            raise ValueError(
                f"X has the shape {table.shape}; the forest takes (n, {self.n_features})"
            )
        return table

    def _run(
        self, kernel: Any, arguments: tuple[Any, ...], table: NDArray[Any], out: Floats
    ) -> None:
        """Run a kernel over the rows; many rows are cut into pieces for several threads."""
        forest = self.nodes, self.lengths, self.roots, self.depth

        def run(rows: slice) -> None:
            kernel(*forest, *arguments, _plain(table[rows]), out[rows])

        if len(table) < 2 * PIECE[0]:
            run(slice(None))
            return
        pieces = _pieces(len(table), self.threads)
        for _ in _pool(self.threads).map(run, pieces) if self.threads > 1 else map(run, pieces):
            pass

    @cached_property
    def _path_kernel(self) -> Any:
        return kernels.kernels(self.nodes.dtype).path_lengths

    @cached_property
    def _block_rows(self) -> int:
        """Rows that go down one tree before the next tree begins.

        Their keys fit into the first-level cache beside a small tree. A large tree is read from
        memory again for each block, so larger trees have larger blocks.
        """
        tree_bytes = self.nodes.nbytes // self.roots.size
        row_bytes = 2 * 4 * self.n_features
        rows = max(BLOCK, 4 * tree_bytes) // row_bytes
        return max(kernels.LANES, min(rows, PIECE[1]) // kernels.LANES * kernels.LANES)


def compile_forest(fitted: Any, threads: int | None = None) -> CompiledForest:
    """Compile a fitted scikit-learn IsolationForest; see `compile_trees`."""
    return compile_trees(unpack(fitted), threads)


def compile_trees(forest: Forest, threads: int | None = None) -> CompiledForest:
    """Arrange the trees for scoring and compile the kernels. The forest itself is not kept.

    `threads` share a large batch; by default one for each processor that the process may use.
    """
    starts = range(0, len(forest.trees), AT_ONCE)
    parts = [_lay_out(forest.trees[start : start + AT_ONCE]) for start in starts]
    nodes = np.concatenate([part[0] for part in parts])
    sizes = np.array([tree.left.size for tree in forest.trees])
    if max(nodes["column"].max(), nodes["jump"].max()) <= np.iinfo(np.uint16).max:
        nodes = nodes.astype(kernels.COMPACT)
    kernels.kernels(nodes.dtype)  # compile now, in the parent of the workers
    return CompiledForest(
        nodes=nodes,
        lengths=np.concatenate([part[1] for part in parts]),
        roots=(np.cumsum(sizes) - sizes).astype(np.uint64),
        depth=max(part[2] for part in parts),
        n_features=forest.n_features,
        denominator=forest.denominator,
        offset=forest.offset,
        threads=threads or _processors(),
    )


def compile_kernels() -> None:
    """Compile the kernels for small and large forests, so that no later forest has to wait."""
    kernels.kernels(kernels.COMPACT)
    kernels.kernels(kernels.WIDE)


def _lay_out(trees: list[Tree]) -> tuple[NDArray[np.void], Floats, int]:
    """Return the nodes and lengths of some trees, and the depth of the deepest.

    The nodes of a tree are numbered breadth first, which puts siblings side by side.
    """
    tree, roots, index = _join(trees)
    levels = [roots]
    while (parents := levels[-1][tree.left[levels[-1]] >= 0]).size:
        levels.append(np.stack([tree.left[parents], tree.right[parents]], axis=1).ravel())
    order = np.concatenate(levels)
    order = order[np.argsort(index[order], kind="stable")]
    new_index = np.empty_like(order)
    new_index[order] = np.arange(order.size)

    inner = tree.left[order] >= 0
    column = 2 * tree.feature[order] + (tree.missing_left[order] == 0)
    nodes = np.zeros(order.size, kernels.WIDE)
    nodes["key"] = np.where(inner, kernels.threshold_keys(tree.threshold[order]), kernels.LEAF)
    nodes["column"] = np.where(inner, kernels.LANES * column, 0)
    nodes["jump"] = np.where(inner, new_index[tree.left[order]] - new_index[order], 0)
    return nodes, _expected_lengths(tree, levels)[order], len(levels) - 1


def _join(trees: list[Tree]) -> tuple[Tree, NDArray[np.intp], NDArray[np.intp]]:
    """Join trees as `forest.join`, with children numbered throughout and columns of the forest."""
    features = [tree.columns[np.maximum(tree.feature, 0)] for tree in trees]  # any for a leaf
    table, roots, index = join(trees)
    first = roots[index]
    left = np.where(table.left < 0, table.left, table.left + first)
    right, feature = table.right + first, np.concatenate(features)
    return table._replace(left=left, right=right, feature=feature), roots, index


def _expected_lengths(tree: Tree, levels: list[NDArray[np.intp]]) -> Floats:
    """Return the mean path length of the training rows below each node; in a leaf its own."""
    expected = tree.levels + tree.extra - 1.0  # in scikit-learn's order, so that bits are equal
    for level in reversed(levels[:-1]):
        parents = level[tree.left[level] >= 0]
        left, right = tree.left[parents], tree.right[parents]
        total = tree.rows[left] * expected[left] + tree.rows[right] * expected[right]
        expected[parents] = total / tree.rows[parents]
    return expected


def _plain(table: NDArray[Any]) -> Floats:
    """Return a table as contiguous float64, without a copy if it is that already."""
    if table.dtype != _FLOAT64:
        # scikit-learn rounds to float32 first; values beyond its range become infinite.
        with np.errstate(over="ignore"):
            table = table.astype(np.float32, copy=False).astype(_FLOAT64)
    return np.ascontiguousarray(table)


def _pieces(n_rows: int, threads: int) -> list[slice]:
    """Cut rows into pieces of about equal size, the same number for each thread."""
    fewest, most = PIECE
    threads = min(threads, n_rows // fewest)
    n = threads * math.ceil(n_rows / (threads * most))
    edges = [n_rows * i // n for i in range(n + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="scorer")


# A forked worker inherits the pool, but not its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
