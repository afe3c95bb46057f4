"""Encode batches of Arrow columns as `Columns.encode` encodes the cells of a request.

Numbers go from Arrow to numpy without Python objects. Of text and dates each different cell of a
batch is encoded once, by the same encoders.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, types

from ..cells import MISSING as MISSING_TEXTS
from ..cells import short
from ..errors import BadInput
from ..model.columns import Columns
from ..model.encoding import MISSING, OUT_OF_RANGE, USUAL, CellFault, Encoder, NumberEncoder
from ..rows import Floats
from ..tables.read import NUMBER, write_dates


class Fault(NamedTuple):
    """A cell that its column does not take."""

    row: int
    """Its index in the batch."""
    column: int
    """Its place in the model's order."""
    text: str


@dataclass
class Encoded:
    """A batch as the forest takes it."""

    values: Floats
    """(n_rows, n_features) The encoded matrix; rows with a fault hold anything."""
    odd: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How many cells are odd, by column and kind as in `rows.ODD`."""
    faults: list[Fault] = field(default_factory=list)
    """The first fault of each row that has one, in the order of the rows."""


def encode_batch(columns: Columns, cells: list[pa.Array], decimal: str) -> Encoded:
    """Encode the columns of a batch, which come in the model's order.

    `decimal` is the decimal mark of a CSV file, empty if the cells are typed.
    """
    n = len(cells[0])
    encoded = Encoded(np.zeros((n, len(columns.features))))
    first: dict[int, Fault] = {}
    for j, ((encoder, place), column) in enumerate(zip(columns.encoders, cells, strict=True)):
        encode = _encode_numbers if isinstance(encoder, NumberEncoder) else _encode_texts
        try:
            odd, bad = encode(encoder, column, decimal, encoded.values[:, place])  # type: ignore[arg-type]
        except BadInput as error:
            raise BadInput(f"column {columns.names[j]!r} holds {error}") from error
        encoded.odd.update({(j, kind): number for kind, number in odd.items() if number})
        for row, text in bad.items():
            first.setdefault(row, Fault(row, j, text))
    encoded.faults = [first[row] for row in sorted(first)]
    return encoded


_Odd = dict[int, int]
_Bad = dict[int, str]
"""Why a cell is not taken, by its row."""


def _encode_numbers(
    encoder: NumberEncoder, column: pa.Array, decimal: str, out: Floats
) -> tuple[_Odd, _Bad]:
    numbers, rest = _read_numbers(column, decimal)
    bad = _parse_rest(encoder, column, decimal, numbers, rest)
    out[:, 0] = numbers
    usual = (numbers >= encoder.low) & (numbers <= encoder.high)
    if usual.all() and not bad:
        return {}, {}
    missing = np.isnan(numbers)
    refused = np.isinf(numbers) if encoder.takes_missing else np.isinf(numbers) | missing
    for i in np.flatnonzero(refused).tolist():
        bad.setdefault(i, _fault_of(encoder, column[i].as_py(), decimal))
    taken = np.ones(len(numbers), np.bool_)
    taken[list(bad)] = False
    beyond = int((~usual & ~missing & taken).sum())
    return {OUT_OF_RANGE: beyond, MISSING: int((missing & taken).sum())}, bad


def _parse_rest(
    encoder: NumberEncoder, column: pa.Array, decimal: str, numbers: Floats, rest: NDArray[np.intp]
) -> _Bad:
    """Parse the cells that Arrow did not read, each different one once, into `numbers`."""
    known: dict[str, float | str] = {}
    bad: _Bad = {}
    for i, cell in zip(rest.tolist(), column.take(rest).to_pylist(), strict=True):
        if cell not in known:
            try:
                known[cell] = encoder.one(cell, decimal)[1]
            except CellFault as fault:
                known[cell] = fault.text
        found = known[cell]
        if isinstance(found, str):
            bad[i] = found
        else:
            numbers[i] = found
    return bad


def _fault_of(encoder: Encoder, cell: Any, decimal: str) -> str:
    try:
        encoder.one(cell, decimal)
    except CellFault as fault:
        return fault.text
    raise AssertionError(f"{short(cell)} was refused, but is taken")  # both have the same rules


_NONE = np.empty(0, np.intp)


def _read_numbers(column: pa.Array, decimal: str) -> tuple[Floats, NDArray[np.intp]]:
    """Return a column as numbers, NaN where one is missing, and which cells are still to be read.

    BadInput if it is of a type that holds no numbers.
    """
    kind = column.type
    if types.is_dictionary(kind):
        return _read_numbers(column.dictionary_decode(), decimal)
    if types.is_decimal(kind):  # by way of text it is rounded as Python does
        column = column.cast("string")
        kind = column.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind):
        return _floats(column), _NONE
    if types.is_boolean(kind):
        return _floats(column.cast("uint8")), _NONE
    return _read_texts(as_texts(column), decimal)


def _floats(column: pa.Array) -> Floats:
    return np.array(column.cast("float64", safe=False).to_numpy(zero_copy_only=False), np.float64)


def _read_texts(texts: pa.Array, decimal: str) -> tuple[Floats, NDArray[np.intp]]:
    """Return texts as numbers where Arrow reads them as Python does, and the indices of others."""
    if decimal != ",":
        numbers = _cast(texts)
        if numbers is not None:
            return numbers, _NONE
    texts = compute.utf8_trim_whitespace(texts)
    is_missing = compute.is_in(texts, value_set=pa.array(sorted(MISSING_TEXTS)))
    texts = compute.if_else(is_missing, pa.scalar(None, pa.string()), texts)
    plain = texts
    if decimal == ",":  # a point separates thousands
        pointed = compute.match_substring(texts, ".")
        plain = compute.replace_substring(texts, ",", ".")
        plain = compute.if_else(pointed, pa.scalar(None, pa.string()), plain)
    is_plain = compute.fill_null(compute.match_substring_regex(plain, NUMBER), False)
    plain = compute.if_else(is_plain, plain, pa.scalar(None, pa.string()))
    rest = np.flatnonzero(~np.asarray(is_plain) & ~np.asarray(texts.is_null()))
    return _floats(plain), rest


def _cast(texts: pa.Array) -> Floats | None:
    """Return texts as numbers if all of them are plainly so; fast."""
    try:
        numbers = _floats(texts)
    except pa.ArrowInvalid:
        return None
    return None if np.isnan(numbers).any() else numbers


def _encode_texts(
    encoder: Encoder, column: pa.Array, decimal: str, out: Floats
) -> tuple[_Odd, _Bad]:
    """Encode a category, text or date: each different cell once."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_decimal(column.type):  # a request would have a number
        column = pa.array(_read_numbers(column, "")[0], from_pandas=True)
    if not types.is_floating(column.type) and not types.is_boolean(column.type):
        column = as_texts(column)
    coded = column.dictionary_encode(null_encoding="encode")
    codes = np.asarray(coded.indices)
    features = np.zeros((len(coded.dictionary), out.shape[1]))
    kinds = np.full(len(coded.dictionary), USUAL)
    bad: _Bad = {}
    for code, cell in enumerate(coded.dictionary.to_pylist()):
        try:
            features[code], _, kinds[code] = encoder.one(cell, decimal)
        except CellFault as fault:
            bad |= dict.fromkeys(np.flatnonzero(codes == code).tolist(), fault.text)
    out[:] = features[codes]
    rows = np.bincount(codes, minlength=len(kinds))
    odd = {kind: int(rows[kinds == kind].sum()) for kind in set(kinds.tolist()) - {USUAL}}
    return odd, bad


def as_texts(column: pa.Array) -> pa.Array:
    """Return cells as the texts that a request would have for them.

    BadInput for cells that are neither numbers, text nor dates.
    """
    kind = column.type
    if types.is_string(kind):
        return column
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind):
        return write_dates(column)
    if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        raise BadInput(f"cells of the type {kind}, which are neither numbers, text nor dates")
    return column.cast("string")
