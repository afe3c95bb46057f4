"""A pickle, read with care: an IsolationForest comes out of it, or a sentence on why not.

A pickle is a program for a small machine. `scan` looks at its instructions without running any:
those that Python's pickler writes for a forest are let by, no others. `read_forest` then runs it,
and gives it the parts that a forest is made of, by their exact names, and nothing else.

What names and instructions cannot tell is whether the numbers inside are those of a forest that can
be walked: see `trees`. And the parts themselves are compiled code, which a damaged file can crash:
read a file in a child process first (see `rehearsal`).
"""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import IsolationForest

PROTOCOLS = (4, 5)
"""Those that name things by strings; 4 is what Python writes by default, up to 3.13."""

# All that the pickler of any Python, with or without `pickletools.optimize`, writes for a forest in
# these protocols. Left out, beside what is merely old: persistent ids, extension codes (which pass
# `find_class` by), buffers from outside the file, and memo places of the file's choosing.
_INSTRUCTIONS = frozenset(
    """
    PROTO FRAME STOP MEMOIZE BINGET LONG_BINGET MARK STACK_GLOBAL REDUCE NEWOBJ BUILD
    NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
    SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
    """.split()  # noqa: SIM905 - as a list it takes forty lines
)

# numpy 2 renamed its private package; a file may come from either side of that.
_NUMPY_CORE = "numpy._core" if int(np.__version__.split(".")[0]) >= 2 else "numpy.core"
_FROM_BUFFER = (f"{_NUMPY_CORE}.numeric", "_frombuffer")

# All that a pickled IsolationForest is made of; anything else is not a model.
_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    (f"{_NUMPY_CORE}.multiarray", "_reconstruct"),
    (f"{_NUMPY_CORE}.multiarray", "scalar"),
    _FROM_BUFFER,
    ("sklearn.ensemble._iforest", "IsolationForest"),
    ("sklearn.tree._classes", "ExtraTreeRegressor"),
    ("sklearn.tree._tree", "Tree"),
}

_COMPRESSED = {
    b"\x78": "zlib",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x5d\x00\x00": "lzma",
    b"\x04\x22\x4d\x18": "lz4",
}

_FROM_JOBLIB = (
    "if you trust it, turn it into a pickle: python -c 'import joblib, pickle, sys; "
    'pickle.dump(joblib.load(sys.argv[1]), open(sys.argv[2], "wb"))\' FILE model.pickle'
)


def scan(content: bytes) -> int:
    """Look at the instructions of a pickle and return how many there are; none is run.

    Raises:
        ValueError: it is no pickle, or not one that a forest needs.
    """
    for magic, name in _COMPRESSED.items():
        if content.startswith(magic):
            raise ValueError(f"it is compressed ({name}), as joblib.dump does; {_FROM_JOBLIB}")
    if b"joblib.numpy_pickle" in content:
        raise ValueError(f"it was written by joblib.dump; {_FROM_JOBLIB}")
    if content[:1] != pickle.PROTO or content[1:2] not in map(_byte, PROTOCOLS):
        raise ValueError(
            f"it is {_kind(content)}; write the forest with pickle.dump(forest, file, protocol=5)"
        )
    number = end = 0
    try:
        for instruction, _, place in pickletools.genops(content):
            if instruction.name not in _INSTRUCTIONS:
                raise ValueError(f"no forest has the instruction {instruction.name}")
            number, end = number + 1, place or 0
    except Exception as error:  # a damaged file can raise anything here
        raise ValueError(f"it is no whole pickle: {plain(error)}") from error
    if end + 1 != len(content):
        raise ValueError(f"it goes on for {len(content) - end - 1:,} bytes after its end")
    return number


def read_forest(content: bytes) -> IsolationForest:
    """Run the instructions of a pickle that passed `scan`, with a forest's parts alone at hand.

    Raises:
        ValueError: it holds something else, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            # Another version's pickle is told by its scores, not by its version string.
            warnings.simplefilter("ignore")
            forest = _Unpickler(io.BytesIO(content)).load()
    except MemoryError:
        raise
    except Exception as error:  # unpickling a damaged file can raise anything
        raise ValueError(plain(error)) from error
    if type(forest) is not IsolationForest:
        raise ValueError(f"it holds a {type(forest).__name__}, not an IsolationForest")
    return forest


def plain(error: object) -> str:
    """Return what a damaged file made someone say: one short line, without control characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return ascii(text[:300])[1:-1]


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the parts of an IsolationForest and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        for twin in ("numpy.core", "numpy._core"):
            if module.startswith(f"{twin}."):
                module = _NUMPY_CORE + module.removeprefix(twin)
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(_foreign(module, name))
        part = super().find_class(module, name)
        return _wrapped(part) if (module, name) == _FROM_BUFFER else part


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a stand-in for a function written in Python, for one pickle only.

    A pickle can set attributes of what it is given. Of a class or of compiled code it cannot, but
    it could exchange the defaults of numpy's own `_frombuffer` for everybody.
    """

    def stand_in(*arguments: Any) -> Any:
        return function(*arguments)

    return stand_in


def _foreign(module: str, name: str) -> str:
    if module.startswith("numpy.random"):
        return (
            "its random_state is an object of numpy.random; give random_state an integer, or set "
            "forest.random_state = 0 before it is pickled, which changes no score"
        )
    return f"it holds {module}.{name}, which no IsolationForest is made of"


def _kind(content: bytes) -> str:
    if not content:
        return "empty"
    if content[:1] == pickle.PROTO and content[1:2]:
        return f"a pickle of protocol {content[1]}, not 4 or 5"
    return "not a pickle of protocol 4 or 5"


def _byte(number: int) -> bytes:
    return bytes([number])
