"""The view Review."""

from .view import Console, Data, Query, View


def read(console: Console, query: Query) -> Data:
    """Return nothing yet."""
    return {"rows": []}


VIEW = View("review", "Review", read, table="rows")
