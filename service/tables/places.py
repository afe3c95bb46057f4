"""Where tables lie: files, globs, folders, and every address that fsspec opens.

A place is a text: the path of a local file, or an address such as `s3://bucket/day.parquet`. fsspec
is imported when an address is used; how to reach a store (keys, endpoints) it reads from its own
configuration and from the environment, as its documentation says.
"""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput, nearest

STDIN = "-"
"""The place that stands for standard input."""

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather")
"""How the names of the tables in a folder end; `.gz` and `.zst` may follow, `.pq` is Parquet."""

_TABLE = re.compile(r"\.(csv|tsv|txt|parquet|pq|arrow|feather)(\.gz|\.zst)?$", re.IGNORECASE)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+._:-]*://")
_WILD = re.compile(r"[*?\[]")


def is_address(place: str) -> bool:
    """Return whether a place is an address of fsspec, and no local path.

    >>> is_address("s3://bucket/day.parquet"), is_address("data/day.parquet")
    (True, False)
    """
    return _ADDRESS.match(place) is not None


def find_places(inputs: Sequence[str]) -> list[str]:
    """Return the place of each table that inputs name: in their order, each once.

    An input is a file, a glob (`**` goes into folders), a folder or an address; a glob's or a
    folder's tables are sorted by name. A folder's are those that end as `TABLES`, in its folders,
    too; names that begin with a dot or an underscore are left out.

    Raises:
        BadInput: there is no such table; the text names the input.
    """
    found = (place for name in inputs for place in _find(name))
    return list(dict.fromkeys(found))


def open_place(place: str) -> Any:
    """Open a place for reading: a binary file that seeks, and that pyarrow reads without copies.

    Raises:
        OSError: it cannot be opened.
        BadInput: an address needs a library that is not installed.
    """
    if is_address(place):
        filesystem, path = find_filesystem(place)
        return filesystem.open(path, "rb")
    import pyarrow as pa  # noqa: PLC0415 -- a server does without it

    try:
        return pa.OSFile(os.fsencode(place), "rb")
    except OSError as error:  # pyarrow's words repeat the path, as bytes
        number = errno.EISDIR if Path(place).is_dir() else error.errno
        if number:
            raise OSError(number, os.strerror(number)) from error
        raise


def find_filesystem(address: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of an address, and the path on it.

    Raises:
        BadInput: there is no such filesystem, or it needs a library that is not installed.
    """
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415
    except ImportError as error:
        raise BadInput(
            f"{address} is an address, which needs fsspec, and that is not installed: "
            "pip install 'isoserve[bulk]'"
        ) from error
    try:
        filesystem, path = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise BadInput(f"{address} cannot be opened: {error}") from error
    return filesystem, path


def is_folder(place: str) -> bool:
    """Return whether a place is a folder that exists."""
    if not is_address(place):
        return Path(place).is_dir()
    filesystem, path = find_filesystem(place)
    return bool(filesystem.isdir(path))


def _find(name: str) -> list[str]:
    if name == STDIN:
        return [name]
    return _find_remote(name) if is_address(name) else _find_local(name)


def _find_local(name: str) -> list[str]:
    path = Path(name)
    if path.is_dir():
        below = (file for file in path.rglob("*") if file.is_file())
        return _tables(name, [(str(file.relative_to(path)), str(file)) for file in below])
    if path.exists():
        return [name]
    if _WILD.search(name):
        files = sorted(file for file in glob.glob(name, recursive=True) if Path(file).is_file())  # noqa: PTH207 -- Path.glob takes no absolute patterns
        if files:
            return files
        raise BadInput(f"no file matches {name}")
    siblings = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    raise BadInput(f"there is no file {name}{nearest(path.name, siblings)}")


def _find_remote(name: str) -> list[str]:
    filesystem, path = find_filesystem(name)
    try:
        if _WILD.search(path) and not name.startswith(("http://", "https://")):
            paths = sorted(one for one in filesystem.glob(path) if not filesystem.isdir(one))
            if not paths:
                raise BadInput(f"no file matches {name}")
            return [filesystem.unstrip_protocol(one) for one in paths]
        if name.startswith(("http://", "https://")) or not filesystem.isdir(path):
            return [name]
        start = len(path.rstrip("/")) + 1
        below = [(one[start:], filesystem.unstrip_protocol(one)) for one in filesystem.find(path)]
        return _tables(name, below)
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(f"{name} cannot be listed: {error}") from error


def _tables(folder: str, files: list[tuple[str, str]]) -> list[str]:
    """Return the places of the tables among a folder's files: (path in the folder, place)."""
    found = [
        place
        for path, place in sorted(files)
        if _TABLE.search(path) and not any(part[:1] in "._" for part in path.split("/"))
    ]
    if not found:
        raise BadInput(f"there is no table in {folder}: no file ends in {', '.join(TABLES)}")
    return found
