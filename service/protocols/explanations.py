"""Name the features that isolated each outlier most: `?explain=K`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..rows import Floats


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
