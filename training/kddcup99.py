"""KDD Cup 1999: network connections, normal ones and 22 named attacks."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import fetch_kddcup99

from service.errors import CannotTrain
from service.rows import Floats
from training.datasets import Dataset, pick

SAMPLES = 50_000
ATTACK_SHARE = 0.1  # share of attacks among the rows drawn, when contamination is 'auto'

TARGET = "target"
_TEXT_COLUMNS = ("protocol_type", "service", "flag")
_LEFT_OUT = "service"  # by default, because most of its 66 values are rare

_KINDS = {
    "normal": ("normal",),
    "dos": ("back", "land", "neptune", "pod", "smurf", "teardrop"),
    "probe": ("ipsweep", "nmap", "portsweep", "satan"),
    "r2l": (
        "ftp_write", "guess_passwd", "imap", "multihop", "phf", "spy", "warezclient", "warezmaster",
    ),
    "u2r": ("buffer_overflow", "loadmodule", "perl", "rootkit"),
}  # fmt: skip
_KIND_OF = {attack: kind for kind, attacks in _KINDS.items() for attack in attacks}

# For the 10 percent and the full set: scikit-learn's folder and archive, and the original archive.
_CACHE = {False: "kddcup99_10-py3", True: "kddcup99-py3"}
_ARCHIVE = {False: "kddcup99_10_data", True: "kddcup99_data"}
_ORIGINAL = {False: "kddcup.data_10_percent.gz", True: "kddcup.data.gz"}
_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Connections:
    """The rows of the file: `cells` is (n_rows, 41) objects, where text is bytes."""

    cells: NDArray[Any]
    columns: tuple[str, ...]
    kinds: NDArray[np.str_]
    """(n_rows,) 'normal', 'dos', 'probe', 'r2l' or 'u2r'."""


def load(data_home: Path | None = None, full: bool = False) -> Connections:
    """Read the 10 percent file, or the full one, from scikit-learn's cache or the network.

    Raises:
        CannotTrain: neither has the file; the text says how to put it into the cache by hand.
    """
    try:
        with _short_timeout():
            bunch = fetch_kddcup99(data_home=data_home, percent10=not full, n_retries=1)
    except OSError as error:
        raise CannotTrain(_by_hand(data_home, full, error)) from error
    return Connections(bunch.data, tuple(bunch.feature_names), attack_kinds(bunch.target))


def attack_kinds(targets: NDArray[Any]) -> NDArray[np.str_]:
    """Map the file's targets, such as b'smurf.', to 'normal' or one of the four kinds of attack.

    >>> attack_kinds(np.array([b"smurf.", b"normal."], dtype=object))
    array(['dos', 'normal'], dtype='<U6')
    """
    names, places = np.unique(targets.astype(bytes), return_inverse=True)
    attacks = [name.decode().rstrip(".") for name in names.tolist()]
    if unknown := [name for name in attacks if name not in _KIND_OF]:
        raise CannotTrain(f"kddcup99 holds an attack type that is not known here: {unknown[0]!r}")
    return np.array([_KIND_OF[name] for name in attacks])[places]


def draw(
    connections: Connections,
    samples: int = SAMPLES,
    share: float = ATTACK_SHARE,
    keep_cols: Sequence[str] | None = None,
    seed: int = 16,
) -> tuple[Dataset, Dataset | None]:
    """Draw rows with a given share of attacks: one batch to train on, one held out.

    Most rows of the file are attacks: a forest trained on all of them would take the normal rows
    for outliers. No row of the file is in both batches, but the file has many equal rows. The
    second batch is as large as the first, smaller where too few rows are left, and None when no
    attack or no normal row is left.

    `keep_cols` names columns of the file or one-hot columns, by default all but `service`. The
    label, `target`, may be among them but is never a feature.
    """
    rng = np.random.default_rng(seed)
    attack = connections.kinds != "normal"
    pools = [rng.permutation(np.flatnonzero(attack == wanted)) for wanted in (False, True)]
    attacks = round(samples * share)
    sizes = [samples - attacks, attacks]
    _check_pools(pools, sizes, samples, share)
    columns = _Columns(connections)
    features = columns.features(keep_cols)
    first = [pool[:n] for pool, n in zip(pools, sizes, strict=True)]
    training = columns.dataset(features, np.concatenate(first))
    second = _second_sizes(pools, sizes)
    if min(second) == 0:
        return training, None
    rest = [pool[n : n + m] for pool, n, m in zip(pools, sizes, second, strict=True)]
    return training, columns.dataset(features, np.concatenate(rest))


class _Columns:
    """The columns by name, before and after one-hot encoding."""

    def __init__(self, connections: Connections) -> None:
        self._cells = connections.cells
        self._kinds = connections.kinds
        self._place = {name: j for j, name in enumerate(connections.columns)}
        self._values = {
            f"{column}_{value.decode()}": (column, value)
            for column in _TEXT_COLUMNS
            for value in np.unique(self._cells[:, self._place[column]].astype(bytes)).tolist()
        }

    def features(self, keep_cols: Sequence[str] | None) -> list[str]:
        """Return the wanted features; one-hot columns replace each column of text."""
        if keep_cols is None:
            keep_cols = [name for name in self._place if name != _LEFT_OUT]
        names = [*self._place, *self._values, TARGET]
        kept = [name for name in pick(keep_cols, names) if name != TARGET]
        if not kept:
            raise CannotTrain("--keep_cols keeps the label only; name a column to train on")
        return pick([feature for name in kept for feature in self._one_hot(name)], names)

    def dataset(self, features: list[str], rows: NDArray[np.int64]) -> Dataset:
        """Return some rows, in the order of the file."""
        rows = np.sort(rows)
        return Dataset.of_numbers(
            "kddcup99",
            np.column_stack([self.values(name, rows) for name in features]),
            features,
            [self.type(name) for name in features],
            (self._kinds[rows] != "normal").astype(np.int64),
            kinds=self._kinds[rows],
        )

    def values(self, feature: str, rows: NDArray[np.int64]) -> Floats:
        """Return one feature of some rows as (n_rows,) floats."""
        if feature in self._values:
            column, value = self._values[feature]
            floats: Floats = (self._cells[rows, self._place[column]] == value).astype(np.float64)
        else:
            floats = self._cells[rows, self._place[feature]].astype(np.float64)
        return floats

    def type(self, feature: str) -> str:
        """Return the type of a feature: 'bool', 'int' or 'float'."""
        if feature in self._values:
            return "bool"
        return type(self._cells[0, self._place[feature]]).__name__

    def _one_hot(self, name: str) -> list[str]:
        if name not in _TEXT_COLUMNS:
            return [name]
        return [feature for feature, (column, _) in self._values.items() if column == name]


def _check_pools(
    pools: list[NDArray[np.int64]], sizes: list[int], samples: int, share: float
) -> None:
    for pool, size, noun in zip(pools, sizes, ("normal rows", "attacks"), strict=True):
        if size > len(pool):
            raise CannotTrain(
                f"--samples {samples} with a share of {share:.6g} attacks needs {size:,} {noun}, "
                f"but the file has {len(pool):,}: draw at most {samples * len(pool) // size:,}"
            )


def _second_sizes(pools: list[NDArray[np.int64]], sizes: list[int]) -> list[int]:
    """Return how many rows of each pool the second batch has, in the proportion of the first."""
    left = [len(pool) - size for pool, size in zip(pools, sizes, strict=True)]
    scale = min([1.0, *(have / size for have, size in zip(left, sizes, strict=True) if size)])
    return [int(size * scale) for size in sizes]


@contextmanager
def _short_timeout() -> Iterator[None]:
    """Stop waiting for a network that does not answer, and leave the message to `_by_hand`."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        socket.setdefaulttimeout(before)


def _by_hand(data_home: Path | None, full: bool, error: OSError) -> str:
    home = data_home or Path(os.environ.get("SCIKIT_LEARN_DATA", "~/scikit_learn_data"))
    place = home.expanduser().absolute() / _CACHE[full] / _ARCHIVE[full]
    return (
        f"kddcup99 is not in {place.parent} and could not be fetched ({error}); without a network, "
        f"save the archive {_ORIGINAL[full]} there as {place.name} and run this again"
    )
