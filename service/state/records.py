"""The record of the rows scored last: for feedback, drift figures and exports.

Its file is a ring of blocks of rows that all workers write into. docs/internals/state.md explains
how each row is written whole, in which order rows are read, and why the last ones are never lost.
After the header the file contains all rows, then all keys (a check sum of the puid, to find it
quickly). The fields of a row are in `record_format`.
"""

from __future__ import annotations

import logging
import os
import struct
import sys
import threading
import time
from binascii import a2b_hex
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..errors import BadSetting
from ..rows import Floats, Verdict
from .double_buffer import OUT_OF_ORDER, fence
from .files import Damaged, delete, quarantined, replace_file
from .folder import InUse, StateFolder
from .puids import PUID_BYTES, storage_bytes
from .record_format import (
    FORMAT,
    FORMER,
    Outline,
    Recorded,
    are_sound,
    check_sums,
    find_keys,
    hash_names,
    row_type,
)
from .record_format import LOWER as _LOWER
from .record_format import UPPER as _UPPER
from .shared import (
    MAX_PROCESSES,
    ByteLocks,
    MappedFile,
    clock_offset_after,
    pack_mapped,
    read_mapped,
    reset_in_children,
    write_back,
)

logger = logging.getLogger(__name__)

FILE_NAME = "records.bin"

MAX_BYTES = 256 * 2**20
"""The largest size of the file."""

_SPARE_BLOCKS = 2 * MAX_PROCESSES

# Claiming a block takes about 10 us, so blocks are large; a short ring consists of blocks, too.
_LARGEST_BLOCK, _SMALLEST_BLOCK, _BLOCKS = 256, 16, 512

_TAKEN = np.iinfo(np.int64).max  # later than any stamp

# Time, version, puid, the puid's key, trace, threshold: the same for all rows of a request.
_Request = tuple[float, bytes, bytes, int, bytes, float]

# Up to this number, rows are written one by one: numpy's fixed cost equals about ten rows.
_FEW = 8

# How many bytes of rows are checked at a time at the start.
_PIECE_BYTES = 2**22


class Records:
    """The last rows scored, shared by the threads and processes of a service."""

    def __init__(self, file: MappedFile) -> None:
        """Use a file whose layout `_plan` has made."""
        self._file = file
        layout = file.layout
        self.rows: int = layout["rows"]
        """How many of the rows written last are kept."""
        self.features: tuple[str, ...] = tuple(layout["features"])
        """Names of the columns whose cells are kept; none if no cells are."""
        self.texts: tuple[str, ...] = tuple(layout.get("texts", ()))
        """Those that are text, in the same order; the others are numbers."""
        self._block_rows: int = layout["block rows"]
        self._blocks: int = layout["blocks"]
        size = self._block_rows * self._blocks
        kind = row_type(len(self.features) - len(self.texts), len(self.texts))
        self._row_size = kind.itemsize
        self._cells_size = kind["values"].itemsize + kind["texts"].itemsize
        self._row_bytes = file.body[: size * self._row_size]
        self._table: Recorded = np.frombuffer(self._row_bytes, kind)
        self._stamps: NDArray[np.int64] = self._table["stamp"]
        self._keys = np.frombuffer(file.body, np.uint32, size, size * self._row_size)
        # The same memory as plain numbers: storing one item is ten times faster.
        self._words, self._key_words = self._row_bytes.cast("q"), self._keys.data
        self._row_words = self._row_size // 8
        self._pack_row = struct.Struct(f"=qddII16s48s16s{self._cells_size}s").pack
        self._reported = False
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

    def append(self, puid: str, cells: NDArray[Any], verdict: Verdict, trace_id: str = "") -> None:
        """Write the rows of one request: `cells`, as `Rows` has them, and their verdict.

        `trace_id` is 32 hexadecimal digits, or empty. If there are more rows than are kept, write
        the last ones.
        """
        name, scores = storage_bytes(puid, PUID_BYTES), verdict.scores
        trace = a2b_hex(trace_id)  # faster than bytes.fromhex
        request = (
            time.time(), verdict.version.encode(), name, crc32(name), trace, verdict.threshold
        )  # fmt: skip
        if len(scores) > _FEW:
            self._write_many(cells, verdict, request)
            return
        self._lock.acquire()  # `with` costs twice as much, and every request pays it
        try:
            self._write_few(cells.tobytes(), scores.tolist(), request)
        finally:
            self._lock.release()

    def _write_few(self, cells: bytes, scores: list[float], request: _Request) -> None:
        first, width = time.monotonic_ns() + self._ahead, self._cells_size
        now, version, puid, key, trace, threshold = request
        for row, score in enumerate(scores):
            index, stamp = self._next, first + row
            if index == self._end:
                index = self._open_block()
            start, end = index * self._row_words, (index + 1) * self._row_words - 1
            body = self._pack_row(
                first, now, score, row, score < threshold, version, puid, trace,
                cells[row * width : (row + 1) * width],
            )  # fmt: skip
            self._row_bytes[8 * start + 8 : 8 * end] = body
            self._words[end] = crc32(body, stamp & _LOWER) | stamp & _UPPER
            if OUT_OF_ORDER:
                fence()
            self._words[start] = stamp
            self._key_words[index] = key
            self._next = index + 1

    def _write_many(self, cells: NDArray[Any], verdict: Verdict, request: _Request) -> None:
        """Write rows a block at a time, so that other threads can write between two blocks."""
        columns: dict[str, NDArray[Any]] = {
            "row": np.arange(len(verdict)), "score": verdict.scores, "label": verdict.labels
        }  # fmt: skip
        if self.texts:
            columns |= {"values": cells["values"], "texts": cells["texts"]}
        elif self.features:
            columns["values"] = cells
        start, end = max(0, len(verdict) - self.rows), len(verdict)
        rows = np.empty(min(end - start, self._block_rows), self._table.dtype)
        rows["time"], rows["version"], rows["puid"], key, rows["trace"], _ = request
        rows["request"] = time.monotonic_ns() + self._ahead
        while start < end:
            with self._lock:
                if self._next == self._end:
                    self._open_block()
                piece = rows[: min(end - start, self._end - self._next)]
                for name, column in columns.items():
                    piece[name] = column[start : start + len(piece)]
                self._write_piece(piece, key)
            start += len(piece)

    def _write_piece(self, rows: Recorded, key: int) -> None:
        """Write rows that fit into the current block; their stamps and check sums are set here."""
        first, last, size = self._next, self._next + len(rows), self._row_size
        stamp = time.monotonic_ns() + self._ahead
        stamps = np.arange(stamp, stamp + len(rows))
        rows["stamp"] = stamps
        rows["check"] = check_sums(rows)
        rows["stamp"] = 0
        self._row_bytes[first * size : last * size] = rows.view(np.uint8).data
        fence()
        self._stamps[first:last] = stamps
        fence()
        self._keys[first:last] = key
        self._next = last

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
                self._keys[block * self._block_rows : (block + 1) * self._block_rows] = 0
                fence()
                blocks[block] = 0
                fence()
                return block, 0
            return block, int(np.flatnonzero(blocks[block]).max(initial=-1)) + 1

    def read(self, last: int | None = None) -> Recorded:
        """Return the last rows, all that are kept or at most `last`, the oldest first."""
        stamps = self._stamps.copy()
        latest = self._latest(stamps, last)
        return self._read_whole(latest, stamps[latest])

    def _latest(self, stamps: NDArray[np.int64], last: int | None = None) -> NDArray[np.intp]:
        """Return where the last rows are, the oldest first."""
        latest = _find_latest(stamps, self.rows if last is None else min(last, self.rows))
        found: NDArray[np.intp] = latest[np.argsort(np.abs(stamps[latest]))]
        return found

    def outline(self, last: int | None = None) -> Outline:
        """Return the last rows without their cells, all or at most `last`, the oldest first.

        This is much faster than `read`: check sums are compared by `read_rows` only.
        """
        stamps = self._stamps.copy()
        latest = self._latest(stamps, last)
        fence()
        table = self._table
        names = ("time", "score", "row", "label", "version")
        outline = Outline(
            latest,
            stamps[latest],
            table["request"][latest],
            hash_names(table["puid"][latest]),
            *(table[name][latest] for name in names),
        )
        fence()
        same = (outline.stamp > 0) & (self._stamps[latest] == outline.stamp)
        return outline if same.all() else outline.at(same)

    def read_rows(self, outline: Outline) -> Recorded:
        """Return these rows of an outline, in its order; those overwritten since are left out."""
        return self._read_whole(outline.index, outline.stamp)

    def scores(self, version: str) -> tuple[Floats, Floats]:
        """Return the times and scores of all rows that a model version scored, in no order.

        The cells are read a piece at a time, and not kept.
        """
        stamps = self._stamps.copy()
        latest = np.sort(_find_latest(stamps, self.rows))
        step = max(1, _PIECE_BYTES // self._row_size)
        parts = [np.empty((2, 0))]
        for start in range(0, len(latest), step):
            piece = latest[start : start + step]
            rows = self._read_whole(piece, stamps[piece])
            rows = rows[rows["version"] == version.encode()]
            parts.append(np.stack([rows["time"], rows["score"]]))
        times, scores = np.concatenate(parts, axis=1)
        return times, scores

    def scored_by(self, version: str, last: int) -> tuple[dict[str, NDArray[Any]], Floats]:
        """Return the cells, by column, and the scores of the rows that a model version scored.

        Only the `last` rows are searched.
        """
        rows = self.read(last)
        rows = rows[rows["version"] == version.encode()]
        return self.cells(rows), rows["score"]

    def cells(self, rows: Recorded) -> dict[str, NDArray[Any]]:
        """Return the cells of rows by column: floats, or texts as bytes."""
        values, texts = iter(rows["values"].T), iter(rows["texts"].T)
        return {name: next(texts if name in self.texts else values) for name in self.features}

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

    def write_back(self, path: Path) -> None:
        """Overwrite the file that this is a copy of, as far as it reaches."""
        length = len(read_mapped(path)[1])
        write_back(path, self._file.layout, self._file.body[:length])

    def _delete_in(self, block: int, name: bytes | None, before: float | None) -> int:
        indices = np.arange(block * self._block_rows, (block + 1) * self._block_rows)
        indices = indices[self._stamps[indices] > 0]
        if name is not None:
            indices = indices[self._table["puid"][indices] == name]
        if before is not None:
            indices = indices[self._table["time"][indices] < before]
        self._wipe(indices)
        return len(indices)

    def _wipe(self, indices: NDArray[np.intp]) -> None:
        """Overwrite rows; they still count as written, so that no older row comes back."""
        wiped = np.zeros(len(indices), self._table.dtype)
        wiped["stamp"] = -np.abs(self._stamps[indices])
        wiped["check"] = check_sums(wiped)
        self._keys[indices] = 0
        self._stamps[indices] = wiped["stamp"]
        fence()
        self._table[indices] = wiped

    def pack(self) -> tuple[int, Iterator[bytes]]:
        """Return the size of a copy of the file, and its parts; others may write meanwhile.

        A row that is being overwritten is left out of the copy; a damaged one is copied as it is.
        """
        head = b"".join(pack_mapped(self._file.layout))
        return len(head) + len(self._file.body), chain([head], self._pack_rows())

    def _pack_rows(self) -> Iterator[bytes]:
        keys = np.zeros(len(self._stamps), np.uint32)
        step = max(1, _PIECE_BYTES // self._row_size)
        for start in range(0, len(keys), step):
            rows = self._table[start : start + step].copy()
            stamps = rows["stamp"]
            used = np.flatnonzero(stamps)
            torn = used[~are_sound(rows[used])]
            stamps[torn[rows[torn] != self._table[start + torn]]] = 0
            keys[start : start + step] = find_keys(rows)
            yield rows.tobytes()
        yield keys.tobytes()

    def drop_damaged(self) -> int:
        """Drop rows that are damaged, as after a power cut; return how many.

        Only for a file that no process writes to.
        """
        dropped, step = 0, max(1, _PIECE_BYTES // self._row_size)
        for start in range(0, len(self._stamps), step):
            rows, keys = self._table[start : start + step], self._keys[start : start + step]
            stamps = rows["stamp"]
            # A row without a stamp has no key either, so a key tells that its row was lost.
            wrong = (keys != 0) & (stamps == 0)
            used = np.flatnonzero(stamps)
            wrong[used] = ~are_sound(rows[used])
            stamps[wrong] = 0
            keys[:] = find_keys(rows)
            dropped += int(wrong.sum())
        self._set_clock()
        return dropped

    def _read_whole(self, indices: NDArray[np.intp], stamps: NDArray[np.int64]) -> Recorded:
        """Return the rows that had these stamps, without those missing or overwritten since."""
        fence()
        rows = self._table[indices]
        fence()
        unchanged = (stamps > 0) & (self._stamps[indices] == stamps)
        rows = rows[unchanged & (rows["stamp"] == stamps)]
        sound = are_sound(rows)
        if not sound.all() and not self._reported:
            self._reported = True
            logger.warning("%d recorded rows are damaged on the disk and left out", (~sound).sum())
        whole: Recorded = rows[sound]
        return whole


def begin_records(
    folder: Path,
    features: Sequence[str],
    rows: int,
    values: bool = True,
    texts: Collection[str] = (),
) -> Records:
    """Open or create the record of a service in `folder`: of `rows` rows, fewer if they are wide.

    `features` are the names of the columns, `texts` of those that are text. A file with another
    layout (columns, number of rows) is quarantined; but a file that contains values is deleted if
    they are not to be kept.

    Raises:
        BadSetting: the disk has no room for the file.
    """
    if not values:
        delete_records(folder, only_values=True)
    layout, size = _plan(features if values else (), texts, rows)
    if values and layout["rows"] < 1:
        logger.warning("rows of %d features are too wide to record their values", len(features))
        layout, size = _plan((), (), rows)
    if layout["rows"] < rows:
        logger.warning(
            "the last %d rows are recorded, not %d: more of this width take over %d MiB",
            layout["rows"], rows, MAX_BYTES // 2**20,
        )  # fmt: skip
    path = folder / FILE_NAME
    _migrate(path)
    file = MappedFile.open_or_create(
        path, layout, size, rescue=partial(_rescue, layout=layout, size=size)
    )
    records = Records(file)
    if dropped := records.drop_damaged():
        logger.warning("%s: %d damaged rows are dropped", path, dropped)
    return records


def open_records(folder: Path) -> Records:
    """Open the record in `folder`, to read it; a service may be running.

    A damaged one is read as far as it is sound, and not changed.

    Raises:
        BadSetting: there is none, or nothing of it can be read.
    """
    try:
        return _open(folder / FILE_NAME)[0]
    except (OSError, Damaged) as error:
        raise _unreadable(folder / FILE_NAME, error) from error


def delete_rows(folder: Path, puid: str | None = None, before: float | None = None) -> int:
    """Wipe rows as `Records.delete` does, also in quarantined files; return how many.

    A service may be running. A quarantined file that cannot be read is named in the log.

    Raises:
        BadSetting: there is no record, or nothing of it can be read.
    """
    deleted, path = 0, folder / FILE_NAME
    for one in (*quarantined(path), path):
        try:
            records, is_copy = _open(one)
            deleted += records.delete(puid, before)
            if is_copy:
                records.write_back(one)
        except (OSError, Damaged) as error:
            if one == path:
                raise _unreadable(path, error) from error
            logger.warning("%s cannot be read (%s); delete it by hand", one, _reason(error))
    return deleted


def delete_records(folder: Path, only_values: bool = False) -> None:
    """Delete the record in `folder` and the quarantined ones: all, or those that contain values."""
    reason = "no rows are to be kept (ISOSERVE_RECORDS=0)"
    if only_values:
        reason = "it contains values, which are not to be kept (ISOSERVE_RECORD_VALUES=false)"
    path = folder / FILE_NAME
    for one in [path] * os.path.lexists(path) + quarantined(path):
        if not only_values or _may_contain_values(one):
            delete(one)
            logger.warning("%s is deleted: %s", one, reason)


def _may_contain_values(path: Path) -> bool:
    try:
        return read_mapped(path, 0)[0].get("features") != []
    except (OSError, Damaged):
        return True


def _open(path: Path) -> tuple[Records, bool]:
    """Open a record; True: it is damaged, and this is a copy of it.

    What is missing at the end of a damaged one reads as zeros, which are no rows.

    Raises:
        OSError: it cannot be opened.
        Damaged: nothing of it can be read; the text is the reason.
    """
    if read_mapped(path, 0)[0].get("format") in FORMER:
        _migrate_unused(path)
    layout = read_mapped(path, 0)[0]
    if (layout.get("kind"), layout.get("format")) != ("records", FORMAT):
        raise Damaged("it is no record of this version")
    size = _size(layout)
    with suppress(Damaged):
        return Records(MappedFile.open(path, layout, size)), False
    body = read_mapped(path)[1][:size]
    logger.warning("%s is damaged: its rows are read as far as they are sound", path)
    return Records(MappedFile.anonymous(layout, size, body)), True


def _rescue(path: Path, layout: dict[str, Any], size: int) -> bytes:
    """Return what is there of a damaged file with this layout."""
    with suppress(OSError, Damaged):
        found, body = read_mapped(path)
        if found == layout | {"byte order": sys.byteorder}:
            return body[:size]
    return b""


def _unreadable(path: Path, error: Exception) -> BadSetting:
    return BadSetting(f"{path} cannot be read ({_reason(error)})")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def as_table(records: Records) -> dict[str, Any]:
    """Return the record column by column, the oldest row first.

    `predicted` is 1 for a row that was labelled an outlier. There is a column `trace_id` if any
    request had a trace; it is None for one of no trace. A feature with the name of another column
    is called `feature_` and its name, `trace_id` too.
    """
    rows = records.read()
    traces = rows["trace"].tolist()
    columns: dict[str, Any] = {
        "time": rows["time"],
        "puid": [puid.decode(errors="replace") for puid in rows["puid"].tolist()],
        "row": rows["row"],
        "score": rows["score"],
        "predicted": rows["label"],
        "model_version": rows["version"].astype(str).tolist(),
    }
    names = _name_apart({*columns, "trace_id"}, records.features)
    if any(traces):
        columns["trace_id"] = [t.ljust(16, b"\0").hex() if t else None for t in traces]
    cells = records.cells(rows)
    for name, feature in zip(names, records.features, strict=True):
        column: Any = cells[feature]
        if feature in records.texts:
            column = [cell.decode(errors="replace") or None for cell in column]
        columns[name] = column
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


def _migrate_unused(path: Path) -> None:
    """Migrate a file that a command was given; BadSetting while an older service uses it."""
    try:
        held = StateFolder(path.parent, wait_seconds=0)
    except InUse as error:
        raise BadSetting(
            f"{path} has an older format and is used by a running service of an older version "
            f"(process {error.owner}); stop that first"
        ) from error
    _migrate(path)
    del held


def _migrate(path: Path) -> None:
    """Rewrite a file of a former format. Each row keeps its place.

    The file is replaced as a whole or not at all.
    """
    try:
        former = read_mapped(path, 0)[0].get("format")
        if former not in FORMER:
            return
        layout, body = read_mapped(path)
    except (OSError, Damaged):
        return  # there is none, or `open_or_create` will say why it is damaged
    size, texts = layout["block rows"] * layout["blocks"], len(layout.get("texts", ()))
    new = row_type(len(layout["features"]) - texts, texts)
    found, whole, stamps = FORMER[former](body, size, new)
    rows = np.zeros(size, new)
    for name in set(found.dtype.names or ()) & set(new.names or ()):
        rows[name][whole] = found[name][whole]
    rows["stamp"] = np.where(whole | (stamps < 0), stamps, 0)
    used = np.flatnonzero(rows["stamp"])
    rows["check"][used] = check_sums(rows[used])
    keys = find_keys(rows)
    layout["format"] = FORMAT
    try:
        replace_file(path, pack_mapped(layout, rows.view(np.uint8).data, keys.view(np.uint8).data))
    except OSError as error:
        raise BadSetting(f"{path} cannot be migrated ({error.strerror})") from error
    logger.warning(
        "%s is migrated from format %d to %d; %d damaged rows are dropped",
        path, former, FORMAT, int(((stamps > 0) & ~whole).sum()),
    )  # fmt: skip


def _plan(features: Sequence[str], texts: Collection[str], rows: int) -> tuple[dict[str, Any], int]:
    """Return the layout and size of a file for `rows` rows, fewer if they exceed MAX_BYTES."""
    texts = [name for name in features if name in texts]
    header = 2**20  # more than the names of the features ever take
    most = (MAX_BYTES - header) // _bytes_a_row(features, texts)
    block_rows = min(_LARGEST_BLOCK, max(_SMALLEST_BLOCK, min(rows, most) // _BLOCKS))
    blocks = min(-(-rows // block_rows) + _SPARE_BLOCKS, most // block_rows)
    layout: dict[str, Any] = {
        "kind": "records",
        "format": FORMAT,
        "rows": min(rows, (blocks - _SPARE_BLOCKS) * block_rows),
        "features": list(features),
        "block rows": block_rows,
        "blocks": blocks,
    }
    if texts:
        layout["texts"] = texts
    return layout, _size(layout)


def _size(layout: dict[str, Any]) -> int:
    rows: int = layout["block rows"] * layout["blocks"]
    return rows * _bytes_a_row(layout["features"], layout.get("texts", ()))


def _bytes_a_row(features: Sequence[str], texts: Collection[str]) -> int:
    return row_type(len(features) - len(texts), len(texts)).itemsize + 4  # with its key


def _find_latest(stamps: NDArray[np.int64], most: int) -> NDArray[np.intp]:
    """Return the indices of the rows written last, in no order; no more than `most`."""
    first = len(stamps) - min(most, int(np.count_nonzero(stamps)))
    if first == len(stamps):
        return np.empty(0, np.intp)
    return np.argpartition(np.abs(stamps), first)[first:]
