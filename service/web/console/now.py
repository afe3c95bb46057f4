"""The view Now: what flows through the detector, and whether anything needs attention."""

import math
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ...serving.detector import Detector
from ...telemetry.history import SPAN, Span, quantile
from ...telemetry.readings import Readings
from .view import Console, Data, Query, View

_MINUTE = 60  # seconds over which "a second" is a mean
_LARGE_DRIFT, _MODERATE_DRIFT = 0.25, 0.1  # by convention: see model.baseline
_MOST_DRIFT = 3
_SURPRISING = 3.0  # standard deviations between the outlier share and training's
_TWICE = 2.0  # and the least ratio of the two


def read(console: Console, query: Query) -> Data:
    """Return the figures of this moment, of the last 15 minutes, and what needs attention."""
    detector, now = console.predictor.detector, time.time()
    readings = console.readings.read(detector.model, detector.threshold)
    spans = [span for span in console.history.spans() if span.start + span.seconds > now - SPAN]
    totals = readings.snapshot.totals
    data = {
        "time": now,
        "model": {
            "name": console.settings.model_name,
            "version": detector.model.version,
            "columns": len(detector.columns.names),
            "threshold": detector.threshold,
            "has_card": detector.model.card is not None,
        },
        "total": {
            "rows": totals.samples,
            "outliers": totals.outliers,
            "share": _ratio(totals.outliers, totals.samples),
        },
        "recent": _sum(spans, now),
        "training_share": readings.training_outlier_share,
        "promised_share": _promised(detector),
        "drift": _drift(readings),
        "feedback": _feedback(readings),
        "workers": readings.workers,
        "storage_up": readings.storage_up,
        "quarantined": readings.quarantined,
        "rows": [_flat(span) for span in spans],
    }
    return data | {"attention": list(_attention(data))}


def _sum(spans: Sequence[Span], now: float) -> Data:
    """Return what the spans add up to, and how much a second in the last minute."""
    last = [span for span in spans if span.start >= now - _MINUTE - 1] or spans[-1:]
    seconds = sum(span.seconds for span in last)
    rows, outliers = sum(s.rows for s in spans), sum(s.outliers for s in spans)
    buckets = tuple(map(sum, zip(*(span.buckets for span in spans), strict=True)))
    return {
        "seconds": sum(span.seconds for span in spans),
        "rows": rows,
        "outliers": outliers,
        "share": _ratio(outliers, rows),
        "mean_score": _ratio(math.fsum(span.score_sum for span in spans), rows),
        "requests": sum(span.requests for span in spans),
        "failed": sum(span.failed for span in spans),
        "rows_per_second": _ratio(sum(span.rows for span in last), seconds),
        "requests_per_second": _ratio(sum(span.requests for span in last), seconds),
        "latency_p50": quantile(buckets, 0.5),
        "latency_p99": quantile(buckets, 0.99),
    }


def _flat(span: Span) -> Data:
    """Return a span as a line of the CSV, and a point of each moving line."""
    end = span.start + span.seconds
    return {
        "time": datetime.fromtimestamp(end, UTC).isoformat(timespec="milliseconds"),
        "seconds": round(span.seconds, 3),
        "rows": span.rows,
        "outliers": span.outliers,
        "requests": span.requests,
        "failed": span.failed,
        "rows_per_second": span.rows / span.seconds,
        "requests_per_second": span.requests / span.seconds,
        "outlier_share": _ratio(span.outliers, span.rows),
        "mean_score": _ratio(span.score_sum, span.rows),
        "latency_p50": quantile(span.buckets, 0.5),
        "latency_p99": quantile(span.buckets, 0.99),
    }


def _drift(readings: Readings) -> Data:
    drift = readings.drift
    largest = [{"column": name, "psi": psi} for name, psi in drift.largest(_MOST_DRIFT)]
    return {"rows": drift.rows, "score_psi": drift.score, "largest": largest}


def _feedback(readings: Readings) -> Data | None:
    """Return what the labels say of the model; None if the storage fails."""
    if readings.summary is None:
        return None
    total, figures = readings.summary.total, readings.summary.total.figures()
    return {
        "rows": total.rows,
        "outliers": total.outliers,
        "precision": figures.get("precision"),
        "recall": figures.get("recall"),
    }


def _attention(data: Data) -> Iterator[Data]:
    """Yield a sentence for each thing that needs attention, the worst first."""

    def note(level: str, text: str, view: str = "") -> Data:
        return {"level": level, "text": text, "view": view}

    recent, largest = data["recent"], data["drift"]["largest"]
    if not data["storage_up"]:
        yield note("bad", "Feedback cannot be stored; the log says why.")
    if recent["failed"]:
        share = f"{recent['failed']:,} of {recent['requests']:,} requests"
        yield note("bad", f"{share} failed in the last 15 minutes; the log says why.")
    for one in largest:
        if one["psi"] >= _MODERATE_DRIFT:
            level = "bad" if one["psi"] >= _LARGE_DRIFT else "warn"
            size = "far" if level == "bad" else "somewhat"
            text = f"The column {one['column']} has moved {size} from training (PSI "
            yield note(level, f"{text}{one['psi']:.2f}).", "drift")
    yield from (note("warn", text, "threshold") for text in _surprise(data))
    if data["quarantined"]:
        text = f"{data['quarantined']} damaged state files were quarantined; the log names them."
        yield note("warn", text)
    if not data["model"]["has_card"]:
        text = "The model has no card, so nothing is known of its training: no drift, no usual"
        yield note("warn", f"{text} ranges, no share to compare with.", "model")


def _promised(detector: Detector) -> float | None:
    """Return the share of rows like training's that is flagged at most; None if it is unknown."""
    if detector.pvalues is None:
        return None
    return float(detector.pvalues.shares(np.array([detector.threshold]))[0])


def _surprise(data: Data) -> Iterator[str]:
    """Yield whether chance alone would hardly give the outlier share of the last 15 minutes."""
    expected, recent = data["promised_share"] or data["training_share"], data["recent"]
    if expected is None or not recent["rows"] or not 0 < expected < 1:
        return
    rows, share = recent["rows"], recent["share"]
    deviation = (share - expected) / math.sqrt(expected * (1 - expected) / rows)
    if abs(deviation) < _SURPRISING:
        return
    if share >= _TWICE * expected:
        yield f"{share / expected:,.1f} times as many rows are flagged as in training."
    elif share <= expected / _TWICE:
        yield f"Fewer rows are flagged than in training: {share:.2%} and not {expected:.2%}."


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def lines(
    rows: Sequence[Data], *names: str, factor: float = 1, level: float | None = None
) -> list[list[Any]]:
    """Return the points of moving lines: times in seconds since 1970, and the values of each.

    `level` is a line of its own, which does not move.

    >>> lines([{"time": "1970-01-01T00:00:05+00:00", "rows": 3}], "rows", factor=2)
    [[5.0], [6.0]]
    """
    times = [datetime.fromisoformat(row["time"]).timestamp() for row in rows]

    def scaled(value: float | None) -> float | None:
        return None if value is None else float(f"{value * factor:.4g}")

    points: list[list[Any]] = [times, *([scaled(row[name]) for row in rows] for name in names)]
    if level is not None:
        points.append([scaled(level)] * len(rows))
    return points


VIEW = View("now", "Now", read, table="rows", helpers={"lines": lines})
