"""The rules for cells and names: what is a number, a truth value, a missing value, a name.

Plain Python, shared by the protocols, training and the readers of files.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

LABELS = (0, 1)
"""The values of a label or truth: inlier, outlier."""

MISSING = frozenset(
    {"", "NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "None", "NaT", "?"}
    | {"NaN", "nan", "NAN", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"}
)
"""Texts that stand for a missing cell, in files and in every request."""

TRUTHS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
"""Truth values in lower case, as numbers; 1 and 0 are truth values, too."""

LARGEST = (2 - 2**-23) * 2.0**127
"""The largest number that a forest can be fitted on: it has 32-bit floats."""

_POSITION = re.compile(r"(t:|)(0|[1-9][0-9]{0,5})")

# Digits in groups of three; the separators of thousands beside the decimal mark itself.
_GROUPS = {
    mark: re.compile(
        rf"[+-]?\d{{1,3}}([{other}'\u2019 \u00a0\u202f])\d{{3}}(\1\d{{3}})*({mark}\d*)?", re.ASCII
    )
    for mark, other in ((".", ","), (",", "."))
}


def is_missing(cell: Any) -> bool:
    """Return whether a cell is a missing value: None, NaN or one of the texts in MISSING.

    >>> is_missing(" NA "), is_missing(float("nan")), is_missing("0")
    (True, True, False)
    """
    if isinstance(cell, str):
        return cell.strip() in MISSING
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


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


def plain_number(text: str, decimal: str = ".") -> str:
    """Rewrite a number of a CSV file as Python has it: no thousands separators, a decimal point.

    Text that is no such number is returned as it is.

    >>> plain_number("1,234.5"), plain_number("1.234,5", ","), plain_number("12,5", ",")
    ('1234.5', '1234.5', '12.5')
    """
    text = text.strip()
    if grouped := _GROUPS[decimal].fullmatch(text):
        text = text.replace(grouped[1], "")
    return text.replace(",", ".") if decimal == "," and "." not in text else text


def parse_cell(cell: Any, decimal: str = "", flag: bool = False) -> float:
    """Return a cell of a column of numbers as a float: NaN where it is missing.

    With `decimal` the cell is a text of a CSV file with this decimal mark. With `flag` truth values
    such as "yes" are numbers, too.

    Raises:
        ValueError, TypeError or OverflowError: it is not a number (see `parse_number`).

    >>> parse_cell("NA"), parse_cell("12,5", ","), parse_cell("Yes", flag=True)
    (nan, 12.5, 1.0)
    """
    if isinstance(cell, str):
        text = cell.strip()
        if text in MISSING:
            return math.nan
        if flag and text.lower() in TRUTHS:
            return TRUTHS[text.lower()]
        return parse_number(plain_number(text, decimal) if decimal else text)
    return math.nan if cell is None else parse_number(cell)


def parse_text(cell: Any) -> str:
    """Return a cell of a column of text, without blanks around it; empty where it is missing.

    A whole number is its digits, so that the code 17 is the same as a number and as text.

    Raises:
        TypeError: it is a list or an object.

    >>> parse_text(" casino "), parse_text(17.0), parse_text(True), parse_text("NA")
    ('casino', '17', 'true', '')
    """
    if isinstance(cell, str):
        text = cell.strip()
        return "" if text in MISSING else text
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float):
        if math.isnan(cell):
            return ""
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, int):
        return str(cell)
    raise TypeError(f"{kind(cell)} is not text")


def bounded(text: str, most: int) -> bytes:
    """Return a text as UTF-8 of at most `most` bytes; one that was cut ends in an ellipsis.

    >>> bounded("a" * 40, 8).decode()
    'aaaaa…'
    """
    content = text.encode(errors="replace")
    if len(content) <= most:
        return content
    return content[: most - 3].decode(errors="ignore").encode() + "…".encode()


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
