"""The record of the rows scored last: for feedback, drift figures and exports.

Its file is a ring of blocks of rows that all workers write into. docs/internals/state.md explains
how each row is written whole, in which order rows are read, and why the last ones are never lost.
After the header the file contains all stamps, then all rows, then all keys (a check sum of the
puid, to find it quickly).
"""

import logging
import struct
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..errors import BadSetting
from ..rows import Floats, Verdict
from .double_buffer import OUT_OF_ORDER, fence
from .folder import quarantined
from .puids import storage_bytes
from .shared import MAX_PROCESSES, ByteLocks, MappedFile, clock_offset_after, reset_in_children

logger = logging.getLogger(__name__)

FILE_NAME = "records.bin"

MAX_BYTES = 256 * 2**20
"""The largest size of the file."""

PUID_BYTES = 48
"""A longer puid is stored as its beginning and a digest."""

Recorded = NDArray[np.void]
"""Rows of the ring, with the fields of `_row_type`."""

_SPARE_BLOCKS = 2 * MAX_PROCESSES

# Claiming a block takes about 10 us, so blocks are large; a short ring consists of blocks, too.
_LARGEST_BLOCK, _SMALLEST_BLOCK, _BLOCKS = 256, 16, 512

_TAKEN = np.iinfo(np.int64).max  # later than any stamp

# Time, version, puid, the puid's key, threshold: the same for all rows of a request.
_Request = tuple[float, bytes, bytes, int, float]

# Up to this number, rows are written one by one: numpy's fixed cost equals about ten rows.
_FEW = 8


class Records:
    """The last rows scored, shared by the threads and processes of a service."""

    def __init__(self, file: MappedFile) -> None:
        """Use a file whose layout `_plan` has made."""
        self._file = file
        layout = file.layout
        self.rows: int = layout["rows"]
        """How many of the rows written last are kept."""
        self.features: tuple[str, ...] = tuple(layout["features"])
        """Names of the columns of `values`; none if values are not kept."""
        self._block_rows: int = layout["block rows"]
        self._blocks: int = layout["blocks"]
        size = self._block_rows * self._blocks
        row_type = _row_type(len(self.features))
        keys_start = (8 + row_type.itemsize) * size
        self._stamps = np.frombuffer(file.body, np.int64, size)
        self._table: Recorded = np.frombuffer(file.body, row_type, size, 8 * size)
        self._keys = np.frombuffer(file.body, np.uint32, size, keys_start)
        # The same memory as plain numbers and bytes: storing one item is ten times faster.
        self._stamp_words, self._key_words = self._stamps.data, self._keys.data
        self._row_bytes = file.body[8 * size : keys_start]
        self._row_size, self._values_size = row_type.itemsize, 8 * len(self.features)
        self._pack_row = struct.Struct(f"=qqddII16s48s{self._values_size}sq").pack_into
        self._set_clock()
        reset_in_children(self)

    def _set_clock(self) -> None:
        """Make new stamps greater than those in the file."""
        self._ahead = clock_offset_after(int(np.abs(self._stamps).max()))

    def reset_after_fork(self) -> None:
        """Hold no block; the next row claims one."""
        self._lock = threading.Lock()
        self._locks: ByteLocks | None = None
        self._block = -1
        self._next = self._end = 0

    def append(self, puid: str, values: Floats, verdict: Verdict) -> None:
        """Write the rows of one request: `values` (n_rows, n_features) and their verdict.

        If there are more rows than are kept, write the last ones.
        """
        name, scores = storage_bytes(puid, PUID_BYTES), verdict.scores
        request = time.time(), verdict.version.encode(), name, crc32(name), verdict.threshold
        if len(scores) > _FEW:
            self._write_many(values, verdict, request)
            return
        self._lock.acquire()  # `with` costs twice as much, and every request pays it
        try:
            self._write_few(values.tobytes(), scores.tolist(), request)
        finally:
            self._lock.release()

    def _write_few(self, cells: bytes, scores: list[float], request: _Request) -> None:
        first, width = time.monotonic_ns() + self._ahead, self._values_size
        now, version, puid, key, threshold = request
        for row, score in enumerate(scores):
            index, stamp = self._next, first + row
            if index == self._end:
                index = self._open_block()
            self._pack_row(
                self._row_bytes, index * self._row_size,
                stamp, first, now, score, row, score < threshold, version, puid,
                cells[row * width : (row + 1) * width], stamp,
            )  # fmt: skip
            self._key_words[index] = key
            if OUT_OF_ORDER:
                fence()
            self._stamp_words[index] = stamp
            self._next = index + 1

    def _write_many(self, values: Floats, verdict: Verdict, request: _Request) -> None:
        """Write rows a block at a time, so that other threads can write between two blocks."""
        numbers = np.arange(max(0, len(verdict) - self.rows), len(verdict))
        rows = np.empty(len(numbers), self._table.dtype)
        rows["row"] = numbers
        rows["time"], rows["version"], rows["puid"], key, _ = request
        rows["score"], rows["label"] = verdict.scores[numbers], verdict.labels[numbers]
        if self.features:
            rows["values"] = values[numbers]
        rows["request"] = time.monotonic_ns() + self._ahead
        done = 0
        while done < len(rows):
            with self._lock:
                done += self._write_piece(rows[done:], key)

    def _write_piece(self, rows: Recorded, key: int) -> int:
        """Write as many of these rows as fit into the current block; return how many."""
        if self._next == self._end:
            self._open_block()
        first, last = self._next, min(self._next + len(rows), self._end)
        written, size = rows[: last - first], self._row_size
        stamp = time.monotonic_ns() + self._ahead
        written["stamp"] = written["end"] = np.arange(stamp, stamp + len(written))
        self._row_bytes[first * size : last * size] = written.view(np.uint8).data
        self._keys[first:last] = key
        fence()
        self._stamps[first:last] = written["stamp"]
        self._next = last
        return last - first

    def _open_block(self) -> int:
        """Release the block just filled, claim another, and return the index of its first row."""
        if self._locks is None:
            self._locks = self._file.locks()
        elif self._block >= 0:
            self._locks.release(self._block)
        self._block, first = self._claim_block(self._locks)
        self._next = self._block * self._block_rows + first
        self._end = (self._block + 1) * self._block_rows
        return self._next

    def _claim_block(self, locks: ByteLocks) -> tuple[int, int]:
        """Lock an unfinished block or the oldest; return its number and its first free row."""
        blocks = self._stamps.reshape(self._blocks, self._block_rows)
        last = np.abs(blocks[:, -1])  # 0 if a block is not full
        while True:  # there are more blocks than processes, so one is free
            block = int(last.argmin())
            found, last[block] = last[block], _TAKEN
            if found == _TAKEN:
                last = np.abs(blocks[:, -1])
                continue
            if not locks.acquire(block):
                continue
            if abs(blocks[block, -1]) != found:  # another worker has filled it meanwhile
                locks.release(block)
                continue
            if found:
                blocks[block] = 0
                fence()
            return block, int(np.flatnonzero(blocks[block]).max(initial=-1)) + 1

    def read(self, last: int | None = None) -> Recorded:
        """Return the last rows, all that are kept or at most `last`, the oldest first."""
        stamps = self._stamps.copy()
        order = np.abs(stamps)
        kept = self.rows if last is None else min(last, self.rows)
        first = len(stamps) - min(kept, int(np.count_nonzero(stamps)))
        if first == len(stamps):
            return self._table[:0].copy()
        latest = np.argpartition(order, first)[first:]
        latest = latest[np.argsort(order[latest])]
        return self._read_whole(latest, stamps[latest])

    def scored_by(self, version: str, last: int) -> tuple[Floats, Floats]:
        """Return values and scores of those of the `last` rows that a model version scored."""
        rows = self.read(last)
        rows = rows[rows["version"] == version.encode()]
        return rows["values"], rows["score"]

    def find(self, puid: str) -> Recorded:
        """Return the rows of the latest request with this puid in their order; none if unknown.

        Only rows that are still kept are found: the field `row` is their number in the request.
        """
        name = storage_bytes(puid, PUID_BYTES)
        indices = np.flatnonzero(self._keys == crc32(name))
        stamps = self._stamps[indices]
        if len(indices) and self._table["puid"][indices[stamps.argmax()]] != name:
            stamps[self._table["puid"][indices] != name] = 0  # two puids have one check sum
        if stamps.max(initial=0) <= 0:
            return self._table[:0].copy()
        # The latest request began no earlier than the newest row's request. So if one puid is used
        # for everything, only few rows are read.
        newest = stamps.argmax()
        first = max(1, self._table["request"][indices[newest]])
        recent = np.flatnonzero(stamps >= first)
        rows = self._read_whole(indices[recent], stamps[recent])
        rows = rows[rows["puid"] == name]
        rows = rows[rows["request"] == rows["request"].max(initial=0)]
        found: Recorded = rows[np.argsort(rows["row"])]
        return found

    def delete(self, puid: str | None = None, before: float | None = None) -> int:
        """Overwrite the rows of a puid, or those older than `before` (seconds since 1970, UTC).

        Return how many. A service may continue to record meanwhile.
        """
        name = None if puid is None else storage_bytes(puid, PUID_BYTES)
        locks = self._file.locks()
        deleted = 0
        for block in range(self._blocks):
            # A block that another process holds is overwritten as well: that process writes after
            # the rows that are there, never over them.
            locked = locks.acquire(block)
            deleted += self._delete_in(block, name, before)
            if locked:
                locks.release(block)
        self._file.memory.flush()
        return deleted

    def _delete_in(self, block: int, name: bytes | None, before: float | None) -> int:
        indices = np.arange(block * self._block_rows, (block + 1) * self._block_rows)
        indices = indices[self._stamps[indices] > 0]
        if name is not None:
            indices = indices[self._table["puid"][indices] == name]
        if before is not None:
            indices = indices[self._table["time"][indices] < before]
        self._stamps[indices] *= -1
        fence()
        self._table[indices] = np.zeros((), self._table.dtype)
        self._keys[indices] = 0
        return len(indices)

    def drop_damaged(self) -> int:
        """Drop rows that are damaged, as after a power cut; return how many.

        Only for a file that no process writes to.
        """
        wrong = (self._table["stamp"] != self._stamps) | (self._table["end"] != self._stamps)
        wrong &= self._stamps > 0
        self._stamps[wrong] = 0
        self._set_clock()
        return int(wrong.sum())

    def _read_whole(self, indices: NDArray[np.intp], stamps: NDArray[np.int64]) -> Recorded:
        """Return the rows that had these stamps, without those missing or overwritten since."""
        fence()
        rows = self._table[indices]
        fence()
        unchanged = (stamps > 0) & (self._stamps[indices] == stamps)
        whole: Recorded = rows[unchanged & (rows["stamp"] == stamps)]
        return whole


def begin_records(folder: Path, features: Sequence[str], rows: int, values: bool = True) -> Records:
    """Open or create the record of a service in `folder`: of `rows` rows, fewer if they are wide.

    A file with another layout (features, number of rows) is quarantined; but a file that contains
    values is deleted if they are not to be kept.

    Raises:
        BadSetting: the disk has no room for the file.
    """
    if not values:
        delete_records(folder, only_values=True)
    layout, size = _plan(features if values else (), rows)
    if values and layout["rows"] < 1:
        logger.warning("rows of %d features are too wide to record their values", len(features))
        layout, size = _plan((), rows)
    if layout["rows"] < rows:
        logger.warning(
            "the last %d rows are recorded, not %d: more of this width take over %d MiB",
            layout["rows"], rows, MAX_BYTES // 2**20,
        )  # fmt: skip
    records = Records(MappedFile.open_or_create(folder / FILE_NAME, layout, size))
    if dropped := records.drop_damaged():
        logger.warning("%s: %d damaged rows are dropped", folder / FILE_NAME, dropped)
    return records


def open_records(folder: Path) -> list[Records]:
    """Open the record in `folder`, and after it the quarantined ones.

    Raises:
        BadSetting: there is none, or the first cannot be read.
    """
    try:
        files = [MappedFile.open(folder / FILE_NAME)]
    except (OSError, ValueError) as error:
        raise BadSetting(f"{folder / FILE_NAME} cannot be read ({error})") from error
    for path in quarantined(folder / FILE_NAME):
        try:
            files.append(MappedFile.open(path))
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read (%s); delete it by hand", path, error)
    return [Records(file) for file in files]


def delete_records(folder: Path, only_values: bool = False) -> None:
    """Delete the record in `folder` and the quarantined ones: all, or those that contain values."""
    reason = "no rows are to be kept (ISOSERVE_RECORDS=0)"
    if only_values:
        reason = "it contains values, which are not to be kept (ISOSERVE_RECORD_VALUES=false)"
    path = folder / FILE_NAME
    for one in [path] * path.exists() + quarantined(path):
        if not only_values or _may_contain_values(one):
            one.unlink()
            logger.warning("%s is deleted: %s", one, reason)


def _may_contain_values(path: Path) -> bool:
    try:
        return MappedFile.open(path).layout.get("features") != []
    except (OSError, ValueError):
        return True


def as_table(records: Records) -> dict[str, Any]:
    """Return the record column by column, the oldest row first.

    `predicted` is 1 for a row that was labelled an outlier. A feature with the name of another
    column is called `feature_` and its name.
    """
    rows = records.read()
    columns: dict[str, Any] = {
        "time": rows["time"],
        "puid": [puid.decode(errors="replace") for puid in rows["puid"].tolist()],
        "row": rows["row"],
        "score": rows["score"],
        "predicted": rows["label"],
        "model_version": rows["version"].astype(str).tolist(),
    }
    for name, values in zip(_name_apart(columns, records.features), rows["values"].T, strict=True):
        columns[name] = values
    return columns


def _name_apart(columns: Collection[str], features: Sequence[str]) -> list[str]:
    """Return a name for each feature that is neither a column's nor another feature's."""
    taken, names = {*columns, *features}, []
    for feature in features:
        name = feature
        if feature in columns:
            while name in taken:
                name = f"feature_{name}"
            taken.add(name)
        names.append(name)
    return names


def _plan(features: Sequence[str], rows: int) -> tuple[dict[str, Any], int]:
    """Return the layout and size of a file for `rows` rows, fewer if they exceed MAX_BYTES."""
    row_bytes = 8 + _row_type(len(features)).itemsize + 4
    header = 2**20  # more than the names of the features ever take
    most = (MAX_BYTES - header) // row_bytes
    block_rows = min(_LARGEST_BLOCK, max(_SMALLEST_BLOCK, min(rows, most) // _BLOCKS))
    blocks = min(-(-rows // block_rows) + _SPARE_BLOCKS, most // block_rows)
    layout = {
        "kind": "records",
        "format": 2,
        "rows": min(rows, (blocks - _SPARE_BLOCKS) * block_rows),
        "features": list(features),
        "block rows": block_rows,
        "blocks": blocks,
    }
    return layout, row_bytes * block_rows * blocks


def _row_type(features: int) -> np.dtype[np.void]:
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
            ("values", np.float64, (features,)),
            ("end", np.int64),  # the stamp once more
        ]
    )
