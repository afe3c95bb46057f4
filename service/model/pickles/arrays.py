"""Build numpy arrays from what a pickle says about them.

numpy's own pickle support trusts the file: a type can be changed under an array that has it, so
that plain bytes become pointers. Here a type is plain numbers, is made once and never changes, and
an array is a view of bytes of the file whose number fits.
"""

import re
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .interpreter import BadPickle, Machine, Made

_NUMBERS = re.compile(r"[biuf][1248]")
_MOST_FIELDS, _MOST_DIMENSIONS = 64, 3
_LATIN = "latin1"


class Type(Made):
    """Stands for a numpy.dtype: numbers, a record of numbers, or Python objects."""

    def __init__(self, name: Any, align: Any = False, copy: Any = True) -> None:
        super().__init__()
        if type(name) is not str:
            raise BadPickle("it has an array type without a name")
        self._name = name
        self.dtype: np.dtype[Any] | None = None
        """None until it is built, and for Python objects."""

    @property
    def holds_objects(self) -> bool:
        """Whether it is numpy's type of Python objects."""
        return self._name in ("O", "O8")

    def build(self, state: Any, machine: Machine) -> None:
        """Take over the state of a dtype."""
        _, order, part, names, fields, size, *_ = state
        if self.holds_objects:
            return
        if _NUMBERS.fullmatch(self._name):
            _need(part is names is fields is None and order in "<>=|", self._name)
            self.dtype = np.dtype(order + self._name)
        elif part is not None:
            base, shape = part
            self.dtype = np.dtype((_numbers(base), _shape(shape)))
        else:
            _need(type(names) is tuple and type(fields) is dict, self._name)
            self.dtype = _record(names, fields, size)


def _record(names: tuple[Any, ...], fields: dict[str, Any], size: Any) -> np.dtype[Any]:
    """Return a type of named fields, each of which lies inside `size` bytes. Fields may overlap."""
    _need(0 < len(names) <= _MOST_FIELDS and set(names) == set(fields), "V")
    formats = [_numbers(fields[name][0]) for name in names]
    offsets = [fields[name][1] for name in names]
    for one, offset in zip(formats, offsets, strict=True):
        _need(type(offset) is int and 0 <= offset <= size - one.itemsize, "V")
    record: Any = {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": size}
    dtype: np.dtype[Any] = np.dtype(record)
    return dtype


def _numbers(found: Any) -> np.dtype[Any]:
    if type(found) is not Type or found.dtype is None:
        raise BadPickle("it has an array of something other than numbers")
    return found.dtype


def _shape(shape: Any) -> tuple[int, ...]:
    numbers = type(shape) is tuple and all(type(n) is int and 0 <= n < 2**48 for n in shape)
    _need(numbers and len(shape) <= _MOST_DIMENSIONS, "one of this shape")
    found: tuple[int, ...] = shape
    return found


def _need(sound: bool, name: str) -> None:
    if not sound:
        raise BadPickle(f"it has an array type that no forest has ({name[:20]!r})")


class Array(Made):
    """Stands for a numpy.ndarray."""

    def __init__(self) -> None:
        super().__init__()
        self.values: NDArray[Any] | None = None
        """None until it is built."""

    def build(self, state: Any, machine: Machine) -> None:
        """Take over the state of an array."""
        _, shape, kind, fortran, data = state
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: Any, kind: Any, shape: Any, order: Any) -> None:
        """Take over the bytes of an array, or its column names."""
        if type(kind) is Type and kind.holds_objects:
            self.values = _texts(data, _shape(shape))
            return
        dtype, shape = _numbers(kind), _shape(shape)
        count = prod(shape)
        if type(data) not in (bytes, bytearray) or count * dtype.itemsize != len(data):
            raise BadPickle("it has an array whose bytes do not fit its shape")
        flat = np.frombuffer(data, dtype) if count else np.empty(0, dtype)
        self.values = flat.reshape(shape, order="F" if order == "F" else "C")
        self.values.flags.writeable = False


def _texts(items: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array of column names."""
    if type(items) is not list or shape != (len(items),) or any(type(t) is not str for t in items):
        raise BadPickle("it has an array of Python objects; only column names may be such")
    return np.array([*items, None], dtype=object)[:-1]


class JoblibArray(Array):
    """Stands for joblib's wrapper, behind which the bytes of an array follow in the file."""

    def build(self, state: Any, machine: Machine) -> None:
        """Take over the state of a wrapper, and the array behind it."""
        kind, shape, order = state["dtype"], state["shape"], state["order"]
        if type(kind) is Type and kind.holds_objects:
            nested = machine.run_nested()
            if type(nested) is not Array or nested.values is None:
                raise BadPickle("it has an array of Python objects; only column names may be such")
            self.values = nested.values
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            machine.take(machine.take(1)[0])
        size = prod(_shape(shape)) * _numbers(kind).itemsize
        self.fill(machine.take(size), kind, shape, order)


def reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    """Stand for numpy's `_reconstruct`: an array that is built later."""
    return Array()


def from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    """Stand for numpy's `_frombuffer`."""
    array = Array()
    array.fill(data, kind, shape, order)
    return array


def scalar(kind: Any, data: Any) -> Any:
    """Stand for numpy's `scalar`: return a number of Python."""
    dtype = _numbers(kind)
    if type(data) is not bytes or len(data) != dtype.itemsize or dtype.names or dtype.shape:
        raise BadPickle("it has a number whose bytes do not fit its type")
    return np.frombuffer(data, dtype)[0].item()


def encode(text: Any, encoding: Any) -> bytes:
    """Stand for `_codecs.encode`, which writes bytes in protocol 2."""
    if type(text) is not str or encoding != _LATIN:
        raise BadPickle("it encodes a text in a way that no forest needs")
    return text.encode(_LATIN)
