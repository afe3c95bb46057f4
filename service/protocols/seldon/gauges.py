"""Seldon's custom metrics, for its answers and for its components."""

from typing import Any

from ...rows import Totals, Verdict


def encode_gauges(
    totals: Totals, threshold: float, verdict: Verdict | None = None
) -> list[dict[str, Any]]:
    """Return Seldon's custom metrics; those that are not defined yet are left out.

    `is_outlier` and `anomaly_score` are means over the rows of `verdict`.
    """
    gauges = []
    if verdict is not None:
        gauges.append(gauge("is_outlier", verdict.outliers / len(verdict)))
        gauges.append(gauge("anomaly_score", verdict.mean_score))
    gauges.append(gauge("nb_outliers", totals.outliers))
    if totals.samples:
        gauges.append(gauge("fraction_outliers", totals.outliers / totals.samples))
    gauges.append(gauge("observation", totals.samples))
    gauges.append(gauge("threshold", threshold))
    return gauges


def gauge(key: str, value: float) -> dict[str, Any]:
    """Return one custom metric of Seldon's."""
    return {"key": key, "type": "GAUGE", "value": value}
