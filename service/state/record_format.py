"""Recorded rows: their fields and check sums, the formats of their file, and their outlines.

A row begins with its stamp and ends with a check sum of all its bytes; docs/internals/state.md
explains both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..rows import Floats, record_type
from .puids import PUID_BYTES

# Format 2 had its stamps apart and no check sums; format 3 had no traces.
FORMAT, _WITHOUT_SUMS, _WITHOUT_TRACES = 4, 2, 3

# The check sum of a row that was written alone: the upper half of its stamp, and a CRC of the other
# bytes that begins with the lower half.
LOWER, UPPER = 0xFFFFFFFF, ~0xFFFFFFFF
_FACTOR, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(33)
_NEGATIVE = np.uint64(1 << 63)

Recorded = NDArray[np.void]
"""Rows of the ring, with the fields of `row_type`."""


@dataclass(frozen=True)
class Outline:
    """Rows without their cells: arrays (n_rows,). Each is apart, as numpy is fast with those."""

    index: NDArray[np.intp]
    """Where the row is in the file."""
    stamp: NDArray[np.int64]
    request: NDArray[np.int64]
    """The same for all rows of a request, greater for a later one."""
    prediction: NDArray[np.uint64]
    """`hash_names` of its puid."""
    time: Floats
    """Seconds since 1970, UTC."""
    score: Floats
    row: NDArray[np.uint32]
    """Its index in its request."""
    label: NDArray[np.uint32]
    """1 for an outlier, as it was answered."""
    version: NDArray[np.bytes_]
    """The model's."""

    def __len__(self) -> int:
        return len(self.stamp)

    @classmethod
    def empty(cls) -> Outline:
        """Return the outline of no rows."""
        kinds = ("i8", "i8", "i8", "u8", "f8", "f8", "u4", "u4", "S16")
        return cls(*(np.empty(0, kind) for kind in kinds))

    def at(self, chosen: NDArray[Any] | slice) -> Outline:
        """Return the rows that a mask, an array of indices or a slice chooses."""
        return Outline(*(getattr(self, one.name)[chosen] for one in fields(self)))

    @property
    def are_latest(self) -> NDArray[np.bool_]:
        """Which rows belong to the latest request with their puid: feedback is about those."""
        if not len(self):
            return np.empty(0, np.bool_)
        order = np.argsort(self.prediction)
        ordered = self.prediction[order]
        starts = np.flatnonzero(np.append([True], ordered[1:] != ordered[:-1]))
        latest = np.maximum.reduceat(self.request[order], starts)
        found = np.empty(len(order), np.bool_)
        repeated = np.repeat(latest, np.diff(np.append(starts, len(order))))
        found[order] = self.request[order] == repeated
        return found

    @property
    def codes(self) -> NDArray[np.uint64]:
        """A number for each row of each puid: see `hash_rows`."""
        return hash_rows(self.prediction, self.row)


def row_type(numbers: int, texts: int) -> np.dtype[np.void]:
    """Return the fields of a row: whatever they are, a stamp begins it and a check sum ends it.

    Each row begins at a multiple of 8 bytes, so that its stamp is stored in one step.
    """
    return np.dtype(
        [
            ("stamp", np.int64),  # see docs/internals/state.md
            ("request", np.int64),  # the same for all rows of a request, greater for a later one
            ("time", np.float64),  # seconds since 1970, UTC; may go backwards
            ("score", np.float64),
            ("row", np.uint32),  # number in its request
            ("label", np.uint32),  # 1 for an outlier
            ("version", "S16"),  # of the model
            ("puid", f"S{PUID_BYTES}"),
            ("trace", "S16"),  # id of its W3C trace, without zeros at the end; empty if it has none
            *record_type(numbers, texts).descr,
            ("check", np.int64),  # of all fields
        ]
    )


def find_keys(rows: Recorded) -> NDArray[np.uint32]:
    """Return the key of each row: 0 for one without a stamp, or deleted."""
    keys = np.zeros(len(rows), np.uint32)
    there = np.flatnonzero(rows["stamp"] > 0)
    keys[there] = [crc32(puid) for puid in rows["puid"][there].tolist()]
    return keys


def hash_names(names: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return a number for each puid as it is stored; two puids have the same one by chance only."""
    padded = np.ascontiguousarray(names, f"S{PUID_BYTES}")
    words = padded.view(np.uint64).reshape(len(padded), PUID_BYTES // 8)
    factors = np.arange(1, 2 * words.shape[1] + 1, 2, dtype=np.uint64) * _FACTOR
    sums = words @ factors
    names_as_numbers: NDArray[np.uint64] = sums ^ (sums >> np.uint64(29))
    return names_as_numbers


def hash_rows(predictions: NDArray[np.uint64], rows: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return a number for each row of a prediction, from `hash_names` and its index in there."""
    codes: NDArray[np.uint64] = predictions + (rows.astype(np.uint64) + np.uint64(1)) * _FACTOR
    return codes


def check_sums(rows: Recorded) -> NDArray[np.int64]:
    """Return check sums of many rows at once: negative, as a row written alone has a CRC instead.

    Each word counts with another odd factor, so no single word can change unnoticed.
    """
    width = rows.dtype.itemsize // 8
    sums = np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), width) @ _factors(width)
    sums ^= sums >> _SHIFT
    sums |= _NEGATIVE
    return sums.view(np.int64)


@cache
def _factors(words: int) -> NDArray[np.uint64]:
    """Return an odd factor for each word of a row, and 0 for the last, which is the check sum."""
    factors = np.arange(1, 2 * words + 1, 2, dtype=np.uint64) * _FACTOR
    factors[-1] = 0
    return factors


def are_sound(rows: Recorded, upper: int = UPPER) -> NDArray[np.bool_]:
    """Return which rows have the check sum of their bytes.

    `upper` is the mask of the stamp's bits in the check sum of a row that was written alone.
    """
    checks = rows["check"]
    sound: NDArray[np.bool_] = checks == check_sums(rows)
    alone = np.flatnonzero(checks >= 0)
    if len(alone):
        size, written = rows.dtype.itemsize, rows[alone]
        names: Any = {
            "names": ["body"],
            "formats": [f"V{size - 16}"],
            "offsets": [8],
            "itemsize": size,
        }
        bodies = written.view(np.dtype(names))["body"].tolist()
        stamps = written["stamp"]
        found = np.array(list(map(crc32, bodies, (stamps & LOWER).tolist())))
        sound[alone] = checks[alone] == found | stamps & upper
    return sound


# The rows of a former format, which of them are whole, and the stamp of each.
_Found = tuple[Recorded, NDArray[np.bool_], NDArray[np.int64]]


def _read_without_sums(body: bytes, size: int, new: np.dtype[np.void]) -> _Found:
    """Read format 2: stamps, then rows that begin and end with the same stamp."""
    fields = [name for name in new.names or () if name not in {"trace", "check"}]
    old = np.dtype([*((name, new[name]) for name in fields), ("end", np.int64)])
    body = body.ljust((8 + old.itemsize) * size, b"\0")
    stamps = np.frombuffer(body, np.int64, size)
    found = np.frombuffer(body, old, size, 8 * size)
    return found, (stamps > 0) & (found["stamp"] == stamps) & (found["end"] == stamps), stamps


def _read_without_traces(body: bytes, size: int, new: np.dtype[np.void]) -> _Found:
    """Read format 3: today's but for one field. At first, check sums had no upper half."""
    old = np.dtype([(name, new[name]) for name in new.names or () if name != "trace"])
    found = np.frombuffer(body.ljust(old.itemsize * size, b"\0"), old, size)
    whole = found["stamp"] > 0
    whole[whole] = are_sound(found[whole]) | are_sound(found[whole], upper=0)
    return found, whole, found["stamp"]


FORMER = {_WITHOUT_SUMS: _read_without_sums, _WITHOUT_TRACES: _read_without_traces}
"""How each former format is read."""
