"""Which rows to train on, as the command line names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import CannotTrain, nearest
from training import kddcup99
from training.datasets import Dataset, held_out_spending, spending
from training.tables import from_file

SPENDING = "spending"
KDDCUP99 = "kddcup99"

Batches = tuple[Dataset, Dataset | None]


@dataclass(frozen=True)
class Source:
    """A dataset by its name or path, and the options that say what to take of it."""

    name: str
    samples: int | None = None
    columns: Sequence[str] | None = None
    seed: int = 16
    attack_share: float = kddcup99.ATTACK_SHARE
    full: bool = False
    data_home: Path | None = None
    label: str | None = None
    allow_missing: bool = False

    def read(self) -> Batches:
        """Return the rows to train on, and held-out rows to evaluate on where there are any.

        Raises:
            CannotTrain: no such dataset, or it cannot be trained on.
        """
        self._refuse_misplaced()
        if self.name == SPENDING:
            return self._spending()
        if self.name == KDDCUP99:
            return self._kddcup99()
        return self._table(), None

    def _spending(self) -> Batches:
        batches = spending(), held_out_spending()
        if self.columns is not None:
            batches = batches[0].only(self.columns), batches[1].only(self.columns)
        return self._drawn(batches[0]), batches[1]

    def _kddcup99(self) -> Batches:
        connections = kddcup99.load(self.data_home, self.full)
        samples = kddcup99.SAMPLES if self.samples is None else self.samples
        return kddcup99.draw(connections, samples, self.attack_share, self.columns, self.seed)

    def _table(self) -> Dataset:
        path = Path(self.name)
        if not path.suffix:
            hint = nearest(self.name, (SPENDING, KDDCUP99))
            raise CannotTrain(
                f"there is no dataset {self.name!r}{hint}; give {SPENDING}, {KDDCUP99} or the path "
                "of a .csv or .parquet file"
            )
        return self._drawn(from_file(path, self.columns, self.label, self.allow_missing))

    def _drawn(self, dataset: Dataset) -> Dataset:
        return dataset if self.samples is None else dataset.draw(self.samples, self.seed)

    def _refuse_misplaced(self) -> None:
        """Refuse an option that would do nothing with this dataset."""
        own = "a table of your own"
        kind = self.name if self.name in (SPENDING, KDDCUP99) else own
        for option, given, goes_with in (
            ("--label", self.label is not None, own),
            ("--allow_missing", self.allow_missing, own),
            ("--full", self.full, KDDCUP99),
            ("--data_home", self.data_home is not None, KDDCUP99),
        ):
            if given and kind != goes_with:
                raise CannotTrain(f"{option} goes with {goes_with}, not with {self.name}")
