"""The view Now."""

from .view import Console, Data, Query, View


def read(console: Console, query: Query) -> Data:
    """Return nothing yet."""
    return {"rows": []}


VIEW = View("now", "Now", read, table="rows")
