"""Say in a few lines what was scored."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ..cells import is_missing, short
from ..errors import count
from ..model.encoding import NumberEncoder
from ..rows import ODD
from ..serving.detector import Detector
from .scorer import Totals


def summarize(totals: Totals, detector: Detector, seconds: float) -> list[str]:
    """Return lines about what was scored: counts, shares, odd cells, the most abnormal rows."""
    rows, card = totals.rows, detector.model.card
    lines = [f"{count(rows, 'row')} in {seconds:.1f} s"]
    if totals.rejected:
        lines.append(f"{count(totals.rejected, 'row')} rejected")
    if rows:
        share = f"{count(totals.outliers, 'outlier')}: {totals.outliers / rows:.3%}"
        if card is not None:
            share += f"; of the training rows {card.training_outlier_share:.3%}"
            share += " (at the threshold 0)" if detector.threshold else ""
        lines.append(share)
    lines += _describe_odd(totals, detector)
    if totals.top:
        lines.append("the most abnormal rows:")
    columns = detector.columns
    numbers = {
        name
        for name, (encoder, _) in zip(columns.names, columns.encoders, strict=True)
        if isinstance(encoder, NumberEncoder)
    }
    for found in totals.top:
        reasons = ", ".join(
            f"{name} {_cell(cell, name in numbers)}" for name, cell in found.reasons
        )
        lines.append(f"  {found.score:+.4f}  {found.label}, row {found.row:,}: {reasons}")
    return lines


def _describe_odd(totals: Totals, detector: Detector) -> list[str]:
    """Return a line for each kind of odd cell: the columns and their numbers."""
    kinds: dict[int, list[str]] = defaultdict(list)
    for (column, kind), number in sorted(totals.odd.items()):
        kinds[kind].append(f"{detector.columns.names[column]} {number:,}")
    return [
        f"cells {ODD[kind].replace('_', ' ')}: {', '.join(columns[:8])}"
        + (", ..." if len(columns) > 8 else "")
        for kind, columns in sorted(kinds.items())
    ]


def _cell(cell: Any, is_number: bool) -> str:
    """Return a cell as people write it: texts of a CSV file that are numbers have no quotes."""
    if is_missing(cell):
        return "missing"
    return cell.strip() if is_number and isinstance(cell, str) else short(cell)
