"""Score tables into a file, a folder or standard output; nothing half written stays behind."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from ..errors import BadInput
from ..tables.batches import Batches, Choices, open_batches
from ..tables.places import STDIN, is_address, is_folder
from ..tables.sinks import STDOUT, Sink, find_kind
from .journal import Journal
from .layout import Plan, check_same, plan_layout
from .scorer import BadRow, BatchScorer, Part, Reject, Totals
from .threads import Batch

ROWS, CELLS = 32_768, 2**20
"""The most rows, and the most cells, of a batch."""

_ENDING = re.compile(
    r"(\.(csv|tsv|txt|parquet|pq|arrow|feather))?(\.(gz|zst|zip))?$", re.IGNORECASE
)

_REJECTS = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("column", pa.string()),
        ("reason", pa.string()),
        ("cells", pa.string()),
    ]
)


class Engine(Protocol):
    """What scores batches: threads, or the workers of a cluster."""

    def map(self, batches: Iterator[Batch]) -> Iterator[Part]:
        """Yield the scored batches in their order."""
        ...


Progress = Callable[[float, int], None]
"""Called with the share of the table that is done, 0 to 1, and the rows so far."""


@dataclass(frozen=True)
class Job:
    """What is to be scored, how, and where the results go."""

    scorer: BatchScorer
    output: str
    """A file, a folder (which exists, or ends in a slash), or `-`: standard output."""
    keep: tuple[str, ...] | None = None
    """The columns that are written beside what is added; None: all."""
    kind: str = ""
    """The kind of files that are written, one of `sinks.KINDS`; by default by their names."""
    rejects: str = ""
    """The file, or for an output folder the folder, for rows that cannot be scored."""
    reading: Choices = field(default_factory=Choices)
    threads: bool = True
    """Whether the columns of a Parquet file are decoded on several threads."""

    @property
    def is_folder(self) -> bool:
        """Whether each input becomes a file of its own."""
        return self.output != STDOUT and (self.output.endswith("/") or is_folder(self.output))

    def open(self, place: str) -> tuple[Batches, Plan]:
        """Open a table and find its columns; BadInput if it cannot be scored."""
        table = open_batches(place, self.reading, bool(self.rejects))
        try:
            columns = self.scorer.detector.columns
            added = self.scorer.schema([]).names
            return table, plan_layout(table, columns, self.keep, added, self.reading.decimal)
        except BaseException:
            table.close()
            raise

    def check(self, places: Sequence[str]) -> None:
        """Look at the columns of all tables before the first is scored.

        Raises:
            BadInput: a table cannot be scored, or not written into one file with the others.
        """
        first: Plan | None = None
        for place in places:
            if place == STDIN:
                continue
            table, plan = self.open(place)
            table.close()
            if not self.is_folder:
                first = first or plan
                check_same(first, plan)

    def targets(self, places: Sequence[str]) -> list[str]:
        """Return the file that each table of `places` is written to, in an output folder.

        Raises:
            BadInput: two would be the same, or one is an input.
        """
        root = self.output.rstrip("/")
        targets = [f"{root}/{name}" for name in _names(places, self.kind)]
        for i, target in enumerate(targets):
            if target in targets[:i]:
                raise BadInput(f"two inputs would become {target}; score them one by one")
        _refuse_overwriting(places, targets)
        return targets


def own_signals() -> None:
    """Keep Arrow from handling Ctrl-C itself: the command does."""
    pa.enable_signal_handlers(False)


def score_file(job: Job, engine: Engine, places: Sequence[str], progress: Progress) -> Totals:
    """Score tables into one file, one after another."""
    _refuse_overwriting(places, [job.output])
    job.check(places)
    kind = job.kind or ("csv" if job.output == STDOUT else "")
    with _Output(job, job.output, job.rejects, kind) as output:
        for i, place in enumerate(places):
            done = output.totals.rows

            def tell(share: float, rows: int, i: int = i, done: int = done) -> None:
                progress((i + share) / len(places), done + rows)

            output.score(engine, place, tell)
    return output.totals


def score_folder(
    job: Job, engine: Engine, places: Sequence[str], resume: bool, progress: Progress
) -> Totals:
    """Score each table into a file of its own; with `resume` only those that are not done."""
    journal, left, totals = begin_folder(job, places, resume)
    for i, (place, target) in enumerate(left):
        done = totals.rows

        def tell(share: float, rows: int, i: int = i, done: int = done) -> None:
            progress((i + share) / len(left), done + rows)

        found = score_one(job, engine, place, target, tell)
        journal.add(place, target, found)
        totals.add(found)
    return totals


def begin_folder(
    job: Job, places: Sequence[str], resume: bool
) -> tuple[Journal, list[tuple[str, str]], Totals]:
    """Return the journal of an output folder, what is left to do, and the totals of what is done.

    `left` has the place of each table and its target.
    """
    targets = job.targets(places)
    journal = Journal(job.output, describe(job), resume)
    left = [pair for pair in zip(places, targets, strict=True) if not journal.is_done(*pair)]
    job.check([place for place, _ in left])
    journal.begin()
    return journal, left, journal.totals(targets)


def score_one(job: Job, engine: Engine, place: str, target: str, progress: Progress) -> Totals:
    """Score a table into a file of its own, beside its rejected rows, if there are any."""
    rejects = ""
    if job.rejects:
        stem = target.removeprefix(job.output.rstrip("/"))
        rejects = job.rejects.rstrip("/") + _ENDING.sub("", stem) + ".csv"
    with _Output(job, target, rejects) as output:
        output.score(engine, place, progress)
    return output.totals


def describe(job: Job) -> dict[str, Any]:
    """Return what files of a folder must have in common, to go on with it."""
    scorer = job.scorer
    return {
        "model": scorer.detector.model.sha256,
        "threshold": scorer.detector.threshold,
        "explain": scorer.explain,
        "only_outliers": scorer.only_outliers,
        "keep": None if job.keep is None else list(job.keep),
        "rejects": bool(job.rejects),
    }


class _Output:
    """A file of scored rows, and one of rejected rows: committed at the end, else discarded."""

    def __init__(self, job: Job, target: str, rejects: str, kind: str = "") -> None:
        self._job, self._target, self._kind = job, target, kind
        self._sink: Sink | None = None
        self._rejects = _Rejects(rejects)
        self.totals = Totals()

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None and self._sink is not None:
                self._rejects.commit()
                self._sink.commit()
        finally:
            self._rejects.discard()
            if self._sink is not None:
                self._sink.discard()

    def score(self, engine: Engine, place: str, progress: Progress) -> None:
        """Score a table and write it behind those before."""
        table, plan = self._job.open(place)
        try:
            if self._sink is None:
                schema = self._job.scorer.schema(plan.kept)
                self._sink = Sink(self._target, schema, self._kind or self._job.kind)
            rows = 0
            with _row_numbers(table):
                for part in engine.map(read_batches(table, plan, self._job.threads)):
                    rows += part.rows
                    self._take(part, table, rows)
                    progress(table.share_read(rows), rows)
            self._take_wrong(table, math.inf)
        finally:
            table.close()

    def _take(self, part: Part, table: Batches, end: int) -> None:
        assert self._sink is not None  # noqa: S101 -- `score` opens it first
        self._sink.write(part.table)
        for reject in part.rejects:
            self._take_wrong(table, reject.row)
            self._rejects.add(table.label, reject._replace(row=table.number(reject.row)))
        self._take_wrong(table, end)
        found = [one._replace(row=table.number(one.row)) for one in part.totals.top]
        self.totals.add(replace(part.totals, top=found))

    def _take_wrong(self, table: Batches, before: float) -> None:
        """Reject the lines of a CSV file that are no rows, up to a row."""
        done = self._rejects.wrong.setdefault(table.label, 0)
        for wrong in table.wrong[done:]:
            if wrong.row - done > before:
                break
            done += 1
            self._rejects.add(table.label, Reject(wrong.row, "", wrong.why, wrong.text))
            self.totals.rejected += 1
        self._rejects.wrong[table.label] = done


class _Rejects:
    """The file for rows that cannot be scored; it is made when the first one comes."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._sink: Sink | None = None
        self.wrong: dict[str, int] = {}
        """How many lines that are no rows were taken, by table."""

    def add(self, label: str, reject: Reject) -> None:
        if self._sink is None:
            self._sink = Sink(self._place, _REJECTS)
        cells = reject.cells
        if not isinstance(cells, str):
            cells = json.dumps(cells, default=str, ensure_ascii=False)
        row = [[label], [reject.row], [reject.column or None], [reject.why], [cells]]
        columns = [pa.array(cell, one.type) for cell, one in zip(row, _REJECTS, strict=True)]
        self._sink.write(pa.record_batch(columns, schema=_REJECTS))

    def commit(self) -> None:
        if self._sink is not None:
            self._sink.commit()

    def discard(self) -> None:
        if self._sink is not None:
            self._sink.discard()


def read_batches(table: Batches, plan: Plan, threads: bool) -> Iterator[Batch]:
    """Yield the batches of a table, each with the index of its first row."""
    width = max(len(plan.layout.read), 1)
    start, rows = 0, max(1, min(ROWS, CELLS // width))
    for batch in table.read(plan.layout.read, rows, threads=threads):
        yield batch, start, plan.layout
        start += len(batch)


@contextmanager
def _row_numbers(table: Batches) -> Iterator[None]:
    """Name the table and the row of the file in the error of a bad row."""
    try:
        yield
    except BadRow as error:
        row = table.number(error.row)
        raise BadInput(
            f"{table.label}, row {row:,} (the first is 0), {error.text}; to leave such rows out: "
            "--rejects FILE"
        ) from error


def _names(places: Sequence[str], kind: str) -> list[str]:
    """Return the name in the output folder of each table: its path below their common folder."""
    paths = ["stdin.csv" if one == STDIN else one.split("://", 1)[-1] for one in places]
    paths = [
        path if is_address(one) else str(Path.cwd() / path)
        for path, one in zip(paths, places, strict=True)
    ]
    folders = {posixpath.dirname(path) for path in paths}
    root = ""
    with suppress(ValueError):  # local paths and addresses have nothing in common
        root = posixpath.commonpath(folders)
    names = [path[len(root) :].lstrip("/") if root else posixpath.basename(path) for path in paths]
    return [_ENDING.sub("", name) + f".{kind or _kind_of(name)}" for name in names]


def _kind_of(name: str) -> str:
    name = re.sub(r"\.(gz|zst|zip)$", "", name, flags=re.IGNORECASE)
    with suppress(BadInput):
        return find_kind(name)
    return "csv"


def _refuse_overwriting(places: Sequence[str], targets: Sequence[str]) -> None:
    inputs = {_same(place): place for place in places}
    for target in targets:
        if target != STDOUT and _same(target) in inputs:
            raise BadInput(f"{target} is an input; name another output")


def _same(place: str) -> str:
    return place if is_address(place) or place == STDIN else str(Path(place).resolve())
