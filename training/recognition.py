"""Recognise what the columns of a table are: what becomes of each, and why.

docs/internals/columns.md describes the kinds. The same table gives the same decisions every time:
nothing here is random, and no decision depends on the order of the columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service.cells import is_unnamed, short
from service.errors import CannotTrain, count
from service.model.card import PARTS, Column, LeftOut
from service.model.encoding import EPOCH, ISO, KINDS, MOST_VALUES, Encoder, make_encoder
from service.rows import Floats
from service.tables.read import Cells
from training.profiles import DAY, Profile, Spot

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


def recognise(profile: Profile) -> Found:
    """Return what a column is.

    Raises:
        CannotTrain: it cannot be what was chosen; or most of its cells are numbers, but not all.
    """
    name, wanted = profile.name, profile.wanted
    if wanted in LEFT:
        return Found(name, wanted, "chosen")
    if wanted and wanted != "use":
        return _as_chosen(profile)
    if not wanted and is_unnamed(name):
        return Found(name, UNUSED, "it has no name, so no request could name it")
    found = _recognise_numbers(profile) if profile.has_numbers else None
    found = found or _recognise_texts(profile)
    if wanted and not found.is_used:
        return _as_used(profile, found)
    return found


def describe(found: Found, profile: Profile) -> Column:
    """Return the card's column of one that is used; export adds the quantiles of numbers."""
    missing = profile.missing
    if found.kind in ("number", "flag"):
        return Column(found.name, found.kind, profile.type, missing)
    if found.kind == "date":
        return _describe_date(found, profile)
    most = profile.values.most_common(MOST_VALUES)
    others = profile.known - sum(most.values())
    return Column(found.name, found.kind, "text", missing, values=most, others=others)


def _describe_date(found: Found, profile: Profile) -> Column:
    _, moments = profile.find_dates(found.format or "") or ("", {})
    counts = {part: [moments[part][value] for value in PARTS[part]] for part in found.parts}
    parts = list(found.parts)
    return Column(
        found.name, "date", "text", profile.missing, format=found.format, parts=parts,
        moments=counts,
    )  # fmt: skip


def encode(column: Column, cells: Cells, encoder: Encoder | None = None) -> Floats:
    """Return the features of a column of training, (n_rows, n_features), as a request gets them.

    `encoder` is the column's own, to save making it again.
    """
    if column.kind in ("number", "flag") and cells.numbers is not None:
        return cells.numbers[:, None]
    encoder = encoder or make_encoder(column)
    coded = cells.as_texts().dictionary_encode(null_encoding="encode")
    values = np.zeros((len(coded.dictionary), len(encoder.features)))
    encoder.many(coded.dictionary.to_pylist(), "", values)
    features: Floats = values[np.asarray(coded.indices)]
    return features


def _recognise_numbers(profile: Profile) -> Found | None:
    """Return what a column of numbers is; None where its digits are names, as in 00123."""
    name, low, high = profile.name, profile.low, profile.high
    if not profile.known:
        return Found(name, CONSTANT, "every cell is missing")
    if not profile.varies:
        return Found(name, CONSTANT, f"every number is {profile.first_number:g}")
    if profile.type == "bool":
        return Found(name, "flag", _spelled(profile) if profile.has_texts else "true and false")
    if profile.are_flags:
        return Found(name, "flag", "0 and 1")
    if profile.type == "int":
        return _recognise_whole(profile)
    return Found(name, "number", f"numbers from {low:g} to {high:g}")


def _recognise_whole(profile: Profile) -> Found | None:
    name = profile.name
    found = _as_date(profile) or _as_running(profile)
    if found is not None:
        return found
    if profile.has_leading_zeros:
        return None
    if profile.names_rows:
        if profile.count_numbers() > profile.known / 2:
            return Found(name, ID, "its name says so, and most cells are different")
        return None
    return Found(name, "number", f"whole numbers from {profile.low:g} to {profile.high:g}")


def _as_running(profile: Profile) -> Found | None:
    """Return a running number: whole numbers without a gap, or in even steps."""
    if profile.known < _FEWEST or not (step := profile.step):
        return None
    steps = "" if step == 1 else f" in steps of {abs(step):g}"
    return Found(profile.name, RUNNING, f"it counts the rows{steps}")


def _as_date(profile: Profile) -> Found | None:
    """Return a date where a name and the range of whole numbers say that they are one."""
    if not profile.names_date:
        return None
    if profile.is_epoch:
        return _date(profile, EPOCH)
    return _date(profile, DAY) if profile.is_day else None


def _recognise_texts(profile: Profile) -> Found:
    name, total, distinct = profile.name, profile.known, profile.values.count()
    if not total:
        return Found(name, CONSTANT, "every cell is missing")
    if not profile.has_numbers:
        _refuse_mistyped(profile)
        if found := _date(profile):
            return found
    if distinct == 1 and not profile.missing:
        return Found(name, CONSTANT, f"every cell is {short(_first(profile.example))}")
    words = profile.values.words
    if words > _WORDS and distinct > max(MOST_CATEGORIES, total / 2):
        return Found(name, FREE_TEXT, f"{distinct:,} different texts of {words:.0f} words")
    if total >= _FEWEST and distinct >= _NEARLY * total:
        return Found(name, ID, f"{distinct:,} different texts in {count(total, 'cell')}")
    return _as_text(profile)


def _as_text(profile: Profile) -> Found:
    distinct = profile.values.count()
    what = "codes" if profile.has_numbers else "text"
    if distinct <= MOST_CATEGORIES:
        return Found(profile.name, "category", f"{what} of {count(distinct, 'value')}")
    why = f"{what} of {count(distinct, 'value')}: how rare each one is"
    return Found(profile.name, "text", why)


def _as_used(profile: Profile, found: Found) -> Found:
    """Return how a column that would be left out is used."""
    note = f"kept, though it looks like {_article(found.kind)}: {found.why}"
    if profile.has_numbers:
        return Found(profile.name, "number", note)
    return replace(_as_text(profile), why=note)


def _as_chosen(profile: Profile) -> Found:
    name, kind = profile.name, profile.wanted
    if kind in ("number", "flag"):
        if not profile.has_numbers:
            bad = profile.first_bad or profile.first
            raise CannotTrain(f"--columns: {name!r} is no {kind}: {bad} holds {short(_first(bad))}")
        return Found(name, kind, "chosen")
    if kind == "date":
        format = "" if not profile.has_numbers else DAY if profile.is_day else EPOCH
        found = _date(profile, format)
        if found is None or not found.is_used:
            raise CannotTrain(
                f"--columns: {name!r} is no date in one of the formats read here, such as "
                f"2026-12-31 16:42, or it never varies; its first cell is "
                f"{short(_first(profile.first))}"
            )
        return replace(found, why=f"chosen; {found.why}")
    if not profile.known:
        raise CannotTrain(f"--columns: every cell of {name!r} is missing")
    return Found(name, kind, "chosen")


def _date(profile: Profile, format: str = "") -> Found | None:
    """Return a column of dates with the parts that vary; None if a cell is no such date."""
    dates = profile.find_dates(format)
    if dates is None:
        return None
    format, moments = dates
    varies = tuple(part for part, values in moments.items() if len(values) > 1)
    if not varies:
        return Found(profile.name, CONSTANT, "hour, weekday and day of the month never vary")
    return Found(profile.name, "date", _describe_format(format), format, varies)


def _describe_format(format: str) -> str:
    if format in (EPOCH, ISO):
        return f"dates in {format}"
    if format[:5] in ("%d/%m", "%m/%d", "%d-%m", "%m-%d"):
        order = "day before month" if format.startswith("%d") else "month before day"
        return f"dates as {format}, {order}"
    return f"{'dates' if 'd' in format else 'times'} as {format}"


def _refuse_mistyped(profile: Profile) -> None:
    """Refuse a column of numbers of which a few cells are something else."""
    bad, known, name = profile.bad, profile.known, profile.name
    if known and 1 - bad / known >= _MOSTLY:
        spot = profile.first_bad
        raise CannotTrain(
            f"column {name!r} holds numbers, but {short(_first(spot))} in {spot} is none "
            f"({bad:,} of {count(known, 'cell')}); correct it, or say what the column is: "
            f'--columns "{name}:text", or leave it out: --columns "-{name}"'
        )


def _first(spot: Spot | None) -> Any:
    return None if spot is None else spot.cell


def _spelled(profile: Profile) -> str:
    return " and ".join(sorted(profile.values.most_common(MOST_VALUES))[:4])


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def left_out(found: Found) -> LeftOut:
    """Return the card's entry of a column that is left out."""
    return LeftOut(found.name, found.kind, found.why)
