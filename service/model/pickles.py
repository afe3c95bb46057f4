"""Read an IsolationForest from a pickle that may be malicious or damaged.

A pickle is a program for a small machine. `scan` looks at its instructions without running any, and
allows only those that Python's pickler writes for a forest. `read_forest` then runs it with the
classes and functions that a forest is made of, by their exact names, and no others.

Two dangers are left. The numbers may not be those of a sound forest: see `checks`. And the classes
are compiled code, which a damaged file can crash: read it in a child process first, see `sandbox`.
"""

import io
import pickle
import pickletools
import warnings
from typing import Any

import numpy as np
from sklearn.ensemble import IsolationForest

from ..errors import count

_PROTOCOLS = b"\x04", b"\x05"
"""The protocols that name classes by strings; 4 is Python's default up to 3.13."""

# All instructions that any Python's pickler, with or without `pickletools.optimize`, writes for a
# forest in these protocols. The others are old or dangerous: persistent ids, extension codes (which
# bypass `find_class`), buffers from outside the file, and memo indices that the file chooses.
_INSTRUCTIONS = frozenset(
    """
    PROTO FRAME STOP MEMOIZE BINGET LONG_BINGET MARK STACK_GLOBAL REDUCE NEWOBJ BUILD
    NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
    SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
    """.split()  # noqa: SIM905 - as a list it takes forty lines
)

# numpy 2 renamed its private package; files of both kinds are read.
_NUMPY_CORE = "numpy._core" if int(np.__version__.split(".")[0]) >= 2 else "numpy.core"
_FROM_BUFFER = (f"{_NUMPY_CORE}.numeric", "_frombuffer")

# Everything that a pickled IsolationForest names.
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
    "if you trust it, convert it to a pickle: python -c 'import joblib, pickle, sys; "
    'pickle.dump(joblib.load(sys.argv[1]), open(sys.argv[2], "wb"))\' FILE model.pickle'
)


def scan(content: bytes) -> int:
    """Check the instructions of a pickle without running any; return their number.

    Raises:
        ValueError: it is not a pickle, or has an instruction that no forest needs.
    """
    for magic, name in _COMPRESSED.items():
        if content.startswith(magic):
            raise ValueError(f"it is compressed ({name}), as joblib.dump does; {_FROM_JOBLIB}")
    if b"joblib.numpy_pickle" in content:
        raise ValueError(f"it was written by joblib.dump; {_FROM_JOBLIB}")
    if content[:1] != pickle.PROTO or content[1:2] not in _PROTOCOLS:
        raise ValueError(
            f"it is {_kind(content)}; write the forest with pickle.dump(forest, file, protocol=5)"
        )
    number = end = 0
    try:
        for instruction, _, position in pickletools.genops(content):
            if instruction.name not in _INSTRUCTIONS:
                raise ValueError(f"no forest has the instruction {instruction.name}")
            number, end = number + 1, position or 0
    except Exception as error:  # a damaged file can raise anything here
        raise ValueError(f"it is not a complete pickle: {plain(error)}") from error
    if end + 1 != len(content):
        raise ValueError(f"it has {count(len(content) - end - 1, 'byte')} after its end")
    return number


def read_forest(content: bytes) -> IsolationForest:
    """Run a pickle that passed `scan`; it can name nothing but the parts of a forest.

    Raises:
        ValueError: it holds something else, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            # scikit-learn warns of another version; the golden rows show whether it matters.
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
    """Return an error's text, which a damaged file may have made up, as one short ASCII line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return ascii(text[:300])[1:-1]


class _Unpickler(pickle.Unpickler):
    """An unpickler that finds the parts of an IsolationForest and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        for twin in ("numpy.core", "numpy._core"):
            if module.startswith(f"{twin}."):
                module = _NUMPY_CORE + module.removeprefix(twin)
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(_foreign(module, name))
        part: Any = super().find_class(module, name)
        return _wrapped(part) if (module, name) == _FROM_BUFFER else part


def _wrapped(function: Any) -> Any:
    """Return a new function that calls `function`.

    A pickle can set attributes of a Python function, such as the defaults of numpy's `_frombuffer`;
    in that function itself they would change for the whole process.
    """

    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


def _foreign(module: str, name: str) -> str:
    if module.startswith("numpy.random"):
        return (
            "its random_state is an object of numpy.random; give random_state an integer, or set "
            "forest.random_state = 0 before you pickle it, which changes no score"
        )
    return f"it holds {module}.{name}, which is not part of an IsolationForest"


def _kind(content: bytes) -> str:
    if not content:
        return "empty"
    if content[:1] == pickle.PROTO and content[1:2]:
        return f"a pickle of protocol {content[1]}, not 4 or 5"
    return "not a pickle of protocol 4 or 5"
