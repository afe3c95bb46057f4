"""Score Arrow tables from Python: for Ray, Spark, Polars and other programs that pass tables on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from ..model.file import load_model
from ..serving.detector import Detector
from ..tables.batches import Batches
from .job import read_batches
from .layout import plan_layout
from .scorer import BatchScorer

Arrow = TypeVar("Arrow", pa.Table, pa.RecordBatch)


class ArrowScorer:
    """Adds `score` and `outlier` to tables, as the command `score` does.

    It may be pickled: each process that gets it opens the model file once.

    >>> scorer = ArrowScorer("models/model.pickle")  # doctest: +SKIP
    >>> scorer(pa.table({"mean": [0.0], "sd": [0.0]})).column_names  # doctest: +SKIP
    ['mean', 'sd', 'score', 'outlier']
    """

    def __init__(self, model: str | Path, threshold: float = 0.0, explain: int = 0) -> None:
        self._choices = Path(model).absolute(), threshold, explain

    def __reduce__(self) -> tuple[Any, ...]:
        return ArrowScorer, self._choices

    def __call__(self, table: Arrow) -> Arrow:
        """Return a table or a record batch with the columns that scoring adds.

        Raises:
            BadInput: a column is missing, or a cell is not what its column takes.
        """
        names = tuple(name.strip() for name in table.schema.names)
        is_batch = isinstance(table, pa.RecordBatch)
        source = Batches("the table", names, table.schema.remove_metadata(), table.num_rows)
        source.source = [table] if is_batch else table.to_batches()
        columns = self._scorer.detector.columns
        plan = plan_layout(source, columns, None, self._scorer.schema([]).names)
        parts = [self._scorer.score(*batch).table for batch in read_batches(source, plan, False)]
        scored = pa.Table.from_batches(parts, self._scorer.schema(plan.kept))
        if not is_batch:
            return scored
        whole = scored.combine_chunks().to_batches()
        return whole[0] if whole else pa.RecordBatch.from_pylist([], scored.schema)

    @cached_property
    def _scorer(self) -> BatchScorer:
        path, threshold, explain = self._choices
        return BatchScorer.one_thread(Detector(load_model(path), threshold), explain=explain)
