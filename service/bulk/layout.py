"""Which columns of a table are read, which are scored, and which are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ..errors import BadInput, nearest
from ..model.columns import Columns
from ..tables.batches import Batches


@dataclass(frozen=True)
class Layout:
    """Which columns of a table are read, scored and written."""

    label: str
    read: tuple[int, ...]
    """The places in the table of the columns that are read, ascending."""
    scored: tuple[int, ...]
    """For each column of the model its index in `read`."""
    kept: tuple[int, ...]
    """The index in `read` of each column that is written."""
    names: tuple[str, ...]
    """The names of the columns in `read`."""
    decimal: str = ""
    """The decimal mark of a CSV file, empty if cells are typed."""


@dataclass(frozen=True)
class Plan:
    """The layout of a table, and the columns of it that are written."""

    layout: Layout
    kept: tuple[pa.Field, ...]


def plan_layout(
    table: Batches,
    columns: Columns,
    keep: Sequence[str] | None,
    added: Sequence[str],
    decimal: str = "",
) -> Plan:
    """Find the columns of the model and those to write in a table.

    `keep` are the names of the columns to write, by default all. `added` are the names that scoring
    adds. `decimal` is the decimal mark of a CSV file, by default training's.

    Raises:
        BadInput: a column is missing, or has a name that scoring adds.
    """
    try:
        order, kept = columns.find(table.names), _find_kept(table.names, keep)
        _refuse_taken([table.names[j] for j in kept], added)
    except BadInput as error:
        raise BadInput(f"{table.label}: {error}") from error
    read = tuple(sorted({*order, *kept}))
    at = {j: index for index, j in enumerate(read)}
    layout = Layout(
        table.label,
        read,
        tuple(at[j] for j in order),
        tuple(at[j] for j in kept),
        tuple(table.names[j] for j in read),
        (decimal or columns.decimal) if table.is_csv else "",
    )
    return Plan(layout, tuple(table.schema.field(j) for j in kept))


def _find_kept(names: Sequence[str], keep: Sequence[str] | None) -> list[int]:
    if keep is None:
        return list(range(len(names)))
    index = {name: j for j, name in enumerate(names)}
    for name in keep:
        if name not in index:
            raise BadInput(f"there is no column {name!r} to keep{nearest(name, names)}")
    return [index[name] for name in keep]


def _refuse_taken(kept: Sequence[str], added: Sequence[str]) -> None:
    if taken := [name for name in kept if name in added]:
        raise BadInput(
            f"there is a column {taken[0]!r} already; name the columns to write without it: --keep"
        )


def check_same(first: Plan, other: Plan) -> None:
    """Raise BadInput unless two tables that go into one file have the same columns to write."""
    ours = {field.name: field.type for field in first.kept}
    theirs = {field.name: field.type for field in other.kept}
    label, remedy = other.layout.label, "write a folder (--output out/), or choose columns: --keep"
    for name, kind in ours.items():
        if name not in theirs:
            raise BadInput(f"{label}: column {name!r} of {first.layout.label} is missing; {remedy}")
        if kind != theirs[name]:
            raise BadInput(
                f"{label}: column {name!r} is of the type {theirs[name]}, in {first.layout.label} "
                f"{kind}; {remedy}"
            )
    if more := [name for name in theirs if name not in ours]:
        raise BadInput(f"{label}: column {more[0]!r} is not in {first.layout.label}; {remedy}")
