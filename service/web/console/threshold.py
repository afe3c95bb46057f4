"""The view Threshold."""

from .view import Console, Data, Query, View


def read(console: Console, query: Query) -> Data:
    """Return nothing yet."""
    return {"rows": []}


VIEW = View("threshold", "Threshold", read, table="rows")
