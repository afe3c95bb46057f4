"""Run the instructions of a pickle, which may be malicious or damaged, in plain Python.

A pickle is a program for a small machine with a stack. This machine knows the instructions that
Python's pickler writes for a forest, and makes plain values and the parts that it is given. It
imports no name, calls no other code and hashes nothing but texts. The number of instructions bounds
its time and memory.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

MOST_INSTRUCTIONS = 3_000_000
"""Some 20,000 trees: a forest of 100 trees has 15,000."""

MOST_MARKS = 100
"""Open collections, one in another: a forest has fewer than ten."""

PROTOCOLS = range(2, 6)
"""The protocols that are read; older ones do not mark their beginning."""


class BadPickle(ValueError):
    """A pickle that is damaged, or is not one of a forest; the text says why and what to do."""


class Made(ABC):
    """A value that a pickle makes and then builds from a state, once."""

    def __init__(self) -> None:
        self.is_built = False

    @abstractmethod
    def build(self, state: Any, machine: "Machine") -> None:
        """Take over a state from the file."""


class Part:
    """A class or function that a pickle may name; `make` makes its values here."""

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name, self.make = name, make


Parts = Mapping[tuple[str, str], Part]
"""Each part by its module and its name."""

Refuse = Callable[[str, str, Any], BadPickle]
"""Returns the error for a module and a name that are no part, in the outermost value so far."""


class Machine:
    """Runs one pickle. `at` is the position of the next byte."""

    def __init__(self, content: bytes, parts: Parts, refuse: Refuse) -> None:
        self._content, self._parts, self._refuse = content, parts, refuse
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        """The values below each mark."""
        self._memo: dict[int, Any] = {}
        self._is_nested = False
        self._left = len(content)
        self.at = self.instructions = 0

    def run(self) -> Any:
        """Run up to the end of the pickle and return its value.

        Raises:
            BadPickle: it is damaged, or holds something other than the parts.
        """
        try:
            self._run()
            (value,) = self._stack
        except BadPickle:
            raise
        except MemoryError as error:
            raise BadPickle("it needs more memory than there is") from error
        except Exception as error:  # a damaged file can raise anything here
            if self.at >= len(self._content):
                raise BadPickle(
                    "it ends in the middle; copy or save the whole file again"
                ) from error
            raise BadPickle(f"it is damaged at byte {self.at:,}") from error
        return value

    def _run(self) -> None:
        content, instructions = self._content, _INSTRUCTIONS
        while self.instructions < MOST_INSTRUCTIONS:
            code = content[self.at]
            self.at += 1
            self.instructions += 1
            if code == _STOP:
                return
            act = instructions.get(code)
            if act is None:
                raise BadPickle(f"it has the instruction {bytes([code])!r}, which no forest needs")
            act(self)
        raise BadPickle(f"it has more than {MOST_INSTRUCTIONS:,} instructions, too many trees")

    def take(self, size: int) -> bytes:
        """Return the next bytes of the file."""
        end = self.at + size
        if end > len(self._content):
            self.at = len(self._content)
            raise IndexError
        data = self._content[self.at : end]
        self.at = end
        return data

    def spend(self, size: int) -> None:
        """Account for bytes of arrays that are kept: together they are not more than the file.

        A small file could name one array many times, where each use takes memory later.
        """
        self._left -= size
        if self._left < 0:
            raise BadPickle("it names its arrays more than once each")

    def run_nested(self) -> Any:
        """Run a pickle that begins here and return its value; joblib writes names so."""
        if self._is_nested:
            raise BadPickle("it has pickles in pickles, deeper than joblib writes")
        nested = Machine(self._content, self._parts, self._refuse)
        nested._is_nested, nested.at, nested.instructions = True, self.at, self.instructions
        value = nested.run()
        self.at, self.instructions = nested.at, nested.instructions
        return value

    def number(self, layout: struct.Struct) -> Any:
        """Return a number from the next bytes."""
        return layout.unpack(self.take(layout.size))[0]

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def mark(self) -> None:
        """Remember where the items of a collection begin."""
        if len(self._marks) == MOST_MARKS:
            raise BadPickle(f"it has more than {MOST_MARKS} collections, one in another")
        self._marks.append(self._stack)
        self._stack = []

    def pop_items(self) -> list[Any]:
        """Take all above the latest mark from the stack."""
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def push_tuple(self, size: int) -> None:
        """Replace the last `size` values by a tuple of them."""
        first = len(self._stack) - size
        _need(first >= 0)
        self._stack[first:] = [tuple(self._stack[first:])]

    def append(self, items: list[Any]) -> None:
        """Append items to the list on the stack."""
        _need(type(self._stack[-1]) is list)
        self._stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Set items of the dict on the stack: keys and values in turn. Only texts are keys."""
        _need(type(self._stack[-1]) is dict and len(items) % 2 == 0)
        pairs = zip(items[::2], items[1::2], strict=True)
        self._stack[-1].update((key, value) for key, value in pairs if type(key) is str)

    def memoize(self, place: int | None = None) -> None:
        """Keep the last value for later."""
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def recall(self, place: int) -> None:
        """Put a kept value on the stack."""
        self._stack.append(self._memo[place])

    def name(self, module: Any, name: Any) -> None:
        """Put the part of this name on the stack."""
        _need(type(module) is type(name) is str)
        part = self._parts.get((module, name))
        if part is None:
            bottom = [*self._marks, self._stack][0]
            raise self._refuse(module, name, bottom[0] if bottom else None)
        self._stack.append(part)

    def call(self) -> None:
        """Replace a part and its arguments by what the part makes of them."""
        arguments, part = self._stack.pop(), self._stack.pop()
        _need(type(part) is Part and type(arguments) is tuple)
        self._stack.append(part.make(*arguments))

    def build(self) -> None:
        """Build the value on the stack from the state above it."""
        state, value = self._stack.pop(), self._stack[-1]
        _need(isinstance(value, Made))
        if value.is_built:
            raise BadPickle("it changes a value that is already made")
        value.is_built = True
        value.build(state, self)

    def pop(self) -> Any:
        """Take the last value from the stack."""
        return self._stack.pop()

    def line(self) -> str:
        """Return the next line of the file."""
        end = self._content.index(b"\n", self.at, self.at + 256)
        return self.take(end + 1 - self.at)[:-1].decode()


def _need(sound: bool) -> None:
    if not sound:
        raise ValueError


def _name_from_stack(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _sized(make: Callable[[bytes], Any], layout: str) -> Callable[[Machine], None]:
    """Return an instruction with a length and as many bytes."""
    size = struct.Struct(layout)
    return lambda machine: machine.push(make(machine.take(machine.number(size))))


def _fixed(layout: str) -> Callable[[Machine], None]:
    number = struct.Struct(layout)
    return lambda machine: machine.push(machine.number(number))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _whole(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


_U1, _U4 = struct.Struct("<B"), struct.Struct("<I")

_STOP = ord(".")

# All that any Python's pickler writes for a forest in the protocols 2 to 5. The others are old, or
# dangerous: persistent ids, extension codes, buffers from outside the file.
_NAMED: dict[str, Callable[[Machine], Any]] = {
    "\x80": lambda machine: machine.take(1),  # protocol
    "\x95": lambda machine: machine.take(8),  # frame
    "(": Machine.mark,
    "N": lambda machine: machine.push(None),
    "\x88": lambda machine: machine.push(True),
    "\x89": lambda machine: machine.push(False),
    "K": _fixed("<B"),
    "M": _fixed("<H"),
    "J": _fixed("<i"),
    "G": _fixed(">d"),
    "\x8a": _sized(_whole, "<B"),
    "\x8c": _sized(_text, "<B"),
    "X": _sized(_text, "<I"),
    "C": _sized(bytes, "<B"),
    "B": _sized(bytes, "<I"),
    "\x8e": _sized(bytes, "<Q"),
    "\x96": _sized(bytes, "<Q"),  # a bytearray
    ")": lambda machine: machine.push(()),
    "\x85": lambda machine: machine.push_tuple(1),
    "\x86": lambda machine: machine.push_tuple(2),
    "\x87": lambda machine: machine.push_tuple(3),
    "t": lambda machine: machine.push(tuple(machine.pop_items())),
    "]": lambda machine: machine.push([]),
    "a": lambda machine: machine.append([machine.pop()]),
    "e": lambda machine: machine.append(machine.pop_items()),
    "}": lambda machine: machine.push({}),
    "s": lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "u": lambda machine: machine.set_items(machine.pop_items()),
    "\x94": Machine.memoize,
    "q": lambda machine: machine.memoize(machine.number(_U1)),
    "r": lambda machine: machine.memoize(machine.number(_U4)),
    "h": lambda machine: machine.recall(machine.number(_U1)),
    "j": lambda machine: machine.recall(machine.number(_U4)),
    "c": lambda machine: machine.name(machine.line(), machine.line()),
    "\x93": _name_from_stack,
    "R": Machine.call,
    "\x81": Machine.call,  # a new object
    "b": Machine.build,
}
_INSTRUCTIONS = {ord(code): act for code, act in _NAMED.items()}
