"""Tell what kind of file a model file is, and decompress it."""

import bz2
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ...errors import count
from ...files import open_regular
from .interpreter import PROTOCOLS, BadPickle

MOST_BYTES = 256 * 2**20
"""The largest file, also decompressed: some 20,000 trees of 256 samples."""

_SAVE = "save the fitted forest with pickle.dump(forest, file) or joblib.dump(forest, path)"


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _lzma() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=128 * 2**20)  # the highest level needs 65 MB


_COMPRESSED: dict[bytes, tuple[str, Callable[[], _Decompressor]]] = {
    **dict.fromkeys(
        (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), ("zlib", zlib.decompressobj)
    ),
    b"\x1f\x8b": ("gzip", lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)),
    b"BZh": ("bz2", bz2.BZ2Decompressor),
    b"\xfd7zXZ\x00": ("xz", _lzma),
    b"\x5d\x00\x00": ("lzma", _lzma),
}
"""What `joblib.dump(..., compress=...)` writes, by the first bytes."""

_PACKED = 4  # how many times smaller a forest is when it is compressed

_OTHERS = {
    b"\x04\x22\x4d\x18": "a file compressed with lz4, which is not read; write it again as "
    "joblib.dump(joblib.load(path), path, compress=3)",
    b"\x28\xb5\x2f\xfd": "a file compressed with zstd; decompress it with `zstd -d`",
    b"ZF": "a file of joblib before 0.10; load it with that joblib and " + _SAVE,
    b"version https://git-lfs": "a Git LFS pointer, not the file; fetch the file with "
    "`git lfs pull`",
    b"\x93NUMPY": "a numpy array; " + _SAVE,
    b"\x89HDF": "an HDF5 file; " + _SAVE,
    b"PAR1": "a Parquet table; train on it with `python -m training.train --dataset FILE`",
    b"{": "JSON, such as a model's card; name the model file itself, such as model.pickle",
}
"""Other kinds of files by their first bytes: what each is, and what to do."""


def estimate_size(path: Path) -> int:
    """Return about how many bytes of pickle a model file holds; 0 if it cannot be read."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            begin, size = file.read(8), os.fstat(file.fileno()).st_size
    except OSError:
        return 0
    return size * (_PACKED if any(map(begin.startswith, _COMPRESSED)) else 1)


def decompress(content: bytes, most: int) -> tuple[str, bytes]:
    """Return how a model file is compressed ('' if it is not), and the pickle in it.

    Raises:
        BadPickle: it is no pickle of the protocols 2 to 5, or decompresses to more than `most`
            bytes.
    """
    kind, pickled = "", content
    for magic, (name, start) in _COMPRESSED.items():
        if content.startswith(magic):
            kind, pickled = name, _decompress(content, name, start(), most)
    if pickled[:1] != b"\x80" or pickled[1:2] not in map(_byte, PROTOCOLS):
        raise BadPickle(f"it is {_describe(pickled)}")
    return kind, pickled


def _byte(number: int) -> bytes:
    return bytes([number])


def _decompress(content: bytes, name: str, decompressor: _Decompressor, most: int) -> bytes:
    try:
        plain = decompressor.decompress(content, most + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise BadPickle(f"it is damaged: it is compressed with {name}, and wrongly") from error
    if len(plain) > most:
        raise BadPickle(f"it decompresses to more than {most:,} bytes")
    if not decompressor.eof:
        raise BadPickle("it ends in the middle; copy or save the whole file again")
    if decompressor.unused_data:
        raise BadPickle(f"it has {count(len(decompressor.unused_data), 'byte')} after its end")
    return plain


def _describe(content: bytes) -> str:
    """Return what a file is that cannot be read, and what to do."""
    for magic, sentence in _OTHERS.items():
        if content.startswith(magic):
            return sentence
    what = "empty" if not content else "not a pickle"
    if content.startswith(b"PK\x03\x04"):
        return _describe_zip(content)
    if content[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, perhaps in place of a download; download the file itself"
    if b"onnx" in content[:4096].lower():
        what = "an ONNX model"
    elif content[:1] == b"\x80" and content[1:2]:
        what = f"a pickle of protocol {content[1]}, and 2 to 5 are read"
    elif content[:1] in (b"c", b"(") and b"\n" in content[:200]:
        what = "a pickle of protocol 0 or 1, and 2 to 5 are read"
    return f"{what}; {_SAVE}"


def _describe_zip(content: bytes) -> str:
    if b"schema.json" in content:
        return "a skops file; load it with skops.io.load and " + _SAVE
    return "a zip file; unpack it if it has a model file in it, else " + _SAVE
