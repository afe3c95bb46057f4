"""Estimate how many rows a body holds, without reading it.

Reading is most of the work of a request, so one that is too much must be refused before.
"""

SHORT = 1024
"""Bytes of a few dozen rows, which cost as much to count as to score."""

_NUMBER = 20  # bytes of a number in JSON
_SAMPLE = 2**16  # bytes in which commas are counted
_WIDE = 10  # columns of a row that counts as one

# The end of a datatype of the Open Inference Protocol -> the bytes of its numbers, smallest first.
_SIZES = {b'T8"': 1, b'BOOL"': 1, b'16"': 2, b'32"': 4, b'64"': 8}


def estimate_rows(body: bytes, columns: int, binary: bool = False) -> int:
    """Return about how many rows of `columns` columns a body holds.

    Numbers have commas between them. Where they have none, as in binary tensors, they still take
    some bytes each: 20 in a text, and if `binary`, those of the smallest datatype at the start.

    A row of many columns counts as several, because it takes as much memory.

    >>> estimate_rows(b'{"data": {"ndarray": [[1, 2], [3, 4]]}}', 2)
    2
    """
    commas = body.count(b",", 0, _SAMPLE) * max(len(body), _SAMPLE) // _SAMPLE
    number = _smallest_number(body) if binary else _NUMBER
    return max(commas, len(body) // number) // min(columns, _WIDE) + 1


def _smallest_number(body: bytes) -> int:
    """Return how many bytes a number takes at least in a binary body, by its first datatypes.

    >>> _smallest_number(b'{"inputs":[{"datatype":"FP64"},{"datatype":"INT8"}]}')
    1
    """
    start = body[:4096]
    return next((size for ending, size in _SIZES.items() if ending in start), 4)
