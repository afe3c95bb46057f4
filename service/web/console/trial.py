"""The view Try."""

from .view import Console, Data, Query, View


def read(console: Console, query: Query) -> Data:
    """Return nothing yet."""
    return {"rows": []}


VIEW = View("try", "Try", read, table="rows")
