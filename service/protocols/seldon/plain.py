"""The plain message: one row of numbers in `data.ndarray`. Most requests are this one.

It is read and answered without the dictionaries that `messages` makes. Every other message takes
the general way; a test compares the bytes of both.
"""

from array import array

import numpy as np

from ...rows import Floats, Totals, Verdict
from ..codec import read_strict, write_plain

_MOST_BRACKETS = 5  # a plain message has four, and one more around names

_ANSWER = (
    b'{"data":{"names":[],"ndarray":[%b]},"meta":{"metrics":['
    b'{"key":"is_outlier","type":"GAUGE","value":%b.0},'
    b'{"key":"anomaly_score","type":"GAUGE","value":%b},'
    b'{"key":"nb_outliers","type":"GAUGE","value":%d},'
    b'{"key":"fraction_outliers","type":"GAUGE","value":%b},'
    b'{"key":"observation","type":"GAUGE","value":%d},'
    b'{"key":"threshold","type":"GAUGE","value":%b}],"puid":"%b"}}'
)


def read_row(body: bytes, names: tuple[str, ...]) -> Floats | None:
    """Return the row of a plain message, (1, n_features) float64; None for any other message.

    `names` are the model's features, in the order of its training table.
    """
    if body.count(b"[") + body.count(b"{") > _MOST_BRACKETS:
        return None
    try:
        match read_strict(body):
            case {"data": {"ndarray": [[*row]], **rest}, **more} if not more and (
                not rest or rest in ({"names": []}, {"names": [*names]})
            ):
                values = np.frombuffer(array("d", row))
            case _:
                return None
    except (ValueError, TypeError):  # no JSON, or a cell that is no number
        return None
    return values.reshape(1, -1) if len(row) == len(names) else None


def write_row(verdict: Verdict, totals: Totals, puid: str) -> bytes:
    """Return the answer to a plain message; `puid` consists of letters, digits and hyphens."""
    samples, outliers = totals
    label = b"1" if verdict.outliers else b"0"
    numbers = write_plain((verdict.score_sum, outliers / samples, verdict.threshold))
    score, share, threshold = numbers[1:-1].split(b",")
    return _ANSWER % (
        label, label, score, outliers, share, samples, threshold, puid.encode(),
    )  # fmt: skip
