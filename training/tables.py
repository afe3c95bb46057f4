"""A dataset from files: recognise its columns, or take them as chosen, and encode its cells."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.cells import LABELS, short
from service.errors import BadInput, CannotTrain, count, nearest
from service.model.card import Column
from service.model.encoding import KINDS, CellFault, make_encoder
from service.rows import Floats
from service.tables.batches import Choices, Place
from service.tables.places import find_places, is_address
from service.tables.read import Cells, Table, read_table
from training.datasets import POOL, UNLABELLED, Dataset, Recognised, Whole, listed, pick
from training.parts import Batch, Parts, Pool, Watch, concatenate
from training.profiles import Profile, Spot
from training.recognition import (
    CONSTANT,
    FREE_TEXT,
    ID,
    LABEL,
    LEFT,
    RUNNING,
    UNUSED,
    Found,
    describe,
    encode,
    left_out,
    recognise,
)

_USE = "use"

_SMALL = 64 * 2**20  # bytes: a file of so few is read at once

_LEAST_VALUES = 100_000  # a small pool is no reason to count badly


@dataclass(frozen=True)
class Options:
    """What the command line says of a table of one's own."""

    keep_cols: Sequence[str] | None = None
    """The only columns to train on, in this order."""
    columns: str = ""
    """What columns are, as in "country:category,-note"; the others are recognised."""
    label: str | None = None
    label_outlier: str | None = None
    """The value of the label that marks an outlier; None for 1 or true."""
    id: str | None = None
    missing: bool = True
    """Whether missing cells are trained on; else they are refused."""
    samples: int | None = None
    """How many rows to draw; all by default."""
    seed: int = 16
    choices: Choices = field(default_factory=Choices)
    pool: int = POOL
    """The most rows that are held in memory; the trees grow from so many of a larger table."""


def from_file_like(path: Place, dataset: Dataset, choices: Choices | None = None) -> Dataset:
    """Read a table with the columns of another, and encode its cells as those of the other.

    Raises:
        CannotTrain: a column is missing, or a cell is none that the other's column takes.
    """
    try:
        table = read_table(Path(path), choices or Choices())
    except BadInput as error:
        raise CannotTrain(str(error)) from error
    pick(dataset.features, table.names)
    parts = []
    for column in dataset.columns:
        try:
            parts.append(encode(column, table.cells(column.name)))
        except CellFault as fault:
            raise CannotTrain(
                f"{path}: row {fault.row}, column {column.name!r}: {fault.text}"
            ) from fault
    cells = {name: table.cells(name) for name in dataset.features}
    raw = None if dataset.raw is None else partial(_raw, dataset.columns, cells)
    return Dataset(table.name, np.column_stack(parts), dataset.columns, raw=raw)


def _ignore(rows: int, share: float) -> None:
    """Watch nothing."""


def from_file(
    path: Place, options: Options | None = None, watch: Watch = _ignore, **more: Any
) -> Dataset:
    """Read a table; each column becomes features, or is left out, as `recognition` decides.

    The table is a file, a glob, a folder, or an address of these. `more` are fields of the options.
    Of a table with more rows than the pool, the dataset is a uniform sample (see `Whole`).

    Raises:
        CannotTrain: the text names the file, the column and the first row (counted from 0).
    """
    options = replace(options or Options(), **more)
    try:
        places = find_places([str(path)])
        if (table := _read_small(places, options)) is not None:
            return make_dataset(_draw(table, options), options)
        return _read(path, Parts(places, options.choices), options, watch)
    except BadInput as error:
        raise CannotTrain(str(error)) from error


def _read_small(places: Sequence[str], options: Options) -> Table | None:
    """Return the whole of a small file; None if it is not small."""
    path = Path(places[0])
    if len(places) > 1 or is_address(places[0]) or path.stat().st_size > _SMALL:
        return None
    table = read_table(path, options.choices)
    return table if len(table) <= _most(options) else None


def _most(options: Options) -> int:
    return max(options.pool, options.samples or 0)


def _most_values(options: Options) -> int:
    """Return how many values of a column are counted exactly: no more than it has in the pool."""
    return max(_most(options), _LEAST_VALUES)


def _read(path: Place, parts: Parts, options: Options, watch: Watch) -> Dataset:
    """Read a table in batches; if it is larger than the pool, learn its columns from all of it."""
    batches = parts.read(watch)
    head, most = list(_begin(batches, _most(options))), _most(options)
    first = head[0].table
    if sum(len(batch.table) for batch in head) <= most:
        rows = concatenate([batch.table.arrow for batch in head])
        table = Table(path, rows, first.decimal, first.notes)
        return make_dataset(_draw(table, options), options)
    pool = Pool(most, options.seed)
    profiles = {} if options.samples else _begin_profiles(first, options)
    while batch := head.pop(0) if head else next(batches, None):
        pool.add(batch.table)
        for profile in profiles.values():
            profile.add(batch.table.cells(profile.name), batch.table.path, batch.first)
    table = Table(path, pool.rows(), first.decimal, first.notes)
    if options.samples:  # the rows that were drawn are the table
        return make_dataset(_draw(table, options), options)
    _recount(parts, [one for one in profiles.values() if one.lacks_values], options, watch)
    dataset = make_dataset(table, options, profiles)
    ranges = {name: (profile.low, profile.high) for name, profile in profiles.items()}
    return _as_sample(
        dataset, Whole(pool.seen, ranges, partial(_encode_all, parts, dataset.columns))
    )


def _as_sample(dataset: Dataset, whole: Whole) -> Dataset:
    note = (
        f"the trees grow from {len(dataset):,} of {whole.rows:,} rows, drawn uniformly (--pool); "
        "the threshold and the card are of all rows"
    )
    return replace(dataset, whole=whole, notes=(*dataset.notes, note))


def _begin(batches: Iterator[Batch], most: int) -> Iterator[Batch]:
    """Yield batches until they have more than `most` rows, or there are no more."""
    rows = 0
    while rows <= most and (batch := next(batches, None)):
        rows += len(batch.table)
        yield batch


def _begin_profiles(table: Table, options: Options) -> dict[str, Profile]:
    """Return an empty profile of each column that is looked at."""
    wanted = _wanted(table, options)
    looked_at = [name for name in table.names if wanted.get(name) not in LEFT]
    most = _most_values(options)
    return {name: Profile(name, wanted.get(name, ""), most) for name in looked_at}


def _recount(parts: Parts, profiles: Sequence[Profile], options: Options, watch: Watch) -> None:
    """Count the values of columns that turned out to be text after they had begun as numbers."""
    if not profiles:
        return
    for profile in profiles:
        profile.recount(_most_values(options))
    for table, _ in parts.read(watch, [profile.name for profile in profiles]):
        for profile in profiles:
            profile.count_values(table.cells(profile.name))


def _encode_all(parts: Parts, columns: Sequence[Column], watch: Watch) -> Iterator[Floats]:
    """Yield the encoded rows of a table in batches, (n_rows, n_features)."""
    encoders = [make_encoder(column) for column in columns]
    for table, first in parts.read(watch, [column.name for column in columns]):
        try:
            yield np.column_stack(
                [
                    encode(column, table.cells(column.name), encoder)
                    for column, encoder in zip(columns, encoders, strict=True)
                ]
            )
        except CellFault as fault:
            raise CannotTrain(
                f"{table.path} changed while it was read: row {first + fault.row}: {fault}"
            ) from fault


def parse_columns(text: str, names: Sequence[str]) -> dict[str, str]:
    """Read `--columns`: the kind that each column is said to be, "use" where none is said.

    >>> parse_columns("amount,country:category,-note", ["amount", "country", "note"])
    {'amount': 'use', 'country': 'category', '-note': 'unused'}
    """
    chosen = {}
    for item in next(csv.reader([text], skipinitialspace=True), []):
        name, kind = _parse_item(item.strip(), names)
        if name not in names:
            hint = nearest(name, names)
            raise CannotTrain(
                f"--columns: there is no column {name!r}{hint}; columns are {listed(names)}"
            )
        if name in chosen:
            raise CannotTrain(f"--columns names the column {name!r} twice")
        chosen[name] = kind
    return chosen


def _parse_item(item: str, names: Sequence[str]) -> tuple[str, str]:
    if item in names:
        return item, _USE
    if item.startswith("-"):
        return item[1:].strip(), UNUSED
    name, _, kind = item.rpartition(":")
    if not name:
        return item, _USE
    if kind.strip() not in (*KINDS, *LEFT):
        raise CannotTrain(
            f"--columns: {kind.strip()!r} is no kind of column{nearest(kind, KINDS)}; kinds are "
            f"{', '.join(KINDS)} and id"
        )
    return name.strip(), kind.strip()


def _draw(table: Table, options: Options) -> Table:
    if options.samples is None:
        return table
    if options.samples > len(table):
        raise CannotTrain(
            f"--samples {options.samples}: {table.name} has {count(len(table), 'row')}"
        )
    drawn = np.random.default_rng(options.seed).choice(len(table), options.samples, replace=False)
    return table.take(np.sort(drawn))


def make_dataset(
    table: Table, options: Options, profiles: Mapping[str, Profile] | None = None
) -> Dataset:
    """Recognise and encode the columns of a table; raises as `from_file` does.

    `profiles` are of the table of which these rows are a sample; by default of the rows.
    """
    labels = None if options.label is None else _labels(table, options.label, options.label_outlier)
    if profiles is None:
        profiles = _begin_profiles(table, options)
        for name, profile in profiles.items():
            profile.add(table.cells(name), table.path)
    found = _recognise(table, options, profiles)
    used = [one for one in found if one.is_used]
    if options.keep_cols is not None:  # in the order that was asked for
        used.sort(key=lambda one: list(options.keep_cols or ()).index(one.name))
    _refuse_none(table, found, used)
    columns = [describe(one, profiles[one.name]) for one in used]
    for one in used:
        _refuse_cells(table.path, profiles[one.name], options.missing)
    cells = {one.name: table.cells(one.name) for one in used}
    X = np.column_stack([encode(column, cells[column.name]) for column in columns])
    id = _choose_id(table, found, options.id)
    all_numbers = all(column.kind in ("number", "flag") for column in columns)
    return Dataset(
        table.name,
        X,
        tuple(columns),
        labels,
        left_out=tuple(left_out(one) for one in found if not one.is_used),
        id=id,
        decimal=table.decimal or ".",
        recognised=tuple(_report(one, profiles.get(one.name), id) for one in found),
        notes=table.notes,
        raw=None if all_numbers else partial(_raw, columns, cells),
    )


def _raw(columns: Sequence[Column], cells: Mapping[str, Cells], row: int) -> list[Any]:
    """Return the cells of a row as a request sends them; codes of digits stay texts, as 00123."""
    return [
        cells[one.name].written(row)
        if one.kind in ("category", "text") and cells[one.name].texts is not None
        else cells[one.name].cell(row)
        for one in columns
    ]


def _recognise(table: Table, options: Options, profiles: Mapping[str, Profile]) -> list[Found]:
    """Return what each column is, in the order of the file."""
    wanted = _wanted(table, options)
    return [
        recognise(profiles[name])
        if name in profiles
        else Found(name, wanted[name], _reason(wanted[name], options))
        for name in table.names
    ]


def _reason(choice: str, options: Options) -> str:
    if choice == LABEL:
        return "to evaluate, never to train"
    if choice == ID:
        return "chosen"
    return "chosen" if options.keep_cols is None else "not in --keep_cols"


def _wanted(table: Table, options: Options) -> dict[str, str]:
    """Return what the options say of columns; the label and the id are never trained on."""
    wanted: dict[str, str] = {}
    if options.keep_cols is not None:
        wanted = dict.fromkeys(table.names, UNUSED)
        wanted |= dict.fromkeys(pick(options.keep_cols, table.names), _USE)
    wanted |= parse_columns(options.columns, table.names)
    if options.label is not None:
        wanted[options.label] = LABEL
    if options.id is not None:
        if options.id not in table.names:
            hint = nearest(options.id, table.names)
            raise CannotTrain(
                f"--id: {table.path} has no column {options.id!r}{hint}; "
                f"columns are {listed(table.names)}"
            )
        wanted[options.id] = ID
    return wanted


def _choose_id(table: Table, found: Sequence[Found], chosen: str | None) -> str | None:
    """Return the column whose cells come back with answers: the chosen one, else the first id."""
    kinds = {one.name: one.kind for one in found}
    if chosen is not None:
        return chosen
    return next(
        (name for kind in (ID, RUNNING) for name in table.names if kinds[name] == kind), None
    )


def _refuse_none(table: Table, found: Sequence[Found], used: Sequence[Found]) -> None:
    """Refuse a table of which no column is left to train on."""
    if used:
        return
    if all(one.kind in (LABEL, UNUSED) for one in found):
        raise CannotTrain(f"{table.path} has no column to train on besides the label")
    if all(one.kind in (LABEL, UNUSED, CONSTANT) for one in found):
        raise CannotTrain(
            f"every column of {table.name} is constant; a forest needs one that varies"
        )
    reasons = "; ".join(
        f"{one.name!r} is left out as {one.kind}" for one in found if one.kind != LABEL
    )
    first = next(one.name for one in found if one.kind in (ID, RUNNING, FREE_TEXT, CONSTANT))
    raise CannotTrain(
        f"{table.path} has no column to train on ({reasons}); use one nevertheless: "
        f'--columns "{first}"'
    )


def _refuse_cells(path: Place, profile: Profile, with_missing: bool) -> None:
    """Refuse numbers that a forest cannot hold, and missing cells if they are not wanted."""
    faults = [(profile.huge, profile.first_huge, "infinite or above 3.4e38", "correct them")]
    if not with_missing:
        cure = "fill them, or train with missing cells: leave out --no_missing"
        faults.append((profile.missing, profile.first_missing, "missing", cure))
    for number, spot, what, cure in faults:
        if number and spot:
            raise CannotTrain(
                f"column {profile.name!r} of {path} has {count(number, 'cell')} {what}, the first "
                f"in row {spot.row}{_where(path, spot)}; {cure}"
            )


def _where(path: Place, spot: Spot) -> str:
    """Return which of the files of a table a cell is in; empty if there is only one."""
    return "" if str(spot.place) == str(path) else f" of {spot.place}"


def _labels(table: Table, label: str, outlier: str | None) -> NDArray[np.int64]:
    """Return the label column: (n_rows,) of 0, 1 (an outlier) and UNLABELLED."""
    if label not in table.names:
        hint, columns = nearest(label, table.names), listed(table.names)
        raise CannotTrain(
            f"--label: {table.path} has no column {label!r}{hint}; columns are {columns}"
        )
    cells = table.cells(label)
    texts = np.array(cells.as_texts().to_pylist(), dtype=object)
    values = sorted({text for text in texts if text is not None})
    where = f"--label: column {label!r} of {table.path}"
    if not values:
        raise CannotTrain(f"{where} has no value at all")
    if outlier is None:
        marks = _read_marks(cells, values, where)
    elif outlier.strip() in values:
        marks = (texts == outlier.strip()).astype(np.int64)
    else:
        raise CannotTrain(f"--label_outlier {outlier}: {where[9:]} holds {listed(values)}")
    marks[cells.missing] = UNLABELLED
    return marks


def _read_marks(cells: Cells, values: list[str], where: str) -> NDArray[np.int64]:
    """Return a label of 0 and 1, or true and false; ask which value marks an outlier for others."""
    words = {value.lower() for value in values}
    if cells.numbers is not None and not words & {"yes", "no"}:
        marks = np.nan_to_num(cells.numbers)
        if np.isin(marks, LABELS).all():
            return marks.astype(np.int64)
    if len(values) > 50:
        raise CannotTrain(
            f"{where} has {len(values):,} values, such as {short(values[0])}; a label is 0, or 1 "
            "for an outlier"
        )
    rare = "-1" if words == {"-1", "1"} else "yes" if words == {"yes", "no"} else values[0]
    rare = next(value for value in values if value.lower() == rare.lower())
    hint = " (scikit-learn writes -1 for an outlier)" if words == {"-1", "1"} else ""
    raise CannotTrain(
        f"{where} holds {listed(values)}; say which one marks an outlier{hint}, as in "
        f"--label_outlier {rare}"
    )


def _report(found: Found, profile: Profile | None, id: str | None) -> Recognised:
    """Return the line of a column for the table that training prints."""
    example, gaps = "", 0.0
    if profile is not None:
        gaps = profile.missing / profile.rows
        example = short(profile.example.cell) if profile.example else ""
    if not found.is_used:
        done = "left out, returned with answers" if found.name == id else "left out"
    elif profile is None or found.kind in ("number", "flag"):
        done = "as it is"
    else:
        features = make_encoder(describe(found, profile)).features
        done = ", ".join(found.parts) if found.parts else count(len(features), "feature")
    return Recognised(found.name, found.kind, example.strip("'"), gaps, done, found.why)
