"""Back up a state folder while its service runs, and restore a backup into an empty folder.

A backup is a tar file, compressed with gzip. Its last member, `manifest.json`, has the size and the
SHA-256 of all others and is sealed, so a backup that was cut or changed anywhere is refused.

Files are read in an order in which no later one lacks what an earlier one refers to: feedback
before the records that it is about, and records before the counts that include them.
"""

import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from .. import __version__
from ..errors import BadInput, BadSetting
from . import audit, counts, generations, low_pvalues, odd_cells, records, shared_counters
from .feedback import mark, store
from .feedback.sqlite import copy_database
from .files import Damaged, read_file, replace_file, seal, sync_folder, unseal
from .folder import LOCK_NAME, RESTORING, InUse, StateFolder
from .shared import MappedFile, pack_mapped, read_mapped

_MANIFEST, _FORMAT = "manifest.json", 1
_MOST_MANIFEST = 2**16  # bytes

_PIECE = 2**20  # bytes
_LEVEL = 1  # of compression: most bytes are zeros, and the service needs the processor

_TRIES = 100  # readings of a file that others write; each takes a millisecond
_SETTLE, _CHANGE_SECONDS = 2.0, 0.1  # seconds to wait for changes to end; that one may take

_NO_STATE = {LOCK_NAME, "lost+found"}

Part = tuple[str, int, Iterable[bytes]]
"""Name, size and content of a file in a backup."""

Prove = Callable[[MappedFile], None]

NAMES = (
    generations.FILE_NAME,
    audit.CHOICE_NAME,
    audit.AUDIT_NAME,
    mark.FILE_NAME,
    store.FILE_NAME,
    records.FILE_NAME,
    odd_cells.FILE_NAME,
    low_pvalues.FILE_NAME,
    counts.FILE_NAME,
)
"""The files of a backup. The files of model generations belong to a running service only."""


def write_backup(folder: Path, file: Path) -> dict[str, Any]:
    """Write a backup of a state folder as a whole or not at all; return its manifest.

    Raises:
        BadSetting: there is no state, or a file of it is damaged.
        OSError: the file cannot be written.
    """
    manifest: dict[str, Any] = {}
    replace_file(file, pack_state(folder, file.parent, manifest))
    return manifest


def pack_state(folder: Path, scratch: Path, manifest: dict[str, Any]) -> Iterator[bytes]:
    """Yield the bytes of a backup, and fill in its manifest; `scratch` is a folder to write in."""
    packer = zlib.compressobj(_LEVEL, wbits=zlib.MAX_WBITS | 16)
    files: dict[str, list[Any]] = {}
    for name, size, content in _read_state(folder, scratch):
        digest = sha256()
        yield packer.compress(_head(name, size))
        for piece in content:
            digest.update(piece)
            yield packer.compress(piece)
        yield packer.compress(bytes(-size % tarfile.BLOCKSIZE))
        files[name] = [size, digest.hexdigest()]
    when = datetime.now(UTC).isoformat(timespec="seconds")
    manifest.update(format=_FORMAT, version=__version__, when=when, files=files)
    sealed = seal(manifest)
    yield packer.compress(_head(_MANIFEST, len(sealed)) + sealed)
    yield packer.compress(bytes(-len(sealed) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE))
    yield packer.flush()


def restore_backup(stream: BinaryIO, folder: Path) -> dict[str, Any]:
    """Unpack a backup into a folder that has no state; return its manifest.

    The folder is created if it does not exist. A service refuses to start on half a restore.

    Raises:
        BadInput: the backup is damaged, or is none.
        BadSetting: the folder has state already, is in use, or cannot be written.
    """
    was_there = folder.exists()
    with suppress(InUse):
        locked = StateFolder(folder, wait_seconds=0, restoring=True)
        _require_empty(folder)
        new = folder / RESTORING
        new.mkdir(mode=0o700)
        try:
            manifest = _unpack(stream, new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            if not was_there:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        _move_in(new, folder)
        del locked
        return manifest
    raise BadSetting(f"{folder} is used by a running service; restore into an empty folder")


def _head(name: str, size: int) -> bytes:
    """Return the header of a tar file's member."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    return member.tobuf()


def _read_state(folder: Path, scratch: Path) -> Iterator[Part]:
    """Yield the files of a state folder in their order, each whole and proven."""
    if not any(os.path.lexists(folder / name) for name in NAMES):
        raise BadSetting(f"{folder} has no state: no service has run with it")
    yield from _read_changes(folder)
    yield from _read_proven(folder / mark.FILE_NAME, mark.prove)
    if (path := folder / store.FILE_NAME).exists():
        yield _read_database(path, scratch)
    if (path := folder / records.FILE_NAME).exists():
        yield records.FILE_NAME, *records.open_records(folder).pack()
    for name in (odd_cells.FILE_NAME, low_pvalues.FILE_NAME):
        yield from _read_proven(folder / name, shared_counters.prove)
    yield from _read_proven(folder / counts.FILE_NAME, counts.prove)


def _read_changes(folder: Path) -> list[Part]:
    """Return the files that a change of the model or the threshold writes, between two changes.

    A change writes them within milliseconds, so what stays the same for a while is whole.
    """
    end, before = time.monotonic() + _SETTLE, None
    while (found := _look_at_changes(folder)) != before and time.monotonic() < end:
        before = found
        time.sleep(_CHANGE_SECONDS)
    return found


def _look_at_changes(folder: Path) -> list[Part]:
    found = _read_proven(folder / generations.FILE_NAME, generations.prove)
    for name in (audit.CHOICE_NAME, audit.AUDIT_NAME):
        with suppress(FileNotFoundError):
            content = read_file(folder / name, audit.MOST_AUDIT)
            found.append((name, len(content), [content]))
    return found


def _read_proven(path: Path, prove: Prove) -> list[Part]:
    """Return a mapped file, if it exists, as it was between two changes of its numbers.

    Damaged if it is never found sound.
    """
    if not os.path.lexists(path):
        return []
    for attempt in range(_TRIES):
        layout, body = read_mapped(path)
        copy = MappedFile.anonymous(layout, len(body), body)
        try:
            prove(copy)
            break
        except (Damaged, LookupError, TypeError) as error:
            if attempt == _TRIES - 1:
                raise _unsound(path, error) from error
        time.sleep(0.001)
    whole = b"".join(pack_mapped(layout, memoryview(body)))
    return [(path.name, len(whole), [whole])]


def _read_database(path: Path, scratch: Path) -> Part:
    try:
        copy = copy_database(path, scratch)
    except Damaged as error:
        raise _unsound(path, error) from error
    return path.name, os.fstat(copy.fileno()).st_size, _read_pieces(copy)


def _read_pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _unsound(path: Path, error: Exception) -> BadSetting:
    return BadSetting(f"{path}: {error}; start the service, which keeps what is sound of it")


def _require_empty(folder: Path) -> None:
    """Raise BadSetting if a folder has state; delete what a restore has left that did not end."""
    if (left := folder / RESTORING).exists():
        for name in NAMES:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(left)
    if found := sorted(one.name for one in folder.iterdir() if one.name not in _NO_STATE):
        raise BadSetting(
            f"{folder} is not empty ({', '.join(found[:3])}{', ...' * (len(found) > 3)}); name an "
            "empty or new folder in ISOSERVE_STATE_DIR, or move these files away"
        )


def _unpack(stream: BinaryIO, folder: Path) -> dict[str, Any]:
    """Write a backup's files into `folder` and return the manifest that proves them."""
    files: dict[str, list[Any]] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is None or member.name not in (*NAMES, _MANIFEST):
                    raise Damaged(f"it has the member {member.name!r}, as no backup has")
                if member.name == _MANIFEST:
                    return _check(unseal(content.read(_MOST_MANIFEST)), files)
                files[member.name] = [member.size, _write(content, folder / member.name)]
        raise Damaged("it ends in the middle")
    except (Damaged, tarfile.TarError, zlib.error, EOFError) as error:
        raise BadInput(
            f"the backup is damaged, or is none ({error}); nothing is restored: take another one"
        ) from error


def _write(content: Any, path: Path) -> str:
    """Write a file, wait until it is on the disk, and return its SHA-256."""
    digest = sha256()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while piece := content.read(_PIECE):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _check(manifest: dict[str, Any], files: dict[str, list[Any]]) -> dict[str, Any]:
    if manifest.get("format") != _FORMAT:
        raise BadInput(
            f"the backup has format {manifest.get('format')}, and this version reads {_FORMAT}; "
            f"use isoserve {manifest.get('version')} or later"
        )
    if manifest["files"] != files:
        wrong = [name for name in manifest["files"] if manifest["files"][name] != files.get(name)]
        raise Damaged(f"{', '.join(wrong) or 'a file'} is not as it was written")
    return manifest


def _move_in(new: Path, folder: Path) -> None:
    """Give the files to the folder and its owner; `new` is there until all of them are."""
    owner = folder.stat()
    for path in new.iterdir():
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
        path.rename(folder / path.name)
    sync_folder(folder)
    new.rmdir()
    sync_folder(folder)
