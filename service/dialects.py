"""The dialect of a CSV text: its encoding, its separator, its decimal mark.

One set of rules for the files of training and the bodies of requests. Plain Python.
"""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from .errors import BadInput, count

SEPARATORS = (",", ";", "\t", "|")

_SAMPLE_LINES, _SAMPLE_CELLS = 200, 20_000

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_NAMED = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}

_SEPARATOR_LINE = re.compile(r"\"?sep=(.)\"?\r?\n", re.IGNORECASE)  # Excel's

# A number with one mark that can only be a decimal mark, and one whose mark may separate thousands.
_DECIMAL = re.compile(
    r"[+-]?(?:\d*([.,])(?:\d{1,2}|\d{4,})|(?:0|\d{4,})?([.,])\d{3})(?:[eE][+-]?\d+)?"
)
_BOTH_MARKS = re.compile(r"[+-]?\d{1,3}(?:([.,])\d{3})+(?!\1)([.,])\d*")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:([.,])\d{3})+")


@dataclass(frozen=True)
class Dialect:
    """How a CSV text is read."""

    separator: str = ","
    decimal: str = "."
    skip: int = 0
    """Characters before the line of names: Excel's line `sep=;`."""
    extra: bool = False
    """Whether every row ends in one separator more than the line of names."""
    notes: tuple[str, ...] = field(default=())
    """Sentences about what was recognised, and how to say otherwise."""


def decode_text(content: bytes, encoding: str = "") -> tuple[str, str]:
    """Return the text of a file or body, and a sentence about an encoding that is not UTF-8.

    Without an `encoding` a byte order mark counts, else UTF-8, else Windows-1252.

    Raises:
        BadInput: there is no such encoding, or the bytes are not in it.
    """
    decoder, note = find_decoder(content, encoding)
    return decoder.decode(content, final=True).removeprefix("\ufeff"), note


def find_decoder(
    head: bytes, encoding: str = "", is_whole: bool = True
) -> tuple[codecs.IncrementalDecoder, str]:
    """Return the decoder for a text that begins with `head`, and a sentence as `decode_text`.

    `is_whole`: nothing comes after `head`. The decoder has not read it yet.

    Raises:
        BadInput: there is no such encoding, or the bytes of `head` are not in it.
    """
    found, note = encoding, ""
    if not found:
        found = next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), "")
        note = f"read as {found.upper()}" if found.startswith(("utf-16", "utf-32")) else ""
    try:
        make = codecs.getincrementaldecoder(found or "utf-8")
        make().decode(head, final=is_whole)
        return make(), note
    except LookupError as error:
        raise BadInput(
            f"there is no encoding {encoding[:40]!r}; one is utf-8 or latin-1"
        ) from error
    except UnicodeError as error:
        if found:
            raise BadInput(f"it is not text in {found}") from error
    if b"\0" in head:
        raise BadInput("it is not text: it holds bytes of 0")
    decoder = codecs.getincrementaldecoder("cp1252")(errors="replace")
    return decoder, "not UTF-8: read as Windows-1252 (Latin-1)"


def find_dialect(text: str, separator: str = "", decimal: str = "") -> Dialect:
    """Recognise the dialect of a CSV text by its first lines; what is given is taken as it is."""
    skip, notes = 0, []
    if line := _SEPARATOR_LINE.match(text):
        skip, separator = line.end(), separator or line[1]
        notes.append(f"cells are separated by {separator!r}, as its first line says")
    lines = (
        text[skip:].splitlines(keepends=True)[:_SAMPLE_LINES]
        if len(text) < 2**20
        else list(islice(io.StringIO(text[skip : skip + 2**20], newline=""), _SAMPLE_LINES))
    )
    if not separator:
        separator, others = _find_separator(lines)
        if separator != ",":
            notes.append(f"cells are separated by a {_NAMED[separator]}")
        if others:
            names = " or ".join(_NAMED[other] for other in others)
            notes.append(f"a {names} could separate them as well: say so with --sep")
    rows = [row for row in _parse(lines, separator) if row]
    if not decimal:
        decimal, note = _find_decimal(rows[1:], separator)
        notes += [note] if note else []
    extra = len(rows) > 1 and all(
        len(row) == len(rows[0]) + 1 and not row[-1].strip() for row in rows[1:]
    )
    return Dialect(separator, decimal, skip, extra, tuple(notes))


def read_rows(text: str, dialect: Dialect, most: int) -> Iterator[list[str]]:
    """Yield the names and then up to `most` rows of a CSV text; blank lines are skipped.

    Raises:
        BadInput: the quotes are damaged, or a cell is too long.
    """
    reader = csv.reader(io.StringIO(text[dialect.skip :], newline=""), delimiter=dialect.separator)
    try:
        for i, row in enumerate(islice((line for line in reader if line), most + 1)):
            cut = dialect.extra and i > 0 and not row[-1].strip()
            yield row[:-1] if cut else row
    except csv.Error as error:
        raise BadInput(f"it is not CSV: {error}") from error


def check_width(i: int, cells: Sequence[str], names: Sequence[str]) -> None:
    """Raise BadInput where a row has more or fewer cells than there are names."""
    if len(cells) != len(names):
        raise BadInput(f"row {i} has {count(len(cells), 'column')}, the line of names {len(names)}")


def _parse(lines: Iterable[str], separator: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=separator))
    except csv.Error:
        return []


def _find_separator(lines: list[str]) -> tuple[str, list[str]]:
    """Return the separator that cuts all lines into the most columns, and others that fit."""
    widths = {}
    for separator in SEPARATORS:
        rows = [row for row in _parse(lines, separator) if row][: _SAMPLE_LINES - 1]
        sizes = Counter(map(len, rows[1:])) or Counter([len(rows[0])] if rows else [1])
        usual = sizes.most_common(1)[0][0]
        if rows and usual in (len(rows[0]), len(rows[0]) + 1) and len(rows[0]) > 1:
            # A few lines of another width are faults to be named, not another dialect.
            widths[separator] = (sizes[usual] / sizes.total() > 0.9, len(rows[0]))
    if not widths:
        return ",", []
    best = max(widths, key=lambda separator: widths[separator])
    return best, [other for other in widths if other != best and widths[other][0]]


def _find_decimal(rows: list[list[str]], separator: str) -> tuple[str, str]:
    """Return the decimal mark of the numbers in some rows, and a sentence if that is a choice."""
    certain: Counter[str] = Counter()
    possible: Counter[str] = Counter()
    for cell in map(str.strip, islice(chain.from_iterable(rows), _SAMPLE_CELLS)):
        if both := _BOTH_MARKS.fullmatch(cell):
            certain[both[2]] += 1
        elif mark := _DECIMAL.fullmatch(cell):
            certain[mark[1] or mark[2]] += 1
        elif mark := _THOUSANDS.fullmatch(cell):
            possible[mark[1]] += 1
    if certain[","] > certain["."]:
        return ",", "numbers have a decimal comma"
    if possible[","] and not certain["."] and separator != ",":
        return ",", "a comma in a number is taken for a decimal comma; thousands: --decimal ."
    if possible[","]:
        return (
            ".",
            "a comma in a number is taken to separate thousands; a decimal comma: --decimal ,",
        )
    return ".", ""
