"""Loops that traverse the trees, compiled by numba. `scorer` arranges the trees for them.

Five ideas make them fast, and each is exact:

1. scikit-learn compares float32 values with float64 thresholds. `x <= t` is true exactly when
   `x <= floor(t)`, where floor is the largest float32 not above t: thresholds need 4 bytes.
2. Floats become unsigned integers of the same order (`order_key`), which compare faster.
3. A node sends NaN left or right. So each value has two keys, which differ only for NaN: the lowest
   key in the even column, the highest in the odd one. A node reads the column that it needs.
4. A node is 8 bytes. Its children lie side by side, so a step down is an addition:
   `node + jump + (x > key)`. A leaf has jump 0 and the highest key, so further steps stay on it:
   every row takes the same number of steps, and no branch can be mispredicted.
5. Sixteen rows, or eight trees for a single row, advance together: the processor works on one
   while another waits for memory.

A forest's arrays are

    nodes    (n_nodes,) records `key`, `column`, `jump`, all trees one after another
    lengths  (n_nodes,) float64, the path length of a row that ends here; in an inner node the mean
             path length of the training rows that pass it
    roots    (n_trees,) uint64, the index of each tree's root in `nodes`
    depth    the number of steps after which every row is in a leaf
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import config, from_dtype, njit, types

from ..errors import BadSetting
from .jit import compile_ahead, is_cached

COMPACT = np.dtype([("key", "u4"), ("column", "u2"), ("jump", "u2")])
WIDE = np.dtype([("key", "u4"), ("column", "u4"), ("jump", "u4")])
"""The two layouts of a node; the second is for forests whose columns or jumps exceed 65,535."""

LANES = 16
"""Rows that advance together, each in a lane. Their keys are interleaved: the key of column c in
lane k is at LANES * c + k, and a node's `column` is LANES * c."""

LEAF = 0xFFFFFFFF
"""The key of a leaf: no key is greater."""

NAN_LEFT, NAN_RIGHT = 0, 0xFFFFFFFF
"""The two keys of NaN: not greater than any node's, and greater than all but a leaf's."""


def order_key(x):
    """Return uint32 keys with the order of float32 values; -0.0 and 0.0 have the same key.

    x is an array, or in compiled code one value; never NaN.
    """
    bits = np.float32(x + np.float32(0)).view(np.uint32)  # -0.0 + 0.0 is 0.0
    # The bits of negative numbers have the opposite order: flip them all; else flip the sign only.
    return np.uint32(bits ^ ((bits >> 31) * 0x7FFFFFFF | 0x80000000))


_order_key = njit(order_key)


def threshold_keys(thresholds):
    """Return the keys of the largest float32 values not above these float64 thresholds.

    No value is at most NaN, so its key is the lowest; only a missing value that goes left has it.
    """
    with np.errstate(over="ignore"):
        floors = thresholds.astype(np.float32)
    floors = np.where(floors > thresholds, np.nextafter(floors, -np.inf), floors)
    return np.where(np.isnan(thresholds), NAN_LEFT, order_key(floors))


class Kernels(NamedTuple):
    """The compiled functions for one layout of nodes."""

    path_lengths: Any
    contributions: Any
    shared_leaves: Any


@cache
def kernels(layout: np.dtype[np.void]) -> Kernels:
    """Compile for a layout of nodes, once in a process: some seconds, less than one from disk.

    Raises:
        BadSetting: NUMBA_DISABLE_JIT is set.
    """
    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        raise BadSetting("NUMBA_DISABLE_JIT is set, and a forest must be compiled: unset it")
    arrays = from_dtype(layout), types.float64, types.uint64
    forest = *map(_frozen, arrays), types.intp
    X = _frozen(types.float64, dimensions=2)
    sums, table = types.float64[::1], types.float64[:, ::1]
    return Kernels(
        compile_ahead(path_lengths, *forest, types.intp, types.float64, X, sums),
        compile_ahead(contributions, *forest, X, table),
        compile_ahead(shared_leaves, *forest, _frozen(types.float64), X, sums),
    )


def are_compiled() -> bool:
    """Return whether machine code is kept from an earlier start, which then compiles nothing."""
    return is_cached(path_lengths)


def _frozen(dtype: Any, dimensions: int = 1) -> Any:
    return types.Array(dtype, dimensions, "C", readonly=True)


@njit
def _write_keys(row, keys, first, last):
    """Write both keys of each value of a row to the lanes from `first` up to `last`."""
    for feature in range(row.size):
        x = np.float32(row[feature])
        if np.isnan(x):
            left, right = np.uint32(NAN_LEFT), np.uint32(NAN_RIGHT)
        else:
            left = right = _order_key(x)
        column = 2 * LANES * feature
        for lane in range(first, last):
            keys[column + lane] = left
            keys[column + LANES + lane] = right


@njit
def _child(nodes, i, keys, lane):
    node = nodes[i]
    right = keys[np.uint64(node.column) + np.uint64(lane)] > node.key
    return i + np.uint64(node.jump) + np.uint64(right)


@njit
def _step(nodes, at, keys, lane):
    """Take eight nodes one level down, each by the keys of its own lane from `lane` on."""
    a, b, c, d, e, f, g, h = at
    return (
        _child(nodes, a, keys, lane + 0),
        _child(nodes, b, keys, lane + 1),
        _child(nodes, c, keys, lane + 2),
        _child(nodes, d, keys, lane + 3),
        _child(nodes, e, keys, lane + 4),
        _child(nodes, f, keys, lane + 5),
        _child(nodes, g, keys, lane + 6),
        _child(nodes, h, keys, lane + 7),
    )


@njit
def _eight_roots(roots, t):
    """Return the roots of eight trees from the t-th on; after the last tree, its root again."""
    z = roots.size - 1
    return (
        roots[t],
        roots[min(t + 1, z)],
        roots[min(t + 2, z)],
        roots[min(t + 3, z)],
        roots[min(t + 4, z)],
        roots[min(t + 5, z)],
        roots[min(t + 6, z)],
        roots[min(t + 7, z)],
    )


@njit
def _eight_leaves(nodes, roots, depth, keys, t):
    """Return the leaves of one row in eight trees from the t-th on."""
    at = _eight_roots(roots, t)
    for _ in range(depth):
        at = _step(nodes, at, keys, 0)
    return at


@njit
def _add_block(nodes, lengths, roots, depth, keys, sums):
    """Add the path lengths of a block of rows to `sums`, tree by tree."""
    for root in roots:
        for group in range(sums.size // LANES):
            first = second = (root, root, root, root, root, root, root, root)
            for _ in range(depth):
                first = _step(nodes, first, keys[group], 0)
                second = _step(nodes, second, keys[group], 8)
            for k in range(8):
                sums[LANES * group + k] += lengths[first[k]]
                sums[LANES * group + 8 + k] += lengths[second[k]]


@njit
def _sum_row(nodes, lengths, roots, depth, keys):
    """Return the path lengths of one row, added up tree by tree."""
    total = 0.0
    for t in range(0, roots.size, 8):
        at = _eight_leaves(nodes, roots, depth, keys, t)
        for k in range(min(8, roots.size - t)):
            total += lengths[at[k]]
    return total


def path_lengths(nodes, lengths, roots, depth, block_rows, divisor, X, out):
    """Write to `out` the path lengths of each row of X, added up tree by tree, over `divisor`."""
    n_rows, n_features = X.shape
    whole = n_rows - n_rows % LANES
    groups = max(1, min(block_rows, whole) // LANES)
    keys = np.empty((groups, 2 * LANES * n_features), np.uint32)
    out[:] = 0.0
    for start in range(0, whole, block_rows):
        stop = min(start + block_rows, whole)
        for row in range(start, stop):
            lane = (row - start) % LANES
            _write_keys(X[row], keys[(row - start) // LANES], lane, lane + 1)
        _add_block(nodes, lengths, roots, depth, keys, out[start:stop])
    for row in range(whole, n_rows):
        _write_keys(X[row], keys[0], 0, 8)
        out[row] = _sum_row(nodes, lengths, roots, depth, keys[0])
    for row in range(n_rows):
        out[row] /= divisor


def contributions(nodes, lengths, roots, depth, X, out):
    """Add to `out` the change of each row's expected path length at each step, by feature."""
    n_rows, n_features = X.shape
    keys = np.empty(2 * LANES * n_features, np.uint32)
    for row in range(n_rows):
        _write_keys(X[row], keys, 0, 8)
        for t in range(0, roots.size, 8):
            at = _eight_roots(roots, t)
            for _ in range(depth):
                below = _step(nodes, at, keys, 0)
                for k in range(min(8, roots.size - t)):
                    change = lengths[below[k]] - lengths[at[k]]
                    out[row, nodes[at[k]].column // (2 * LANES)] += change
                at = below


def shared_leaves(nodes, lengths, roots, depth, row, X, out):
    """Write to `out` the share of the trees in which each row of X is in the leaf of `row`."""
    n_rows, n_features = X.shape
    keys = np.empty(2 * LANES * n_features, np.uint32)
    leaves = np.empty(roots.size, np.uint64)
    _write_keys(row, keys, 0, 8)
    for t in range(0, roots.size, 8):
        at = _eight_leaves(nodes, roots, depth, keys, t)
        for k in range(min(8, roots.size - t)):
            leaves[t + k] = at[k]
    for i in range(n_rows):
        _write_keys(X[i], keys, 0, 8)
        shared = 0
        for t in range(0, roots.size, 8):
            at = _eight_leaves(nodes, roots, depth, keys, t)
            for k in range(min(8, roots.size - t)):
                shared += at[k] == leaves[t + k]
        out[i] = shared / roots.size
