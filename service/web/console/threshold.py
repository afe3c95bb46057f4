"""The view Threshold: what another threshold would flag and find, on the recorded rows."""

import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np

from ...errors import BadInput, Conflict, Unauthorized
from ...rows import Floats
from ...serving.detector import Detector
from ...serving.evidence import FEEDBACK, choose_labels
from ...serving.proposals import Evidence, Interval, Labels, Step, measure_rate
from ...serving.review import MOST_LABELS, MOST_ROWS
from ...state.record_format import Outline
from ..admin import who_asks
from .view import Console, Data, Query, View

_BINS = 64

_TAIL = 0.05  # the share of rows, at least, that the second histogram shows

_MOST_MARKS = 400  # labelled rows that are marked below a histogram


def read(console: Console, query: Query) -> Data:
    """Return what a threshold would do: `threshold` in the query, or the one that is served."""
    detector = console.predictor.detector
    seen = _see(console, detector)
    labels = seen.evidence.labels
    chosen = _read_threshold(query, detector.threshold)
    here, served = seen.describe(chosen), seen.describe(detector.threshold)
    low, high = seen.limits(chosen, detector.threshold)
    return {
        "model_version": detector.model.version,
        "served": served,
        "chosen": here,
        "is_served": chosen == detector.threshold,
        "share": detector.share,
        "recorded": len(seen.evidence.recorded),
        "rows_per_day": seen.evidence.rate,
        "recorded_seconds": seen.seconds,
        "labelled": labels.rows if labels else 0,
        "labelled_outliers": labels.outliers if labels else 0,
        "labelled_are": labels.source if labels else None,
        "only_flagged_labelled": bool(labels and labels.all_flagged),
        "can_apply": console.access.has_token,
        "low": low,
        "high": high,
        "all": seen.histogram(low, high),
        "tail": seen.histogram(low, seen.tail_end(low, high, chosen, detector.threshold)),
        "marks": _mark_rows(labels),
        "rows": seen.ladder(),
    }


def apply(console: Console, form: Query) -> str:
    """Set the threshold of a form, which has the admin token as well."""
    if not console.access.has_token:
        raise Conflict("there is no admin token (ISOSERVE_ADMIN_TOKEN), so nobody may change it")
    if not console.access.is_admin(form.get("token", "").strip()):
        raise Unauthorized("this is not the admin token; the threshold is as it was")
    threshold = _read_threshold(form, math.nan)
    if math.isnan(threshold):
        raise BadInput("the form has no threshold")
    seen = form.get("model_version", "")
    console.reloader.set_threshold(threshold, who_asks(), version=seen or "unknown")
    return urlencode({"applied": 1})


@dataclass(frozen=True)
class _Seen:
    """What the record, the feedback and the card say of the scores of one model."""

    evidence: Evidence
    training: Floats
    """The quantiles of the training rows' scores, (101,) or none."""
    seconds: float
    """From the first recorded row to the last."""

    def describe(self, threshold: float) -> Data:
        """Return what a threshold would do, as flat data."""
        return _flat(self.evidence.step(threshold), self.evidence.recorded)

    def ladder(self) -> list[Data]:
        """Return what the thresholds for some usual shares would do, the lowest first."""
        try:
            steps = self.evidence.ladder()
        except BadInput:  # nothing is known
            return []
        return [_flat(step, self.evidence.recorded) for step in steps]

    def limits(self, *thresholds: float) -> tuple[float, float]:
        """Return the ends of the axis: all scores, and these thresholds."""
        ends = np.concatenate([self.evidence.recorded, self.training, thresholds])
        room = 0.02 * (ends.max() - ends.min()) or 0.01
        return float(ends.min() - room), float(ends.max() + room)

    def tail_end(self, low: float, high: float, *thresholds: float) -> float:
        """Return where the lower end of the scores ends, for a closer look."""
        known = [scores for scores in (self.evidence.recorded, self.training) if len(scores)]
        ends = [float(np.quantile(scores, _TAIL)) for scores in known]
        middle = max([*ends, *thresholds])
        return min(high, middle + 0.25 * (middle - low))

    def histogram(self, low: float, high: float) -> Data:
        """Return the shares of recorded rows and of training's in bins from `low` to `high`."""
        edges = np.linspace(low, high, _BINS + 1)
        recorded = self.evidence.recorded
        cuts = np.searchsorted(recorded, edges, side="left")
        recent = np.diff(cuts) / max(len(recorded), 1)
        training = None
        if len(self.training):
            ranks = np.linspace(0, 1, len(self.training))
            training = np.diff(np.interp(edges, self.training, ranks)).tolist()
        return {"edges": edges.tolist(), "recent": recent.tolist(), "training": training}


def _see(console: Console, detector: Detector) -> _Seen:
    records, version, card = console.predictor.records, detector.model.version, detector.model.card
    outline = Outline.empty() if records is None else records.outline(MOST_ROWS)
    own = outline.version == version.encode()
    times = outline.time[own]
    evidence = Evidence(
        detector.pvalues,
        np.sort(outline.score[own]),
        measure_rate(times),
        choose_labels(card, version, console.matcher.store, MOST_LABELS),
    )
    training = np.array(card.score_quantiles if card else [])
    return _Seen(evidence, training, float(np.ptp(times)) if len(times) else 0.0)


def _mark_rows(labels: Labels | None) -> list[Data]:
    """Return score and truth of rows with feedback, for marks below a histogram."""
    if labels is None or labels.source != FEEDBACK:
        return []
    step = -(-labels.rows // _MOST_MARKS)  # of many rows, evenly spaced ones
    pairs = zip(labels.scores.tolist(), np.diff(labels.found, prepend=0).tolist(), strict=True)
    return [{"score": score, "truth": truth} for score, truth in [*pairs][::step]]


def _flat(step: Step, recorded: Floats) -> Data:
    """Return a step of the ladder, with the number of recorded rows that it flags."""
    flagged = int(np.searchsorted(recorded, step.threshold, side="left"))
    return {
        "threshold": step.threshold,
        "promised": step.promised,
        "flagged": flagged,
        "recorded": step.recorded,
        "per_day": step.per_day,
        **_bounds("precision", step.precision),
        **_bounds("recall", step.recall),
    }


def _bounds(name: str, interval: Interval | None) -> dict[str, Any]:
    values = interval or (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _read_threshold(query: Query, default: float) -> float:
    text = query.get("threshold", "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.inf
    if text and not abs(value) < 1:
        raise BadInput(f"a threshold is a score, between -1 and 1, not {text[:20]!r}")
    return value


def _marks(found: list[Data]) -> list[tuple[float, str]]:
    """Return what a histogram marks for some labelled rows."""
    return [(one["score"], "outlier" if one["truth"] else "alarm") for one in found]


VIEW = View("threshold", "Threshold", read, "rows", apply, helpers={"marks": _marks})
