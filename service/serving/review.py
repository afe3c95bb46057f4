"""Review what was flagged: the rows that wait for a label, why each was flagged, and its like.

A `Review` reads the record and the feedback once and then describes rows from that. Its time and
memory are bounded: it sorts what the record keeps, and reads the cells of few rows.
"""

import math
import shlex
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cells import TRUTHS
from ..errors import BadInput
from ..rows import RawTable, Rows
from ..state.feedback.store import FeedbackStore, LastTruth
from ..state.puids import PUID_BYTES, is_cut
from ..state.record_format import Outline, Recorded, hash_names, hash_rows
from .predictor import Predictor

ORDERS = ("abnormal", "threshold", "newest", "others")
"""Of the queue: flagged rows, the most abnormal, nearest to the threshold or newest first; or rows
that were not flagged, in random order: labels of these tell how many outliers are missed."""

MOST_ROWS = 200_000
"""So many of the rows recorded last are looked at."""

MOST_LABELS = 4_000
"""So many of the last labels are looked at in one piece."""

MOST_FILTERED = 5_000
"""A filter reads the cells of so many rows, the first of the queue."""

MOST_COMPARED = 2_000
"""The most alike are sought among so many rows: those labelled last."""

# If there are more labels than above, those of the queue's first rows are looked up, so many at a
# time, until so many rows without a label are found.
_CHECKED, _FREE = 200, 100

_TABLE_BITS = 17

_COMPARISONS: dict[str, Callable[..., Any]] = {"<": np.less, ">": np.greater}
_SIGNS = {*_COMPARISONS, "="}


@dataclass(frozen=True)
class Queue:
    """The rows that wait for a label, in order, and how many there are."""

    rows: Outline
    recorded: int
    """All rows on record, at most MOST_ROWS."""
    flagged: int
    """Those that were answered as outliers."""
    labelled: int
    """Flagged rows that have a label."""
    replaced: int
    """Flagged rows whose puid was used again later, so that no feedback can be about them."""
    is_exact: bool
    """Whether every row of the queue is known to be without a label."""


@dataclass(frozen=True)
class Neighbour:
    """A labelled row that is like another one."""

    puid: str
    row: int
    truth: int
    alikeness: float
    """The share of the trees in which both are in one leaf, 0 to 1."""
    cells: list[Any]


class Review:
    """What the record and the feedback say at one moment."""

    def __init__(self, predictor: Predictor, store: FeedbackStore) -> None:
        self.detector, self._records, self._store = predictor.detector, predictor.records, store

    @cached_property
    def outline(self) -> Outline:
        """The rows on record, the last MOST_ROWS of them, the oldest first."""
        return Outline.empty() if self._records is None else self._records.outline(MOST_ROWS)

    @cached_property
    def labels(self) -> list[LastTruth]:
        """The last labels, the latest first."""
        return self._store.last_truths(MOST_LABELS)

    @cached_property
    def _are_latest(self) -> NDArray[np.bool_]:
        return self.outline.are_latest

    @cached_property
    def _label_codes(self) -> NDArray[np.uint64]:
        """The code of each label, as `Outline.codes` has it."""
        names = np.array([one.name for one in self.labels], f"S{PUID_BYTES}")
        rows = np.array([one.row_index for one in self.labels], np.int64)
        return hash_rows(hash_names(names), rows)

    @property
    def has_cells(self) -> bool:
        """Whether the cells of rows are on record."""
        return self._records is not None and bool(self._records.features)

    def queue(self, order: str = ORDERS[0], find: str = "") -> Queue:
        """Return the rows without a label that a filter lets pass.

        BadInput if the order is unknown, or the filter compares a column with what is no number.
        """
        if order not in ORDERS:
            raise BadInput(f"the order is {', '.join(ORDERS)}, not {order[:40]!r}")
        outline, latest = self.outline, self._are_latest
        flagged = outline.label == 1
        labelled = latest & _among(outline.codes, self._label_codes)
        asked = ~flagged if order == "others" else flagged
        rows = outline.at(np.flatnonzero(asked & latest & ~labelled))
        rows = rows.at(np.argsort(self._rank(rows, order), kind="stable"))
        is_exact = len(self.labels) < MOST_LABELS
        if not is_exact:
            rows = self._without_labels(rows)
        if find.strip():
            rows = self._filter(rows, find)
        return Queue(
            rows,
            recorded=len(outline),
            flagged=int(flagged.sum()),
            labelled=int((flagged & labelled).sum()),
            replaced=int((flagged & ~latest).sum()),
            is_exact=is_exact,
        )

    def read(self, rows: Outline) -> Recorded | None:
        """Return whole rows of the outline; None without a record."""
        return None if self._records is None else self._records.read_rows(rows)

    def find(self, puid: str, row: int) -> Recorded | None:
        """Return a row on record, as an array of one; None if it is not there (any more)."""
        if self._records is None:
            return None
        found = self._records.find(puid)
        found = found[found["row"] == row]
        return found if len(found) else None

    def encode(self, rows: Recorded) -> Rows | None:
        """Encode recorded cells for the model that is served now.

        None if the cells are not on record, or are not what this model takes.
        """
        columns = self.detector.columns
        if self._records is None or not set(columns.names) <= set(self._records.features):
            return None
        cells = self._records.cells(rows)
        try:
            return columns.encode(_as_table(columns.names, [cells[name] for name in columns.names]))
        except BadInput:
            return None

    def neighbours(self, rows: Rows, of: tuple[str, int], most: int = 5) -> list[Neighbour]:
        """Return the labelled rows that are most like a row, the most alike first.

        `rows` is that row, encoded, and `of` its puid and index. Compared are those of the last
        MOST_COMPARED labelled rows that are still on record.
        """
        outline, codes = self.outline, self._label_codes[:MOST_COMPARED]
        found = self.read(
            outline.at(np.flatnonzero(_among(outline.codes, codes) & self._are_latest))
        )
        encoded = None if found is None or not len(found) else self.encode(found)
        if found is None or encoded is None:
            return []
        truths = dict(zip(codes.tolist(), self.labels, strict=False))
        rows_found = zip(_decode(found["puid"]), found["row"].tolist(), strict=True)
        places, labelled = list(rows_found), _codes_of(found).tolist()
        shares = self.detector.model.scorer.alikeness(rows.values[0], encoded.values)
        order = [i for i in np.argsort(-shares, kind="stable").tolist() if places[i] != of]
        nearest = [i for i in order[:most] if shares[i] > 0]
        cells = self.detector.columns.cells(encoded.at(nearest)) if nearest else []
        return [
            Neighbour(places[i][0], places[i][1], truths[labelled[i]].truth, float(shares[i]), own)
            for i, own in zip(nearest, cells, strict=True)
        ]

    def _rank(self, rows: Outline, order: str) -> NDArray[Any]:
        ranks: dict[str, NDArray[Any]] = {
            "abnormal": rows.score,
            "threshold": np.abs(rows.score - self.detector.threshold),
            "newest": -rows.stamp,
            "others": rows.codes,  # which no client chooses, so it is as good as chance
        }
        return ranks[order]

    def _without_labels(self, rows: Outline) -> Outline:
        """Leave out which of the first rows have a label, by looking each of them up."""
        keep = np.ones(len(rows), bool)
        for start in range(0, len(rows), _CHECKED):
            part = slice(start, start + _CHECKED)
            free = self._have_no_label(rows.at(part))
            keep[part] = [code in free for code in rows.codes[part].tolist()]
            if keep[: part.stop].sum() >= _FREE:
                break
        return rows.at(keep)

    def _have_no_label(self, rows: Outline) -> set[int]:
        """Return the codes of those rows that have no label, by looking each of them up."""
        found = self.read(rows)
        if found is None:
            return set()
        places = zip(_decode(found["puid"]), found["row"].tolist(), strict=True)
        labelled = self._store.are_labelled(list(places))
        pairs = zip(_codes_of(found).tolist(), labelled, strict=True)
        return {code for code, has_label in pairs if not has_label}

    def _filter(self, rows: Outline, find: str) -> Outline:
        """Return the first MOST_FILTERED rows that have all that the filter asks for."""
        rows = rows.at(slice(0, MOST_FILTERED))
        found = self.read(rows)
        if self._records is None or found is None:
            return rows
        cells = self._records.cells(found)
        keep = np.ones(len(found), bool)
        for word in _join_comparisons(_words(find), cells):
            keep &= _matches(word, found["puid"], cells)
        chosen = set(_codes_of(found[keep]).tolist())
        return rows.at(np.array([code in chosen for code in rows.codes.tolist()], bool))


def is_known(puid: str) -> bool:
    """Return whether a puid from the record is whole, so that feedback can name it."""
    return not is_cut(puid.encode(errors="replace"))


def _decode(names: NDArray[np.bytes_]) -> list[str]:
    return [name.decode(errors="replace") for name in names.tolist()]


def _among(codes: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which codes are wanted: `np.isin`, after a table of their last bits for speed."""
    table = np.zeros(2**_TABLE_BITS, bool)
    last = np.uint64(2**_TABLE_BITS - 1)
    table[wanted & last] = True
    found: NDArray[np.bool_] = table[codes & last]
    maybe = np.flatnonzero(found)
    found[maybe] = np.isin(codes[maybe], wanted)
    return found


def _codes_of(rows: Recorded) -> NDArray[np.uint64]:
    return hash_rows(hash_names(rows["puid"]), rows["row"])


def _as_table(names: tuple[str, ...], cells: list[NDArray[Any]]) -> RawTable:
    """Return recorded cells as a client would send them."""
    if all(column.dtype.kind == "f" for column in cells):
        return RawTable(np.column_stack(cells), names)
    columns = [
        [cell.decode(errors="replace") or None for cell in column.tolist()]
        if column.dtype.kind == "S"
        else column.tolist()
        for column in cells
    ]
    return RawTable(list(map(list, zip(*columns, strict=True))), names)


def _words(find: str) -> list[str]:
    """Cut a filter into words; quotes keep blanks in one."""
    try:
        return shlex.split(find)
    except ValueError:  # a quote that is not closed yet, while somebody types
        return find.replace('"', " ").replace("'", " ").split()


def _join_comparisons(words: list[str], names: Collection[str]) -> list[str]:
    """Return the words of a filter, with a comparison of a column as one: it may have blanks.

    >>> _join_comparisons(["amount", ">", "3", "cafe", "amount<", "9"], ["amount"])
    ['amount>3', 'cafe', 'amount<9']
    """
    known, joined, is_open = {name.casefold() for name in names}, list[str](), False
    for word in words:
        begins = bool(joined) and joined[-1].casefold() in known and word[:1] in _SIGNS
        if begins or is_open:
            joined[-1] += word
        else:
            joined.append(word)
        is_open = joined[-1][-1:] in _COMPARISONS and joined[-1][:-1].casefold() in known
        is_open |= begins and word in _SIGNS
    return joined


def _matches(
    word: str, puids: NDArray[np.bytes_], cells: dict[str, NDArray[Any]]
) -> NDArray[np.bool_]:
    """Return which rows have a word: `column=value`, `column<number`, or part of any text."""
    for name in sorted(cells, key=len, reverse=True):
        sign, value = word[len(name) : len(name) + 1], word[len(name) + 1 :]
        if sign in _SIGNS and word[: len(name)].casefold() == name.casefold():
            return _compare(cells[name], sign, value.strip(), name)
    text = word.casefold()
    texts = [puids, *(column for column in cells.values() if column.dtype.kind == "S")]
    hits = np.zeros(len(puids), bool)
    for column in texts:
        hits |= [text in cell.decode(errors="replace").casefold() for cell in column.tolist()]
    return hits


def _compare(column: NDArray[Any], sign: str, value: str, name: str) -> NDArray[np.bool_]:
    if column.dtype.kind == "S":
        if sign != "=":
            raise BadInput(f"{name[:40]} is text: filter it with {name[:40]}=value")
        wanted = value.casefold()
        cells = column.tolist()
        return np.array([one.decode(errors="replace").casefold() == wanted for one in cells], bool)
    number = _read_number(column, value, name)
    matches: NDArray[np.bool_]
    if sign == "=":
        matches = np.isnan(column) if math.isnan(number) else column == number
    else:
        matches = _COMPARISONS[sign](column, number)
    return matches


def _read_number(column: NDArray[Any], value: str, name: str) -> float:
    """Return the number of a comparison; NaN if it has none. A flag may be yes or no."""
    is_flag = bool(np.isin(column[~np.isnan(column)], (0.0, 1.0)).all())
    if is_flag and value.casefold() in TRUTHS:
        return TRUTHS[value.casefold()]
    try:
        return float(value) if value else math.nan
    except ValueError as error:
        raise BadInput(f"{name[:40]} is a number, and {value[:40]!r} is none") from error
