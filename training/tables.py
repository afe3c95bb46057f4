"""A dataset from a file: recognise its columns, or take them as chosen, and encode its cells."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.cells import LABELS, LARGEST, short
from service.errors import BadInput, CannotTrain, count, nearest
from service.model.encoding import KINDS, make_encoder
from service.tables.read import Cells, Choices, Table, read_table
from training.datasets import UNLABELLED, Dataset, Recognised, listed, pick
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


def from_file(path: Path, options: Options | None = None, **more: Any) -> Dataset:
    """Read a table; each column becomes features, or is left out, as `recognition` decides.

    `more` are fields of the options.

    Raises:
        CannotTrain: the text names the file, the column and the first row (counted from 0).
    """
    options = replace(options or Options(), **more)
    try:
        table = _draw(read_table(path, options.choices), options)
        return make_dataset(table, options)
    except BadInput as error:
        raise CannotTrain(str(error)) from error


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
            f"--samples {options.samples}: {table.path.name} has {count(len(table), 'row')}"
        )
    drawn = np.random.default_rng(options.seed).choice(len(table), options.samples, replace=False)
    return table.take(np.sort(drawn))


def make_dataset(table: Table, options: Options) -> Dataset:
    """Recognise and encode the columns of a table; raises as `from_file` does."""
    labels = None if options.label is None else _labels(table, options.label, options.label_outlier)
    found, cells = _recognise(table, options)
    used = [one for one in found if one.is_used]
    if options.keep_cols is not None:  # in the order that was asked for
        used.sort(key=lambda one: list(options.keep_cols or ()).index(one.name))
    _refuse_none(table, found, used)
    columns = [describe(one, cells[one.name]) for one in used]
    for one in used:
        _refuse_cells(table.path, one.name, cells[one.name], options.missing)
    X = np.column_stack([encode(column, cells[column.name]) for column in columns])
    id = _choose_id(table, found, options.id)
    all_numbers = all(column.kind in ("number", "flag") for column in columns)
    return Dataset(
        table.path.name,
        X,
        tuple(columns),
        labels,
        left_out=tuple(left_out(one) for one in found if not one.is_used),
        id=id,
        decimal=table.decimal or ".",
        recognised=tuple(_report(one, cells.get(one.name), len(table), id) for one in found),
        notes=table.notes,
        raw=None if all_numbers else lambda i: [cells[one.name].cell(i) for one in used],
    )


def _recognise(table: Table, options: Options) -> tuple[list[Found], dict[str, Cells]]:
    """Return what each column is, in the order of the file, and the cells of those looked at."""
    wanted = _wanted(table, options)
    found, cells = [], {}
    for name in table.names:
        choice = wanted.get(name, "")
        if choice in LEFT:
            why = _reason(choice, options)
            found.append(Found(name, choice, why))
            continue
        cells[name] = table.cells(name)
        found.append(recognise(name, cells[name], choice))
    return found, cells


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
            raise CannotTrain(f"--id: {table.path} has no column {options.id!r}{hint}")
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
            f"every column of {table.path.name} is constant; a forest needs one that varies"
        )
    reasons = "; ".join(
        f"{one.name!r} is left out as {one.kind}" for one in found if one.kind != LABEL
    )
    first = next(one.name for one in found if one.kind in (ID, RUNNING, FREE_TEXT, CONSTANT))
    raise CannotTrain(
        f"{table.path} has no column to train on ({reasons}); use one nevertheless: "
        f'--columns "{first}"'
    )


def _refuse_cells(path: Path, name: str, cells: Cells, with_missing: bool) -> None:
    """Refuse numbers that a forest cannot hold, and missing cells if they are not wanted."""
    if cells.numbers is not None:
        _refuse_where(
            np.abs(cells.numbers) > LARGEST, "infinite or above 3.4e38", "correct them", path, name
        )
    if not with_missing:
        cure = "fill them, or train with missing cells: leave out --no_missing"
        _refuse_where(cells.missing, "missing", cure, path, name)


def _refuse_where(faults: NDArray[np.bool_], what: str, cure: str, path: Path, name: str) -> None:
    rows = np.flatnonzero(faults)
    if len(rows):
        raise CannotTrain(
            f"column {name!r} of {path} has {count(len(rows), 'cell')} {what}, the first in row "
            f"{rows[0]}; {cure}"
        )


def _labels(table: Table, label: str, outlier: str | None) -> NDArray[np.int64]:
    """Return the label column: (n_rows,) of 0, 1 (an outlier) and UNLABELLED."""
    if label not in table.names:
        hint = nearest(label, table.names)
        raise CannotTrain(f"--label: {table.path} has no column {label!r}{hint}")
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


def _report(found: Found, cells: Cells | None, rows: int, id: str | None) -> Recognised:
    """Return the line of a column for the table that training prints."""
    example, gaps = "", 0.0
    if cells is not None:
        missing = cells.missing
        gaps = float(missing.sum() / rows)
        example = "" if missing.all() else short(cells.written(int((~missing).argmax())))
    if not found.is_used:
        done = "left out, returned with answers" if found.name == id else "left out"
    elif cells is None or found.kind in ("number", "flag"):
        done = "as it is"
    else:
        features = make_encoder(describe(found, cells)).features
        done = ", ".join(found.parts) if found.parts else count(len(features), "feature")
    return Recognised(found.name, found.kind, example.strip("'"), gaps, done, found.why)
