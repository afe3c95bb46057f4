"""The rules for cells and names: what is a number, a truth value, a missing value, a name.

Plain Python, shared by the protocols, training and the readers of files.
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LABELS = (0, 1)
"""The values of a label or truth: inlier, outlier."""

_POSITION = re.compile(r"(t:|)(0|[1-9][0-9]{0,5})")


@dataclass(frozen=True)
class TextRules:
    """How the text of a CSV table is read."""

    missing: frozenset[str]
    """Texts that stand for a missing value."""
    strip_missing: bool
    """Whether blanks around such a text are ignored."""
    truths: Mapping[str, int]
    """Truth values: text in lower case -> number."""
    strip_names: bool
    """Whether blanks around a column's name are removed."""
    largest: float
    """The largest magnitude of a number."""

    def is_missing(self, text: str) -> bool:
        """Return whether a text is a missing value; NaN is one too, but is read as a number.

        >>> REQUESTS.is_missing(" NA "), FILES.is_missing(" NA ")
        (True, False)
        """
        return (text.strip() if self.strip_missing else text) in self.missing

    def name(self, text: str) -> str:
        """Return a column's name, without surrounding blanks if `strip_names`.

        >>> REQUESTS.name(" mean"), FILES.name(" mean")
        (' mean', 'mean')
        """
        return text.strip() if self.strip_names else text


REQUESTS = TextRules(
    missing=frozenset({"", "NA", "N/A", "n/a", "<NA>", "NULL", "null", "None"}),
    strip_missing=True,
    truths={},
    strip_names=False,
    largest=sys.float_info.max,
)
"""CSV in a request."""

FILES = TextRules(
    missing=REQUESTS.missing
    | {"NaN", "nan", "-NaN", "-nan", "#N/A", "#N/A N/A", "#NA"}
    | {"1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"},
    strip_missing=False,
    truths={"true": 1, "false": 0},  # in a column that holds nothing else
    strip_names=True,
    largest=(2 - 2**-23) * 2.0**127,  # a forest is fitted on 32-bit floats
)
"""A CSV file. Its reader, pandas, reads truth values itself and keeps blanks around texts."""


def may_spell_numbers(text: str) -> bool:
    """Return whether a text has no character that only Python accepts in a number.

    >>> may_spell_numbers("1.5e3"), may_spell_numbers("1_000"), may_spell_numbers("\u0663")
    (True, False, False)
    """
    return text.isascii() and "_" not in text


def parse_number(cell: Any) -> float:
    """Return a number, a numeric string or a boolean as a float, which may be infinite or NaN.

    Raises ValueError, TypeError or OverflowError for anything else.

    >>> parse_number(" 2.5"), parse_number(True)
    (2.5, 1.0)
    """
    if not may_spell_numbers(str(cell)):
        raise ValueError("not a number")
    return float(cell)


def fault(cell: Any) -> str | None:
    """Return why a cell of a request is neither a finite number nor missing (None or NaN).

    >>> fault("abc"), fault(None)
    ("'abc' is not a number", None)
    """
    if cell is None:
        return None
    if isinstance(cell, list):
        return "a list is too deep; a table has two dimensions"
    if isinstance(cell, dict):
        return "an object is not a number"
    try:
        number = parse_number(cell)
    except ValueError:
        return f"{short(cell)} is not a number"
    except OverflowError:
        return "the number is too large for 64 bits"
    return f"{short(cell)} is not a finite number" if math.isinf(number) else None


def short(cell: Any) -> str:
    """Format a cell for an error: at most 40 characters on one line, text in quotes.

    >>> short("a" * 50)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'"
    """
    text = repr(cell) if isinstance(cell, str) else str(cell)
    return text if len(text) <= 40 else f"{text[:36]}...{text[-1:]}"


def kind(value: Any) -> str:
    """Return the type of a JSON value, with its article.

    >>> kind({}), kind(None), kind(2.5)
    ('an object', 'null', 'a number')
    """
    kinds = {dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a list" if isinstance(value, list) else "a number")


def read_positions(names: Sequence[str]) -> list[int] | None:
    """Return the positions that names spell: Seldon's `t:0`, `t:1` or pandas' `0`, `1`.

    None if any of them is another name.

    >>> read_positions(("t:1", "t:0")), read_positions(("0", "1")), read_positions(("t:0", "sd"))
    ([1, 0], [0, 1], None)
    """
    found = [match for name in names if (match := _POSITION.fullmatch(name))]
    if len(found) < len(names) or len({match[1] for match in found}) > 1:
        return None
    return [int(match[2]) for match in found]


def name_column(j: int) -> str:
    """Return the name that pandas gives column `j` if it has none.

    >>> name_column(0)
    'Unnamed: 0'
    """
    return f"Unnamed: {j}"


def is_unnamed(name: str) -> bool:
    """Return whether pandas named a column, such as an index that was saved with its table.

    >>> is_unnamed("Unnamed: 0"), is_unnamed("mean")
    (True, False)
    """
    return re.fullmatch(r"Unnamed: \d+", name) is not None
