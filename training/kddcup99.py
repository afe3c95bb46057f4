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
ATTACK_SHARE = 0.1  # of a draw when contamination is 'auto'

TARGET = "target"
_TEXT_COLUMNS = ("protocol_type", "service", "flag")
_LEFT_OUT = "service"  # by default: 66 values, most of them rare

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

# Where scikit-learn looks for the archive and its unpacked form, by whether it is the full set.
_CACHE = {False: "kddcup99_10-py3", True: "kddcup99-py3"}
_ARCHIVE = {False: "kddcup99_10_data", True: "kddcup99_data"}
_ORIGINAL = {False: "kddcup.data_10_percent.gz", True: "kddcup.data.gz"}
_NO_ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Connections:
    """The file as it is: `cells` is (n_rows, 41) objects, text still in bytes."""

    cells: NDArray[Any]
    columns: tuple[str, ...]
    kinds: NDArray[np.str_]
    """(n_rows,) 'normal', 'dos', 'probe', 'r2l' or 'u2r'."""


def load(data_home: Path | None = None, full: bool = False) -> Connections:
    """Read the 10 percent file, or the full one, from scikit-learn's cache or the network.

    Raises:
        CannotTrain: neither has it; the text says how to lay the file by hand.
    """
    try:
        with _quick_refusal():
            bunch = fetch_kddcup99(data_home=data_home, percent10=not full, n_retries=1)
    except OSError as error:
        raise CannotTrain(_by_hand(data_home, full, error)) from error
    return Connections(bunch.data, tuple(bunch.feature_names), attack_kinds(bunch.target))


def attack_kinds(targets: NDArray[Any]) -> NDArray[np.str_]:
    """Map the file's attack types, such as b'smurf.', to the four kinds and 'normal' by name.

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

    In the whole file attacks are the majority and a forest would rank upside down. The batches
    share no row of the file (it holds many equal rows, though). Where too few rows are left for a
    second batch of the same size it is smaller, and None when no attack or no normal row is left.

    `keep_cols` takes the file's columns and the one-hot ones; `target` among them is the label,
    which is never a feature. By default all columns but `service`.
    """
    attack = connections.kinds != "normal"
    rng = np.random.default_rng(seed)
    pools = [rng.permutation(np.flatnonzero(attack == wanted)) for wanted in (False, True)]
    attacks = round(samples * share)
    sizes = [samples - attacks, attacks]
    _check_pools(pools, sizes, samples, share)
    second = _second_sizes(pools, sizes)
    table = _Columns(connections)
    features = table.features(keep_cols)

    def batch(places: list[NDArray[np.int64]]) -> Dataset:
        rows = np.sort(np.concatenate(places))
        return Dataset(
            "kddcup99",
            np.column_stack([table.values(name, rows) for name in features]),
            tuple(features),
            tuple(table.type(name) for name in features),
            attack[rows].astype(np.int64),
            connections.kinds[rows],
        )

    training = batch([pool[:n] for pool, n in zip(pools, sizes, strict=True)])
    if min(second) == 0:
        return training, None
    rest = [pool[n : n + m] for pool, n, m in zip(pools, sizes, second, strict=True)]
    return training, batch(rest)


class _Columns:
    """The columns by name, before and after one-hot encoding."""

    def __init__(self, connections: Connections) -> None:
        self._cells = connections.cells
        self._place = {name: j for j, name in enumerate(connections.columns)}
        self._values = {
            f"{column}_{value.decode()}": (column, value)
            for column in _TEXT_COLUMNS
            for value in np.unique(self._cells[:, self._place[column]].astype(bytes)).tolist()
        }

    def features(self, keep_cols: Sequence[str] | None) -> list[str]:
        """Return the wanted features, each text column spelled out as its one-hot ones."""
        if keep_cols is None:
            keep_cols = [name for name in self._place if name != _LEFT_OUT]
        names = [*self._place, *self._values, TARGET]
        kept = [name for name in pick(keep_cols, names) if name != TARGET]
        if not kept:
            raise CannotTrain("--keep_cols keeps the label only; name a column to train on")
        return pick([feature for name in kept for feature in self._spelled_out(name)], names)

    def values(self, feature: str, rows: NDArray[np.int64]) -> Floats:
        """Return some rows of one feature as (n_rows,) floats."""
        if feature in self._values:
            column, value = self._values[feature]
            floats: Floats = (self._cells[rows, self._place[column]] == value).astype(np.float64)
        else:
            floats = self._cells[rows, self._place[feature]].astype(np.float64)
        return floats

    def type(self, feature: str) -> str:
        """Return the card's word for what a feature holds."""
        if feature in self._values:
            return "bool"
        return type(self._cells[0, self._place[feature]]).__name__

    def _spelled_out(self, name: str) -> list[str]:
        if name not in _TEXT_COLUMNS:
            return [name]
        return [feature for feature, (column, _) in self._values.items() if column == name]


def _check_pools(
    pools: list[NDArray[np.int64]], sizes: list[int], samples: int, share: float
) -> None:
    for pool, size, noun in zip(pools, sizes, ("normal rows", "attacks"), strict=True):
        if size > len(pool):
            raise CannotTrain(
                f"--samples {samples} with {share:.6g} of them attacks takes {size:,} {noun}, and "
                f"the file has {len(pool):,}: draw at most {samples * len(pool) // size:,}"
            )


def _second_sizes(pools: list[NDArray[np.int64]], sizes: list[int]) -> list[int]:
    """Return how many rows of each pool the second batch takes, in the shares of the first."""
    left = [len(pool) - size for pool, size in zip(pools, sizes, strict=True)]
    scale = min([1.0, *(have / size for have, size in zip(left, sizes, strict=True) if size)])
    return [int(size * scale) for size in sizes]


@contextmanager
def _quick_refusal() -> Iterator[None]:
    """Give up on a network that never answers, and keep the words for our own sentence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NO_ANSWER_SECONDS)
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
        f"put the archive {_ORIGINAL[full]} there by hand as {place.name} and run this again"
    )
