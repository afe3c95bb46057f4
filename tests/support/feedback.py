"""Add feedback to a store, and recount its database independently of the store."""

import sqlite3
from collections import Counter
from contextlib import closing

from service.truths import Confusion, ScoredRow, Statement


def row(label, row_index=0, recorded=True, version="v1", score=0.1):
    return ScoredRow(row_index, label, score, version, recorded)


def add_truth(store, puid, label, truth, **about):
    """Store the truth of a prediction's first row."""
    return store.add(Statement(puid, truths=(truth,)), [row(label, **about)])


def query(path, statement):
    """Query a database on a separate connection."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def recount(path, last=-1):
    """Count the table of truths: all rows, or the `last` ones."""
    pairs = query(path, f"SELECT label, truth FROM truths ORDER BY id DESC LIMIT {last}")
    return Confusion.count(Counter(pairs))
