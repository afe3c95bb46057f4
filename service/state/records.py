"""A record of the rows scored last, for feedback, drift figures and whoever asks what happened.

All workers write into one mapped file of fixed size: a ring of blocks of rows. A worker fills one
block at a time and holds a lock on it that the kernel releases when the worker dies; so no two
write to the same place, and nobody waits for anybody. For its next block it takes one that was left
unfinished, else the one whose last row is the oldest. Every process may have one block half full,
and may have had one half full when the oldest row was written; with as many blocks to spare, the
last `rows` rows are always there, whichever workers they came through.

Each row has a stamp: when it was written, in nanoseconds of a clock that all workers share and that
no change of the time moves, plus its place among those written with it. So stamps sort rows as they
came, and grow along a block; small requests that are written between the pieces of a large one have
their place there. Which rows are of one request says another number, the same in all of them and
greater for a later one. A stamp of 0 means that there is no row, and a negative one that the row
was wiped: it keeps its place among the last rows, so that none that had left them comes back.

Who takes an old block sets its stamps to 0 first. Then each row is written, and its stamp after it:
one aligned store of 8 bytes. A reader reads the stamps, the rows, and the stamps again: a row whose
stamp stayed the same is whole. Whatever the instruction at which a writer is killed, no
half-written row is ever read.

A row begins and ends with its stamp, too. After a power cut some pages of the disk are newer than
others: a row that does not agree with its stamp, or half of which is another row's, is dropped.

In the file, stamps, rows and keys (a check sum of the puid, to find it quickly) follow each other.
"""

from __future__ import annotations

import logging
import struct
import sys
import threading
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..errors import BadSetting
from ..rows import Floats, Verdict
from .folder import quarantined
from .shared import (
    MAX_PROCESSES,
    OUT_OF_ORDER,
    ByteLocks,
    MappedFile,
    clock_offset_after,
    fence,
    reset_in_children,
)

logger = logging.getLogger(__name__)

FILE_NAME = "records.bin"

MAX_BYTES = 256 * 2**20
"""The most that the file takes."""

Recorded = NDArray[np.void]
"""Rows of the record, oldest first, with the fields of `_row_type`."""

# A longer puid is kept as its beginning and a hash of the whole.
_PUID_BYTES = 48

_SPARE_BLOCKS = 2 * MAX_PROCESSES

# Finding the next block costs about 10 us, so blocks are large; a short record has blocks, too.
_LARGEST_BLOCK, _SMALLEST_BLOCK, _BLOCKS = 256, 16, 512

_TAKEN = np.iinfo(np.int64).max  # later than any stamp

# Time, version, puid, the puid's key, threshold: the same for all rows of a request.
_Request = tuple[float, bytes, bytes, int, float]

# Up to here rows are written one by one: numpy's fixed cost is that of about ten rows.
_FEW = 8


class Records:
    """The last rows scored, shared by the threads and processes of a service."""

    def __init__(self, file: MappedFile) -> None:
        """Read and write a file that `begin_records` has made."""
        self._file = file
        layout = file.layout
        self.rows: int = layout["rows"]
        """How many of the rows scored last are kept."""
        self.features: tuple[str, ...] = tuple(layout["features"])
        """Names of the columns of `values`; none where values are not kept."""
        self._block_rows, self._blocks = layout["block rows"], layout["blocks"]
        places = self._block_rows * self._blocks
        row_type = _row_type(len(self.features))
        rows_start = file.start + 8 * places
        keys_start = rows_start + row_type.itemsize * places
        self._stamps = np.frombuffer(file.memory, np.int64, places, file.start)
        self._table = np.frombuffer(file.memory, row_type, places, rows_start)
        self._keys = np.frombuffer(file.memory, np.uint32, places, keys_start)
        # The same memory as plain numbers and bytes: ten times cheaper to store one item into.
        memory = memoryview(file.memory)
        self._stamp_words = memory[file.start : rows_start].cast("q")
        self._row_bytes = memory[rows_start:keys_start]
        self._key_words = memory[keys_start:].cast("I")
        self._row_size, self._values_size = row_type.itemsize, 8 * len(self.features)
        self._pack_row = struct.Struct(f"=qqddII16s48s{self._values_size}sq").pack_into
        self._ahead = clock_offset_after(int(np.abs(self._stamps).max()))
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Own no block; the next row claims one."""
        self._lock = threading.Lock()
        self._locks: ByteLocks | None = None
        self._block = -1
        self._next = self._end = 0

    def append(self, puid: str, values: Floats, verdict: Verdict) -> None:
        """Record the rows of one request: `values` (n_rows, n_features) and what was said of them.

        Of more rows than are kept the last ones are recorded.
        """
        name, now, scores = _storage_key(puid), time.time(), verdict.scores
        request = now, verdict.version.encode(), name, crc32(name), verdict.threshold
        if len(scores) > _FEW:
            self._write_many(values, verdict, request)
            return
        self._lock.acquire()  # a `with` costs twice as much, and this is paid by every request
        try:
            stamp = time.monotonic_ns() + self._ahead
            if len(scores) == 1:
                self._write_row(stamp, 0, scores.item(), values.tobytes(), request)
            else:
                self._write_few(stamp, values, verdict, request)
        finally:
            self._lock.release()

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
        return self._whole(latest, stamps[latest])

    def scored_by(self, version: str, last: int) -> tuple[Floats, Floats]:
        """Return values and scores of those of the last rows that this model version has scored."""
        rows = self.read(last)
        rows = rows[rows["version"] == version.encode()]
        return rows["values"], rows["score"]

    def find(self, puid: str) -> Recorded:
        """Return the rows of the latest request with this puid, in their order; none if unknown.

        Only rows still kept are found: look at the field `row` for which ones they are.
        """
        name = _storage_key(puid)
        places = np.flatnonzero(self._keys == crc32(name))
        stamps = self._stamps[places]
        if len(places) and self._table["puid"][places[stamps.argmax()]] != name:
            stamps[self._table["puid"][places] != name] = 0  # two puids have one check sum
        if stamps.max(initial=0) <= 0:
            return self._table[:0].copy()
        # The latest request began no earlier than that of the newest row, so where one puid is
        # used for everything only few rows are looked at.
        newest = stamps.argmax()
        first = max(1, self._table["request"][places[newest]])
        recent = np.flatnonzero(stamps >= first)
        rows = self._whole(places[recent], stamps[recent])
        rows = rows[rows["puid"] == name]
        rows = rows[rows["request"] == rows["request"].max(initial=0)]
        found: Recorded = rows[np.argsort(rows["row"])]
        return found

    def delete(self, puid: str | None = None, before: float | None = None) -> int:
        """Wipe the rows of a puid, or those older than `before` (seconds since 1970, UTC).

        Return how many. A service may go on recording meanwhile.
        """
        name = None if puid is None else _storage_key(puid)
        locks = self._file.locks()
        deleted = 0
        for block in range(self._blocks):
            # A block in another's hands is wiped all the same: its holder writes behind the rows
            # that are there, never over them.
            locked = locks.take(block)
            places = np.arange(block * self._block_rows, (block + 1) * self._block_rows)
            places = places[self._stamps[places] > 0]
            rows = self._table[places]
            if name is not None:
                places, rows = places[rows["puid"] == name], rows[rows["puid"] == name]
            if before is not None:
                places = places[rows["time"] < before]
            self._stamps[places] *= -1
            fence()
            self._table[places] = np.zeros((), self._table.dtype)
            self._keys[places] = 0
            deleted += len(places)
            if locked:
                locks.give_back(block)
        self._file.memory.flush()
        return deleted

    def drop_damaged(self) -> int:
        """Forget rows that are not what a writer left there, as after a power cut; return how many.

        Only for a file that nobody writes to.
        """
        wrong = (self._table["stamp"] != self._stamps) | (self._table["end"] != self._stamps)
        wrong &= self._stamps > 0
        self._stamps[wrong] = 0
        self._ahead = clock_offset_after(int(np.abs(self._stamps).max()))
        return int(wrong.sum())

    def _whole(self, places: NDArray[np.intp], stamps: NDArray[np.int64]) -> Recorded:
        """Return the rows that had these stamps, less those missing or written over since."""
        fence()
        rows = self._table[places]
        fence()
        stayed = (stamps > 0) & (self._stamps[places] == stamps)
        whole: Recorded = rows[stayed & (rows["stamp"] == stamps)]
        return whole

    def _write_row(
        self, stamp: int, row: int, score: float, cells: bytes, request: _Request
    ) -> None:
        place = self._next
        if place == self._end:
            place = self._open_block()
        now, version, puid, key, threshold = request
        self._pack_row(
            self._row_bytes, place * self._row_size,
            stamp, stamp - row, now, score, row, score < threshold, version, puid, cells, stamp,
        )  # fmt: skip
        self._key_words[place] = key
        if OUT_OF_ORDER:
            fence()
        self._stamp_words[place] = stamp
        self._next = place + 1

    def _write_few(self, stamp: int, values: Floats, verdict: Verdict, request: _Request) -> None:
        cells, width = values.tobytes(), self._values_size
        for i, score in enumerate(verdict.scores.tolist()):
            self._write_row(stamp + i, i, score, cells[i * width : (i + 1) * width], request)

    def _write_many(self, values: Floats, verdict: Verdict, request: _Request) -> None:
        """Write rows a block at a time: between blocks other threads have their turn."""
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
        """Write the first of these rows, as many as fit into this block; return how many."""
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
        """Give back the block just filled, claim another, and return its first free place."""
        if self._locks is None:
            self._locks = self._file.locks()
        elif self._block >= 0:
            self._locks.give_back(self._block)
        self._block, first = self._claim_block(self._locks)
        self._next = self._block * self._block_rows + first
        self._end = (self._block + 1) * self._block_rows
        return self._next

    def _claim_block(self, locks: ByteLocks) -> tuple[int, int]:
        """Lock an unfinished block or the oldest; return its number and its first free row."""
        blocks = self._stamps.reshape(self._blocks, self._block_rows)
        last = np.abs(blocks[:, -1])  # 0 where a block is not full
        while True:  # there are more blocks than processes, so one is free
            block = int(last.argmin())
            found, last[block] = last[block], _TAKEN
            if found == _TAKEN:
                last = np.abs(blocks[:, -1])
                continue
            if not locks.take(block):
                continue
            if abs(blocks[block, -1]) != found:  # another took it, filled it and gave it back
                locks.give_back(block)
                continue
            if found:
                blocks[block] = 0
                fence()
            return block, int(np.flatnonzero(blocks[block]).max(initial=-1)) + 1


def begin_records(folder: Path, features: Sequence[str], rows: int, values: bool = True) -> Records:
    """Open the record of a service in `folder`, or begin it: of `rows` rows, fewer if wide.

    A file with another layout (features, number of rows) is set aside under another name; but one
    that holds values is deleted when they are not to be kept.

    Raises:
        BadSetting: there is no room for the file.
    """
    if not values:
        delete_values(folder)
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


def delete_records(folder: Path) -> None:
    """Delete the record in `folder` and those quarantined, for a service that keeps none."""
    for path in _files(folder):
        path.unlink()
        logger.warning("%s is deleted: no rows are to be kept (ISOSERVE_RECORDS=0)", path)


def delete_values(folder: Path) -> None:
    """Delete the record in `folder`, and each quarantined, unless it is known to hold no values."""
    for path in _files(folder):
        if _may_hold_values(path):
            path.unlink()
            logger.warning(
                "%s is deleted: it holds values, which are not to be kept "
                "(ISOSERVE_RECORD_VALUES=false)", path,
            )  # fmt: skip


def _files(folder: Path) -> list[Path]:
    path = folder / FILE_NAME
    return [path] * path.exists() + quarantined(path)


def _may_hold_values(path: Path) -> bool:
    try:
        return MappedFile.open(path).layout.get("features") != []
    except (OSError, ValueError):
        return True


def open_records(folder: Path) -> list[Records]:
    """Open the record in `folder`, and after it those that were set aside.

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


def as_table(records: Records) -> dict[str, Any]:
    """Return the record column by column, the oldest row first."""
    rows = records.read()
    columns: dict[str, Any] = {
        "time": rows["time"],
        "puid": [puid.decode(errors="replace") for puid in rows["puid"].tolist()],
        "row": rows["row"],
        "score": rows["score"],
        "label": rows["label"],
        "model_version": rows["version"].astype(str).tolist(),
    }
    for j, name in enumerate(records.features):
        columns[f"feature_{name}" if name in columns else name] = rows["values"][:, j]
    return columns


def _row_type(features: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("stamp", np.int64),  # see the module's text
            ("request", np.int64),  # the same of all rows of a request, later for a later one
            ("time", np.float64),  # seconds since 1970, UTC; not to be relied on for the order
            ("score", np.float64),
            ("row", np.uint32),  # number in its request
            ("label", np.uint32),  # 1 for an outlier
            ("version", "S16"),  # of the model
            ("puid", f"S{_PUID_BYTES}"),
            ("values", np.float64, (features,)),
            ("end", np.int64),  # the stamp once more
        ]
    )


def _plan(features: Sequence[str], rows: int) -> tuple[dict[str, Any], int]:
    """Return the layout of a file for `rows` rows, or as many as MAX_BYTES allow, and its size."""
    row_bytes = 8 + _row_type(len(features)).itemsize + 4
    header = 2**20  # more than the names of features ever take
    most = (MAX_BYTES - header) // row_bytes
    block_rows = min(_LARGEST_BLOCK, max(_SMALLEST_BLOCK, min(rows, most) // _BLOCKS))
    blocks = min(-(-rows // block_rows) + _SPARE_BLOCKS, most // block_rows)
    layout = {
        "kind": "records",
        "format": 2,
        "byte order": sys.byteorder,
        "rows": min(rows, (blocks - _SPARE_BLOCKS) * block_rows),
        "features": list(features),
        "block rows": block_rows,
        "blocks": blocks,
    }
    return layout, row_bytes * block_rows * blocks


def _storage_key(puid: str) -> bytes:
    """Return a puid as it is recorded: itself, or the beginning and a hash of a long one."""
    name = puid.encode("utf-8", "surrogatepass")
    if len(name) <= _PUID_BYTES and 0 not in name:
        return name
    return (
        name[:15].replace(b"\0", b"?") + b"~" + blake2b(name, digest_size=16).hexdigest().encode()
    )
