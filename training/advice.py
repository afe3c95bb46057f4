"""Say after training which share of rows to flag, and what that gives."""

from __future__ import annotations

import numpy as np

from service.model.card import Card
from service.model.pvalues import PValues
from service.serving.proposals import Evidence, Interval, Labels, Step

_LARGEST = 0.5  # of --contamination

_USUAL, _MUCH = 0.005, 1.5  # a usual share of outliers; times as many are too many

_CLOSE = 0.2  # of the contamination: a share that differs by less is the one asked for

_STEPS = (0.5, 1.0, 2.0)  # of the share of labelled outliers


def advise(card: Card, command: str) -> dict[str, str]:
    """Return lines about p-values and the choice of a threshold, by their titles.

    `command` is the one that chooses a threshold.
    """
    found = card.calibration
    pvalues = PValues(found.rows, np.array(found.scores)) if found and found.rows else None
    labels = Labels.of_card(card)
    why = found.without if found else ""
    lines = {"p-values": f"rest on {pvalues.rows:,} rows" if pvalues else f"none: {why}"}
    if labels is not None:
        lines |= _describe_ladder(Evidence(pvalues, labels=labels), labels)
    usual = labels.outliers / labels.rows if labels else _USUAL
    is_auto = card.parameters.get("contamination") == "auto"
    if is_auto and card.training_outlier_share > _MUCH * usual:
        lines["auto"] = (
            f"flags {_percent(card.training_outlier_share)} of the rows, which is more than most "
            f"people want: choose by --contamination {_round(usual):g}, or later by {command} "
            "--budget 20/day"
        )
    return lines | _explain_ties(card)


def _explain_ties(card: Card) -> dict[str, str]:
    """Return a line where another share than the contamination is flagged.

    A row is flagged below the threshold, so rows with the score at the threshold are not.
    """
    wanted, share = card.parameters.get("contamination"), card.training_outlier_share
    if not isinstance(wanted, float):
        return {}
    difference = abs(share - wanted)
    if difference * card.rows <= 1 or difference <= _CLOSE * wanted:
        return {}
    return {
        "ties": f"{_percent(wanted)} were asked for, and {_percent(share)} are flagged: many rows "
        "have the same score, that of the threshold; more columns or more trees tell them apart"
    }


def _describe_ladder(evidence: Evidence, labels: Labels) -> dict[str, str]:
    """Return what three shares give, and propose the one of the labelled outliers."""
    share = labels.outliers / labels.rows
    if share > _LARGEST:
        return {"choose": f"{share:.1%} of your labels are 1: too many to be called outliers"}
    shares = [_round(step * share) for step in _STEPS]
    steps = {one: evidence.step(_find_threshold(evidence, labels, one)) for one in shares}
    lines = {
        f"flag {_percent(one)}": f"precision {_interval(step.precision)}, "
        f"recall {_interval(step.recall)}"
        for one, step in steps.items()
    }
    proposed = shares[1]
    lines["choose"] = (
        f"{_percent(share)} of your labels are 1: --contamination {proposed:g} gives "
        f"{_figures(steps[proposed])}"
    )
    return lines


def _find_threshold(evidence: Evidence, labels: Labels, share: float) -> float:
    """Return the threshold that flags a share: of rows like training's, else of labelled rows."""
    if evidence.pvalues is not None and share >= evidence.pvalues.smallest:
        return evidence.pvalues.threshold(share)
    return float(labels.scores[np.searchsorted(labels.ranks, share * labels.rows)])


def _round(share: float) -> float:
    """Return a share that --contamination takes, to two digits."""
    return float(f"{min(share, _LARGEST):.2g}")


def _figures(step: Step) -> str:
    precision = step.precision.share if step.precision else 0.0
    recall = step.recall.share if step.recall else 0.0
    return f"precision {precision:.2f}, recall {recall:.2f}"


def _interval(found: Interval | None) -> str:
    return f"{found.share:.2f} ({found.low:.2f}-{found.high:.2f})" if found else "0"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
