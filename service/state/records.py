"""The record of the rows scored last: for feedback, drift figures and exports.

`ring` describes the file and how rows are written; this module reads, finds and deletes them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..errors import BadSetting
from ..rows import Floats
from .double_buffer import fence
from .folder import quarantined
from .puids import storage_bytes
from .ring import MAX_BYTES, PUID_BYTES, Recorded, Ring, plan_ring
from .shared import MappedFile

logger = logging.getLogger(__name__)

FILE_NAME = "records.bin"


class Records(Ring):
    """The last rows scored, shared by the threads and processes of a service."""

    def read(self, last: int | None = None) -> Recorded:
        """Return the last rows, all that are kept or at most `last`, the oldest first."""
        stamps = self.stamps.copy()
        order = np.abs(stamps)
        kept = self.rows if last is None else min(last, self.rows)
        first = len(stamps) - min(kept, int(np.count_nonzero(stamps)))
        if first == len(stamps):
            return self.table[:0].copy()
        latest = np.argpartition(order, first)[first:]
        latest = latest[np.argsort(order[latest])]
        return self._read_whole(latest, stamps[latest])

    def scored_by(self, version: str, last: int) -> tuple[Floats, Floats]:
        """Return values and scores of the last rows, of those that a model version scored."""
        rows = self.read(last)
        rows = rows[rows["version"] == version.encode()]
        return rows["values"], rows["score"]

    def find(self, puid: str) -> Recorded:
        """Return the rows of the latest request with this puid in their order; none if unknown.

        Only rows that are still kept are found: the field `row` is their number in the request.
        """
        name = storage_bytes(puid, PUID_BYTES)
        indices = np.flatnonzero(self.keys == crc32(name))
        stamps = self.stamps[indices]
        if len(indices) and self.table["puid"][indices[stamps.argmax()]] != name:
            stamps[self.table["puid"][indices] != name] = 0  # two puids have one check sum
        if stamps.max(initial=0) <= 0:
            return self.table[:0].copy()
        # The latest request began no earlier than the newest row's request. So if one puid is used
        # for everything, only few rows are read.
        newest = stamps.argmax()
        first = max(1, self.table["request"][indices[newest]])
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
        locks = self.file.locks()
        deleted = 0
        for block in range(self.blocks):
            # A block that another process holds is overwritten as well: that process writes after
            # the rows that are there, never over them.
            locked = locks.acquire(block)
            deleted += self._delete_in(block, name, before)
            if locked:
                locks.release(block)
        self.file.memory.flush()
        return deleted

    def _delete_in(self, block: int, name: bytes | None, before: float | None) -> int:
        indices = np.arange(block * self.block_rows, (block + 1) * self.block_rows)
        indices = indices[self.stamps[indices] > 0]
        if name is not None:
            indices = indices[self.table["puid"][indices] == name]
        if before is not None:
            indices = indices[self.table["time"][indices] < before]
        self.stamps[indices] *= -1
        fence()
        self.table[indices] = np.zeros((), self.table.dtype)
        self.keys[indices] = 0
        return len(indices)

    def drop_damaged(self) -> int:
        """Drop rows that no writer left like this, as after a power cut; return how many.

        Only for a file that no process writes to.
        """
        wrong = (self.table["stamp"] != self.stamps) | (self.table["end"] != self.stamps)
        wrong &= self.stamps > 0
        self.stamps[wrong] = 0
        self.set_clock()
        return int(wrong.sum())

    def _read_whole(self, indices: NDArray[np.intp], stamps: NDArray[np.int64]) -> Recorded:
        """Return the rows that had these stamps, without those missing or overwritten since."""
        fence()
        rows = self.table[indices]
        fence()
        unchanged = (stamps > 0) & (self.stamps[indices] == stamps)
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
    layout, size = plan_ring(features if values else (), rows)
    if values and layout["rows"] < 1:
        logger.warning("rows of %d features are too wide to record their values", len(features))
        layout, size = plan_ring((), rows)
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
