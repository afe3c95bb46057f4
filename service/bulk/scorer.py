"""Score batches of Arrow columns by a model: what a thread, or a worker of a cluster, does."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import BadInput
from ..rows import Floats
from ..serving.detector import Detector
from .encoding import Encoded, Fault, encode_batch
from .layout import Layout

TOP = 5
"""The most abnormal rows that the summary shows."""


class Found(NamedTuple):
    """One of the most abnormal rows; the order of these is the order of their scores."""

    score: float
    label: str
    """The file."""
    row: int
    """Its index in the file, counted from 0."""
    reasons: tuple[tuple[str, Any], ...]
    """The columns that isolated it most, and its cells in them."""


class Reject(NamedTuple):
    """A row that cannot be scored."""

    row: int
    column: str
    """Empty if the row has too many or too few cells."""
    why: str
    cells: dict[str, Any] | str
    """By name, or the line of a CSV file."""


@dataclass
class Totals:
    """What the summary counts. Adding is exact and in any order."""

    rows: int = 0
    outliers: int = 0
    rejected: int = 0
    odd: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Odd cells by column and kind as in `rows.ODD`."""
    top: list[Found] = field(default_factory=list)
    """The most abnormal rows, the lowest score first."""

    def add(self, other: Totals) -> None:
        """Add the totals of other rows."""
        self.rows += other.rows
        self.outliers += other.outliers
        self.rejected += other.rejected
        self.odd.update(other.odd)
        self.top = heapq.nsmallest(TOP, self.top + other.top, key=lambda found: found[:3])


@dataclass
class Part:
    """A batch that is scored."""

    table: pa.RecordBatch
    """The rows to write."""
    rows: int
    """How many rows the batch had."""
    totals: Totals
    rejects: list[Reject]


@dataclass(frozen=True)
class BatchScorer:
    """Scores batches; it holds nothing about them, so that threads share it."""

    detector: Detector
    explain: int = 0
    only_outliers: bool = False
    rejects: bool = False
    """Whether bad rows are returned with their reasons; else the first one raises."""

    @classmethod
    def one_thread(cls, detector: Detector, **choices: Any) -> BatchScorer:
        """Return a scorer that starts no threads of its own."""
        model = replace(detector.model, scorer=replace(detector.model.scorer, threads=1))
        return cls(replace(detector, model=model), **choices)

    def score(self, batch: pa.RecordBatch, start: int, layout: Layout) -> Part:
        """Score a batch whose first row has the index `start` in its table.

        Raises:
            BadInput: a cell is not what its column takes, and bad rows are not collected.
        """
        columns = self.detector.columns
        cells = [batch.column(j) for j in layout.scored]
        try:
            encoded = encode_batch(columns, cells, layout.decimal or "")
        except BadInput as error:
            raise BadInput(f"{layout.label}: {error}") from error
        n, rejects = len(batch), self._take_out(encoded, batch, start, layout)
        rows = np.arange(start, start + n)
        if rejects:
            good = np.ones(n, np.bool_)
            good[[fault.row for fault in encoded.faults]] = False
            batch, rows = batch.filter(pa.array(good)), rows[good]
            encoded = replace(encoded, values=encoded.values[good])
        scores = self.detector.model.scorer.decision_function(encoded.values)
        outliers = scores < self.detector.threshold
        totals = Totals(len(scores), int(outliers.sum()), len(rejects), encoded.odd)
        totals.top = self._find_top(scores, rows, encoded.values, batch, layout)
        table = self._table(batch, layout, scores, outliers, encoded.values)
        if self.only_outliers:
            table = table.filter(pa.array(outliers))
        return Part(table, n, totals, rejects)

    def schema(self, kept: Sequence[pa.Field]) -> pa.Schema:
        """Return the columns that are written: those that are kept, and what is added."""
        return pa.schema([*kept, *self._added()])

    def _added(self) -> list[pa.Field]:
        added = [("score", pa.float64()), ("outlier", pa.int8())]
        if getattr(self.detector, "pvalues", None) is not None:
            added.append(("pvalue", pa.float64()))
        for k in range(1, self._reasons + 1):
            added += [(f"reason_{k}", pa.string()), (f"contribution_{k}", pa.float64())]
        return [pa.field(*one) for one in added]

    @property
    def _reasons(self) -> int:
        return min(self.explain, len(self.detector.columns.names))

    def _table(
        self,
        batch: pa.RecordBatch,
        layout: Layout,
        scores: Floats,
        outliers: np.ndarray[Any, np.dtype[np.bool_]],
        values: Floats,
    ) -> pa.RecordBatch:
        added = [pa.array(scores), pa.array(outliers.astype(np.int8))]
        if (pvalues := getattr(self.detector, "pvalues", None)) is not None:
            added.append(pa.array(pvalues.of(scores)))
        if self._reasons:
            added += self._reason_columns(np.flatnonzero(outliers), len(scores), values)
        kept = [batch.column(j) for j in layout.kept]
        fields = [batch.schema.field(j) for j in layout.kept]
        return pa.record_batch([*kept, *added], schema=self.schema(fields))

    def _reason_columns(
        self, flagged: np.ndarray[Any, np.dtype[np.intp]], n: int, values: Floats
    ) -> list[pa.Array]:
        """Return the names and contributions of the columns that isolated each flagged row most."""
        shares = self._explain(values[flagged])
        order = np.argsort(shares, axis=1, kind="stable")[:, : self._reasons]
        names = np.array(self.detector.columns.names, dtype=object)
        found: list[pa.Array] = []
        for k in range(self._reasons):
            name, share = np.full(n, None, object), np.zeros(n)
            chosen = order[:, k]
            name[flagged] = names[chosen]
            share[flagged] = shares[np.arange(len(flagged)), chosen]
            is_inlier = np.ones(n, np.bool_)
            is_inlier[flagged] = False
            found += [pa.array(name, pa.string()), pa.array(share, mask=is_inlier)]
        return found

    def _explain(self, values: Floats) -> Floats:
        return self.detector.columns.add_up(self.detector.model.scorer.contributions(values))

    def _take_out(
        self, encoded: Encoded, batch: pa.RecordBatch, start: int, layout: Layout
    ) -> list[Reject]:
        """Return the rows that cannot be scored, or raise for the first of them."""
        if encoded.faults and not self.rejects:
            raise BadRow(start + encoded.faults[0].row, self._where(encoded.faults[0], layout))
        return [
            Reject(
                start + fault.row,
                layout.names[layout.scored[fault.column]],
                fault.text,
                dict(zip(layout.names, _row(batch, fault.row), strict=True)),
            )
            for fault in encoded.faults
        ]

    def _where(self, fault: Fault, layout: Layout) -> str:
        j = layout.scored[fault.column]
        return f"column {layout.read[j]} ({layout.names[j]}): {fault.text}"

    def _find_top(
        self,
        scores: Floats,
        rows: np.ndarray[Any, np.dtype[np.int64]],
        values: Floats,
        batch: pa.RecordBatch,
        layout: Layout,
    ) -> list[Found]:
        """Return the most abnormal rows with the columns that isolated them most."""
        lowest = np.argsort(scores, kind="stable")[:TOP] if len(scores) <= TOP else _lowest(scores)
        shares = self._explain(values[lowest])
        order = np.argsort(shares, axis=1, kind="stable")[:, :3].tolist()
        names = self.detector.columns.names
        return [
            Found(
                float(scores[i]),
                layout.label,
                int(rows[i]),
                tuple((names[j], batch.column(layout.scored[j])[i].as_py()) for j in chosen),
            )
            for i, chosen in zip(lowest.tolist(), order, strict=True)
        ]


class BadRow(BadInput):
    """A row cannot be scored; `row` is its index among the rows that were read."""

    def __init__(self, row: int, text: str) -> None:
        super().__init__(f"row {row}, {text}")
        self.row, self.text = row, text

    def __reduce__(self) -> tuple[type[BadRow], tuple[int, str]]:
        return BadRow, (self.row, self.text)


def _lowest(scores: Floats) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the indices of the lowest scores, of equal ones the first."""
    limit = np.partition(scores, TOP - 1)[TOP - 1]
    found = np.flatnonzero(scores <= limit)
    order = np.lexsort((found, scores[found]))[:TOP]
    chosen: np.ndarray[Any, np.dtype[np.intp]] = found[order]
    return chosen


def _row(batch: pa.RecordBatch, i: int) -> list[Any]:
    return [column[i].as_py() for column in batch.columns]
