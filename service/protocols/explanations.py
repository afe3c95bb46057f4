"""Name the features that isolated each outlier, no more of them than an answer can hold."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import TooLarge, count
from ..rows import Floats

MOST_EXPLAINED = 10_000
"""The largest number of features that one answer names, all its outliers together."""

MOST_CONTRIBUTIONS = 1_000_000
"""The largest number of contributions in one answer: about 20 MB of JSON."""


def check_explained(n_rows: int, width: int, most: int) -> None:
    """Raise TooLarge if `most` features of each row could take hundreds of megabytes."""
    named = n_rows * min(most, width)
    if named > MOST_EXPLAINED:
        raise TooLarge(
            f"explain={most} of {count(n_rows, 'row')} may name {named:,} features; at most "
            f"{MOST_EXPLAINED:,}: send fewer rows, or ask for fewer features"
        )


def check_contributions(n_rows: int, width: int) -> None:
    """Raise TooLarge if the contributions of all rows could take gigabytes."""
    if n_rows * width > MOST_CONTRIBUTIONS:
        raise TooLarge(
            f"contributions of {count(n_rows, 'row')} and {count(width, 'feature')} are "
            f"{n_rows * width:,} numbers; at most {MOST_CONTRIBUTIONS:,}: send fewer rows"
        )


def encode_explanations(
    outliers: Sequence[int],
    names: Sequence[str],
    cells: Sequence[Sequence[Any]],
    shares: Floats,
    most: int,
) -> list[dict[str, Any]]:
    """Return the columns that isolated each outlier most, at most `most` of them.

    `outliers` are their indices in the request, `cells` the client's cells in the columns `names`.
    `shares` are the columns' contributions, (n_outliers, n_columns) in steps: the most negative
    isolated a row most.
    """
    order = np.argsort(shares, axis=1, kind="stable")[:, :most].tolist()
    return [
        {
            "row": outlier,
            "features": [
                {"name": names[j], "contribution": share[j], "value": values[j]} for j in chosen
            ],
        }
        for outlier, chosen, share, values in zip(outliers, order, shares, cells, strict=True)
    ]
