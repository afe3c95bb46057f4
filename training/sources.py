"""The dataset that the options of the command line ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import CannotTrain, nearest
from service.tables.places import is_address
from training import kddcup99
from training.datasets import POOL, Dataset, held_out_spending, spending
from training.forest import Auto
from training.parts import Watch
from training.tables import Options, from_file

SPENDING = "spending"
KDDCUP99 = "kddcup99"

_OWN = (
    ("label", "label", None),
    ("label_outlier", "label_outlier", None),
    ("columns", "columns", ""),
    ("id", "id", None),
    ("no_missing", "missing", True),
    ("pool", "pool", POOL),
)
_READING = (("sep", "separator"), ("decimal", "decimal"), ("encoding", "encoding"))
"""Options of a table of one's own, and the fields that hold them."""

Batches = tuple[Dataset, Dataset | None]


@dataclass(frozen=True)
class Source:
    """The name or path of a dataset, and the options that choose its rows and columns."""

    name: str
    samples: int | None = None
    columns: Sequence[str] | None = None
    seed: int = 16
    contamination: float | Auto = "auto"
    """The share of attacks to draw from kddcup99."""
    full: bool = False
    data_home: Path | None = None
    table: Options = field(default_factory=Options)
    """What is said of a table of one's own."""

    def read(self, watch: Watch = lambda rows, share: None) -> Batches:
        """Return the rows to train on, and held-out rows for evaluation if there are any.

        `watch` is told how much of a table of one's own is read.

        Raises:
            CannotTrain: the dataset does not exist or is not fit for training.
        """
        self._refuse_misplaced()
        if self.name == SPENDING:
            return self._spending()
        if self.name == KDDCUP99:
            return self._kddcup99()
        return self._table(watch), None

    def _spending(self) -> Batches:
        training, held_out = spending(), held_out_spending()
        if self.columns is not None:
            training, held_out = training.only(self.columns), held_out.only(self.columns)
        return self._drawn(training), held_out

    def _kddcup99(self) -> Batches:
        connections = kddcup99.load(self.data_home, self.full)
        samples = kddcup99.SAMPLES if self.samples is None else self.samples
        share = kddcup99.ATTACK_SHARE if self.contamination == "auto" else self.contamination
        return kddcup99.draw(connections, samples, share, self.columns, self.seed)

    def _table(self, watch: Watch) -> Dataset:
        path = Path(self.name)
        if not (
            path.suffix or is_address(self.name) or path.exists() or set("*?[/") & {*self.name}
        ):
            hint = nearest(self.name, (SPENDING, KDDCUP99))
            raise CannotTrain(
                f"there is no dataset {self.name!r}{hint}; give {SPENDING}, {KDDCUP99} or the path "
                "of a file or folder: CSV, Parquet or Arrow"
            )
        return from_file(
            self.name,
            self.table,
            watch,
            keep_cols=self.columns,
            samples=self.samples,
            seed=self.seed,
        )

    def _drawn(self, dataset: Dataset) -> Dataset:
        return dataset if self.samples is None else dataset.draw(self.samples, self.seed)

    def _refuse_misplaced(self) -> None:
        """Refuse an option that has no effect on this dataset."""
        own = "a table of your own"
        kind = self.name if self.name in (SPENDING, KDDCUP99) else own
        for option, given, goes_with in (
            *(
                (f"--{name}", getattr(self.table, part) != default, own)
                for name, part, default in _OWN
            ),
            *(
                (f"--{name}", bool(getattr(self.table.choices, part)), own)
                for name, part in _READING
            ),
            ("--full", self.full, KDDCUP99),
            ("--data_home", self.data_home is not None, KDDCUP99),
        ):
            if given and kind != goes_with:
                raise CannotTrain(f"{option} goes with {goes_with}, not with {self.name}")
