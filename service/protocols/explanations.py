"""Name the features that isolated each outlier most: `?explain=K`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..rows import Floats, Rows


def encode_explanations(
    outliers: Sequence[int], rows: Rows, shares: Floats, most: int
) -> list[dict[str, Any]]:
    """Return the features that isolated each outlier most, at most `most` of them.

    `outliers` are their indices in the request, `rows` their values. `shares` are the scorer's
    contributions, (n_outliers, n_features) in steps: the most negative isolated a row most.
    """
    order = np.argsort(shares, axis=1, kind="stable")[:, :most].tolist()
    return [
        {
            "row": outlier,
            "features": [
                {"name": rows.names[j], "contribution": share[j], "value": values[j]}
                for j in chosen
            ],
        }
        for outlier, chosen, share, values in zip(outliers, order, shares, rows.values, strict=True)
    ]
