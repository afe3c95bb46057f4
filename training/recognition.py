"""Recognise what the columns of a table are: what becomes of each, and why.

docs/internals/columns.md describes the kinds. The same table gives the same decisions every time:
nothing here is random, and no decision depends on the order of the columns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service.cells import is_unnamed, short
from service.errors import CannotTrain, count
from service.model.card import Column, LeftOut
from service.model.encoding import (
    EPOCH,
    FORMATS,
    ISO,
    KINDS,
    MOST_VALUES,
    PARTS,
    date_parser,
    make_encoder,
)
from service.rows import Floats
from service.tables.read import Cells

MOST_CATEGORIES = 20
"""The most values of a category, each of which becomes a feature."""

ID, RUNNING, CONSTANT, FREE_TEXT, LABEL, UNUSED = LEFT = (
    "id",
    "running number",
    "constant",
    "free text",
    "label",
    "unused",
)
"""The kinds of columns that are left out."""

_ID_NAMES = {"id", "ids", "uuid", "guid", "pk", "rowid", "rownum", "index", "idx"}
_DATE_NAMES = {"date", "time", "timestamp", "datetime", "ts", "epoch", "created", "updated", "at"}
_DATE_NAMES |= {"modified", "when", "day", "started", "ended", "start", "end"}

_EARLIEST, _LATEST = 631_152_000, 2_524_608_000  # 1990 and 2050, in seconds since 1970

_FIRST_DAY, _LAST_DAY = 19_000_101, 21_001_231  # of dates such as 20261231

# scikit-learn splits a column only where 32-bit floats differ by more than this.
SMALLEST_STEP = np.float32(1e-7)

_FEWEST = 10  # rows: a shorter table says nothing of ids and running numbers
_MOSTLY = 0.5  # with this share of numbers, the other cells of a column may be faults
_NEARLY = 0.95  # with this share of different texts a column names its rows
_WORDS = 4  # more on average are free text


@dataclass(frozen=True)
class Found:
    """What a column was taken for."""

    name: str
    kind: str
    why: str
    format: str | None = None
    """Of a date: how it is written."""
    parts: tuple[str, ...] = ()
    """Of a date: the parts that vary."""

    @property
    def is_used(self) -> bool:
        """Whether the forest is trained on it."""
        return self.kind in KINDS


def recognise(name: str, cells: Cells, wanted: str = "") -> Found:
    """Return what a column is; `wanted` is a kind that was chosen for it, or "use".

    Raises:
        CannotTrain: it cannot be what was chosen; or most of its cells are numbers, but not all.
    """
    if wanted in LEFT:
        return Found(name, wanted, "chosen")
    if wanted and wanted != "use":
        return _as_chosen(name, cells, wanted)
    if not wanted and is_unnamed(name):
        return Found(name, UNUSED, "it has no name, so no request could name it")
    found = _recognise_numbers(name, cells) if cells.numbers is not None else None
    found = found or _recognise_texts(name, cells)
    if wanted and not found.is_used:
        return _as_used(name, cells, found)
    return found


def describe(found: Found, cells: Cells) -> Column:
    """Return the card's column of one that is used; export adds the quantiles of numbers."""
    missing = int(cells.missing.sum())
    if found.kind in ("number", "flag"):
        return Column(found.name, found.kind, cells.type, missing)
    if found.kind == "date":
        return Column(
            found.name, "date", "text", missing, format=found.format, parts=list(found.parts)
        )
    counts = Counter(_counts(cells))
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    others = sum(number for _, number in most[MOST_VALUES:])
    return Column(
        found.name, found.kind, "text", missing, values=dict(most[:MOST_VALUES]), others=others
    )


def encode(column: Column, cells: Cells) -> Floats:
    """Return the features of a column of training, (n_rows, n_features), as a request gets them."""
    if column.kind in ("number", "flag") and cells.numbers is not None:
        return cells.numbers[:, None]
    encoder = make_encoder(column)
    coded = cells.as_texts().dictionary_encode(null_encoding="encode")
    values = np.zeros((len(coded.dictionary), len(encoder.features)))
    encoder.many(coded.dictionary.to_pylist(), "", values)
    features: Floats = values[np.asarray(coded.indices)]
    return features


def _recognise_numbers(name: str, cells: Cells) -> Found | None:
    """Return what a column of numbers is; None where its digits are names, as in 00123."""
    numbers = cells.numbers
    assert numbers is not None  # noqa: S101 -- the caller looked
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        return Found(name, CONSTANT, "every cell is missing")
    if not _varies(numbers):
        return Found(name, CONSTANT, f"every number is {known[0]:g}")
    if cells.type == "bool":
        return Found(name, "flag", "true and false" if cells.texts is None else _spelled(cells))
    if np.isin(known, (0, 1)).all():
        return Found(name, "flag", "0 and 1")
    if cells.type == "int":
        return _recognise_whole(name, cells, known)
    return Found(name, "number", f"numbers from {known.min():g} to {known.max():g}")


def _recognise_whole(name: str, cells: Cells, known: Floats) -> Found | None:
    found = _as_date(name, cells, known) or _as_running(name, known)
    if found is not None:
        return found
    distinct = len(np.unique(known))
    if _leading_zero(cells):
        return None
    if _tokens(name)[-1] in _ID_NAMES:
        if distinct > len(known) / 2:
            return Found(name, ID, "its name says so, and most cells are different")
        return None
    return Found(name, "number", f"whole numbers from {known.min():g} to {known.max():g}")


def _as_running(name: str, known: Floats) -> Found | None:
    """Return a running number: whole numbers without a gap, or in even steps."""
    if len(known) < _FEWEST or len(np.unique(known)) < len(known):
        return None
    if known.max() - known.min() + 1 == len(known):
        return Found(name, RUNNING, "it counts the rows")
    steps = np.diff(known)
    if (steps == steps[0]).all():
        return Found(name, RUNNING, f"it counts the rows in steps of {abs(steps[0]):g}")
    return None


def _as_date(name: str, cells: Cells, known: Floats) -> Found | None:
    """Return a date where a name and the range of whole numbers say that they are one."""
    if not _DATE_NAMES & set(_tokens(name)):
        return None
    if known.min() >= _EARLIEST and known.max() <= _LATEST:
        return _date(name, cells, EPOCH)
    if known.min() >= _FIRST_DAY and known.max() <= _LAST_DAY:
        return _date(name, cells, "%Y%m%d")
    return None


def _recognise_texts(name: str, cells: Cells) -> Found:
    counts = _counts(cells)
    if not counts:
        return Found(name, CONSTANT, "every cell is missing")
    if cells.numbers is None:
        _refuse_mistyped(name, cells)
        if (format := _find_format(list(counts))) and (found := _date(name, cells, format)):
            return found
    total, distinct = sum(counts.values()), len(counts)
    if distinct == 1 and not cells.missing.any():
        return Found(name, CONSTANT, f"every cell is {short(next(iter(counts)))}")
    words = sum(len(text.split()) * number for text, number in counts.items()) / total
    if words > _WORDS and distinct > max(MOST_CATEGORIES, total / 2):
        return Found(name, FREE_TEXT, f"{distinct:,} different texts of {words:.0f} words")
    if total >= _FEWEST and distinct >= _NEARLY * total:
        return Found(name, ID, f"{distinct:,} different texts in {count(total, 'cell')}")
    return _as_text(name, distinct, cells)


def _as_text(name: str, distinct: int, cells: Cells) -> Found:
    what = "text" if cells.numbers is None else "codes"
    if distinct <= MOST_CATEGORIES:
        return Found(name, "category", f"{what} of {count(distinct, 'value')}")
    return Found(name, "text", f"{what} of {count(distinct, 'value')}: how rare each one is")


def _as_used(name: str, cells: Cells, found: Found) -> Found:
    """Return how a column that would be left out is used."""
    note = f"kept, though it looks like {_article(found.kind)}: {found.why}"
    if cells.numbers is not None:
        return Found(name, "number", note)
    return replace(_as_text(name, len(_counts(cells)), cells), why=note)


def _as_chosen(name: str, cells: Cells, kind: str) -> Found:
    if kind in ("number", "flag"):
        if cells.numbers is None:
            row = int(cells.bad.argmax())
            raise CannotTrain(
                f"--columns: {name!r} is no {kind}: row {row} holds {short(cells.written(row))}"
            )
        return Found(name, kind, "chosen")
    if kind == "date":
        format = _find_format(list(_counts(cells)))
        if cells.numbers is not None:
            low, high = np.nanmin(cells.numbers), np.nanmax(cells.numbers)
            format = "%Y%m%d" if low >= _FIRST_DAY and high <= _LAST_DAY else EPOCH
        found = _date(name, cells, format) if format else None
        if found is None or not found.is_used:
            raise CannotTrain(
                f"--columns: {name!r} is no date in one of the formats read here, such as "
                f"2026-12-31 16:42, or it never varies; its first cell is {short(cells.written(0))}"
            )
        return replace(found, why=f"chosen; {found.why}")
    if not _counts(cells):
        raise CannotTrain(f"--columns: every cell of {name!r} is missing")
    return Found(name, kind, "chosen")


def _date(name: str, cells: Cells, format: str) -> Found | None:
    """Return a column of dates with the parts that vary; None if a cell is no such date."""
    parse = date_parser(format)
    try:
        parsed = np.array([parse(text) for text in _counts(cells)])
    except (ValueError, OverflowError, OSError):
        return None
    varies = [part for part, column in zip(PARTS, parsed.T, strict=True) if len(set(column)) > 1]
    if not varies:
        return Found(name, CONSTANT, "hour, weekday and day of the month never vary")
    return Found(name, "date", _describe_format(format), format, tuple(varies))


def _describe_format(format: str) -> str:
    if format in (EPOCH, ISO):
        return f"dates in {format}"
    if format[:5] in ("%d/%m", "%m/%d", "%d-%m", "%m-%d"):
        order = "day before month" if format.startswith("%d") else "month before day"
        return f"dates as {format}, {order}"
    return f"{'dates' if 'd' in format else 'times'} as {format}"


def _find_format(texts: Sequence[str]) -> str | None:
    """Return the first format that reads every text; day before month where both are possible."""
    if not texts or not re.search(r"\d.*[-/.: T].*\d", texts[0]):
        return None
    for format in FORMATS:
        if format != EPOCH and _reads(date_parser(format), texts):
            return format
    return None


def _reads(parse: Callable[[str], Any], texts: Sequence[str]) -> bool:
    try:
        for text in texts:
            parse(text)
    except (ValueError, OverflowError):
        return False
    return True


def _refuse_mistyped(name: str, cells: Cells) -> None:
    """Refuse a column of numbers of which a few cells are something else."""
    known = len(cells.bad) - int(cells.missing.sum())
    bad = int(cells.bad.sum())
    if known and 1 - bad / known >= _MOSTLY:
        row = int(cells.bad.argmax())
        raise CannotTrain(
            f"column {name!r} holds numbers, but {short(cells.written(row))} in row {row} is none "
            f"({bad:,} of {count(known, 'cell')}); correct it, or say what the column is: "
            f'--columns "{name}:text", or leave it out: --columns "-{name}"'
        )


def _varies(numbers: Floats) -> bool:
    """Return whether a tree can split a column; it can split missing cells from the others."""
    missing = np.isnan(numbers).any()
    with np.errstate(over="ignore"):
        low, high = (np.float32(bound.reduce(numbers)) for bound in (np.fmin, np.fmax))
    return bool(missing or high > low + SMALLEST_STEP)


def _counts(cells: Cells) -> dict[str, int]:
    """Return the texts of a column, and how many rows have each; missing cells do not count."""
    found = cells.as_texts().drop_null().value_counts()
    names, numbers = found.field("values").to_pylist(), found.field("counts").to_pylist()
    return dict(zip(names, numbers, strict=True))


def _leading_zero(cells: Cells) -> bool:
    """Return whether a whole number begins with a zero, as a code does and no number."""
    if cells.texts is None:
        return False
    from pyarrow import compute  # noqa: PLC0415

    return bool(compute.any(compute.match_substring_regex(cells.texts, "^0[0-9]")).as_py())


def _spelled(cells: Cells) -> str:
    return " and ".join(sorted(_counts(cells))[:4])


def _tokens(name: str) -> list[str]:
    """Return the words of a name in lower case.

    >>> _tokens("customerId"), _tokens("created_at")
    (['customer', 'id'], ['created', 'at'])
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
    return [word.lower() for word in words] or [""]


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def left_out(found: Found) -> LeftOut:
    """Return the card's entry of a column that is left out."""
    return LeftOut(found.name, found.kind, found.why)
