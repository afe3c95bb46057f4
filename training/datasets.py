"""A table ready for training, and the built-in spending sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import CannotTrain, count, nearest
from service.model.card import Column, LeftOut
from service.model.encoding import make_encoder
from service.rows import Floats

SPENDING_ROWS = 20_000
SPENDING_SEED = 64  # not --seed: the table is always the same
SPENDING_OUTLIERS = 0.005
"""The share of planted outliers, and so the sample's contamination by default."""

# Most users buy one small package, or the same package each time, so most rows have one of a few
# values. Unit: standard deviations above the lowest mean.
_PACKAGES = (0.0, 0.0635, 0.127, 0.2857, 0.92)
_PACKAGE_SHARES = (0.06, 0.06, 0.58, 0.22, 0.08)

_LIKELY_LABELS = frozenset({"label", "target", "class"})

# scikit-learn splits a column only where 32-bit floats differ by more than this.
_SMALLEST_STEP = np.float32(1e-7)


POOL = 1_000_000
"""The most rows of a table of one's own that are held in memory, by default."""

UNLABELLED = -1
"""The label of a row whose label is not known."""


@dataclass(frozen=True)
class Recognised:
    """What a column of a file was taken for, to be printed."""

    name: str
    kind: str
    example: str
    gaps: float
    """The share of missing cells."""
    done: str
    why: str


@dataclass(frozen=True)
class Whole:
    """A table that is larger than the memory, of which a dataset is a uniform sample."""

    rows: int
    ranges: Mapping[str, tuple[float, float]]
    """The smallest and the largest number of each column of numbers."""
    read: Callable[[Callable[[int, float], None]], Iterator[Floats]]
    """Yields all rows in batches as `X` has them, and tells the rows so far and their share."""


@dataclass(frozen=True)
class Dataset:
    """A checked table of training rows.

    `X` is (n_rows, n_features) float64, the encoded matrix; NaN is a missing cell. It is an array,
    not a data frame, so that the pickle of a forest fitted on it does not need pandas. `columns`
    say how the columns of the table became these features. `labels` is (n_rows,), 1 for a known
    outlier, 0 for an inlier and UNLABELLED.
    """

    name: str
    X: Floats
    columns: tuple[Column, ...]
    labels: NDArray[np.int64] | None = None
    kinds: NDArray[np.str_] | None = None
    """(n_rows,) the kind of outlier that each row is, if known."""
    left_out: tuple[LeftOut, ...] = ()
    id: str | None = None
    """The column among those left out that is returned with answers."""
    decimal: str = "."
    recognised: tuple[Recognised, ...] = ()
    """What each column of a file was taken for."""
    notes: tuple[str, ...] = ()
    """Sentences about how the file was read."""
    raw: Callable[[int], list[Any]] | None = None
    """Returns the cells of a row as a request sends them; None if `X` has them."""
    whole: Whole | None = None
    """The table that the rows are a sample of; None if they are all of it."""

    def __len__(self) -> int:
        return len(self.X)

    @classmethod
    def of_numbers(
        cls,
        name: str,
        X: Floats,
        names: Sequence[str],
        types: Sequence[str] = (),
        labels: NDArray[np.int64] | None = None,
        **more: Any,
    ) -> Dataset:
        """Return a table of numbers; `types` are 'bool', 'int' or 'float', by default 'float'."""
        missing = np.isnan(X).sum(axis=0).tolist()
        kinds = zip(names, types or ["float"] * len(names), missing, strict=True)
        columns = tuple(Column(one, "number", kind, gaps) for one, kind, gaps in kinds)
        return cls(name, X, columns, labels, **more)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def encoded(self) -> tuple[str, ...]:
        """The names of the columns of `X`."""
        return tuple(name for column in self.columns for name in make_encoder(column).features)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of the columns' cells."""
        return tuple(column.type for column in self.columns)

    def cells(self, row: int) -> list[Any]:
        """Return the cells of a row as a request sends them."""
        if self.raw is not None:
            return self.raw(row)
        return [None if np.isnan(cell) else cell for cell in self.X[row].tolist()]

    def only(self, columns: Sequence[str]) -> Dataset:
        """Return all rows of a table of numbers with only these columns, in this order."""
        order = [self.features.index(name) for name in pick(columns, self.features)]
        return replace(
            self,
            X=np.ascontiguousarray(self.X[:, order]),
            columns=tuple(self.columns[j] for j in order),
        )

    def draw(self, rows: int, seed: int) -> Dataset:
        """Draw some rows of a table of numbers uniformly; they keep their order."""
        if rows > len(self):
            raise CannotTrain(f"--samples {rows}: {self.name} has {count(len(self), 'row')}")
        places = np.sort(np.random.default_rng(seed).choice(len(self), rows, replace=False))
        return replace(
            self,
            X=self.X[places],
            labels=None if self.labels is None else self.labels[places],
            kinds=None if self.kinds is None else self.kinds[places],
        )


def spending(rows: int = SPENDING_ROWS, seed: int = SPENDING_SEED) -> Dataset:
    """Generate what users of an app spend: the `mean` and `sd` of each user's credits.

    Both are normalised and heavily right-skewed: many users have the lowest values, some have very
    large ones, and sd grows with the mean. One row in 200 is a planted outlier: a large mean with
    the lowest sd, a small mean with a large sd, or both large.
    """
    rng = np.random.default_rng(seed)
    steady = rng.random(rows) < 0.65
    mean = np.where(steady, rng.choice(_PACKAGES, rows, p=_PACKAGE_SHARES), _tail(rng, rows, 40.0))
    varies = ~steady & (rng.random(rows) < 0.7)
    sd = np.where(varies, np.minimum(mean * rng.lognormal(-0.2, 0.7, rows), 35.0), 0.0)

    planted = rng.choice(rows, round(rows * SPENDING_OUTLIERS), replace=False)
    kind = rng.integers(3, size=len(planted))
    large_mean = _between(rng, len(planted), 1.5, 66.2)
    large_sd = _between(rng, len(planted), 1.5, 58.0)
    mean[planted] = np.where(kind == 1, _tail(rng, len(planted), 2.0), large_mean)
    sd[planted] = np.where(kind == 0, 0.0, large_sd)

    labels = np.zeros(rows, dtype=np.int64)
    labels[planted] = 1
    X = np.column_stack([mean - 0.28, sd - 0.11]).round(6)
    return Dataset.of_numbers("spending", X, ("mean", "sd"), labels=labels)


def held_out_spending() -> Dataset:
    """Return other rows of the same kind as `spending()`, for evaluation."""
    return spending(seed=SPENDING_SEED + 1)


def write_spending(folder: Path) -> None:
    """Write the sample as `train.csv` and `test.csv`, without replacing existing files.

    The files hold the exact values of `spending().X` and `held_out_spending().X`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, dataset in (("train.csv", spending()), ("test.csv", held_out_spending())):
        if (folder / name).exists():
            continue
        lines = [",".join(dataset.features)]
        lines += [",".join(map(repr, row)) for row in dataset.X.tolist()]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def pick(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the wanted columns, after checking that each exists and is named once.

    >>> pick(["sd"], ["mean", "sd"])
    ['sd']
    """
    if doubled := [name for name, times in Counter(wanted).items() if times > 1]:
        raise CannotTrain(f"--keep_cols names the column {doubled[0]!r} twice")
    for name in wanted:
        if name not in names:
            raise CannotTrain(
                f"there is no column {name!r}{nearest(name, names)}; columns are {listed(names)}"
            )
    return list(wanted)


def listed(names: Sequence[str]) -> str:
    """Return the first eight names in quotes, and the number of the others.

    >>> listed(["mean", "sd"])
    "'mean', 'sd'"
    """
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(repr, names[:8])) + more


def oddities(dataset: Dataset, held_out: Dataset | None = None) -> list[str]:
    """Return a warning for each oddity in the training rows, and in the labels for evaluation.

    Raises:
        CannotTrain: every column is constant.
    """
    found = []
    if _numbers_for_names(dataset.features):
        found.append(f"the columns are named {listed(dataset.features)}: is the header missing?")
    if dataset.labels is None and (likely := _LIKELY_LABELS.intersection(dataset.features)):
        found.append(
            f"{listed(sorted(likely))} is used for training like any other column; if it marks "
            "outliers, name it with --label"
        )
    labels = (held_out or dataset).labels
    labels = None if labels is None else labels[labels != UNLABELLED]
    if labels is not None and labels.min() == labels.max():
        found.append(f"every label is {labels[0]}, so the model cannot be evaluated")
    plain = [column.kind in ("number", "flag") for column in dataset.columns]
    constant: list[str] = []
    if all(plain):  # other columns are constant only where they are left out
        constant = [dataset.features[j] for j in np.flatnonzero(_constant(dataset.X))]
    if len(constant) == len(dataset.features):
        raise CannotTrain(
            f"every column of {dataset.name} is constant; a forest needs one that varies"
        )
    if constant:
        found.append(
            f"the forest cannot use constant columns: {listed(constant)} "
            "(it compares 32-bit floats, and needs a difference above 1e-7)"
        )
    return found


def _constant(X: Floats) -> NDArray[np.bool_]:
    """Tell which columns a tree cannot split. It can split missing cells from the others."""
    low, high = (bound.reduce(X, axis=0).astype(np.float32) for bound in (np.fmin, np.fmax))
    missing = np.isnan(X).sum(axis=0)
    varies: NDArray[np.bool_] = (high > low + _SMALLEST_STEP) | (missing > 0) & (missing < len(X))
    return ~varies


def _numbers_for_names(names: Sequence[str]) -> bool:
    """Tell whether the header looks like a row of data; pandas' own 0, 1, 2 does not count."""
    try:
        values = [float(name) for name in names]
    except ValueError:
        return False
    return values != list(range(len(names)))


def _tail(rng: np.random.Generator, rows: int, top: float) -> Floats:
    """Draw from a Lomax distribution cut at `top`: 1 % is above 2.5 and 0.1 % above 10."""
    scale, shape = 0.178, 1.7
    share = rng.random(rows) * (1 - (1 + top / scale) ** -shape)
    tail: Floats = scale * ((1 - share) ** (-1 / shape) - 1)
    return tail


def _between(rng: np.random.Generator, rows: int, low: float, top: float) -> Floats:
    """Draw from a log-uniform distribution: small outliers are as frequent as large ones."""
    drawn: Floats = np.exp(rng.uniform(np.log(low), np.log(top), rows))
    return drawn
