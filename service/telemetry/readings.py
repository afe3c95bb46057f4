"""The values on the metrics page, read at each scrape."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .. import __version__
from ..model.baseline import Drift
from ..model.card import Card
from ..model.file import Model
from ..model.pvalues import PValues
from ..settings import Settings
from ..state.counts import Counts, Snapshot
from ..state.feedback.store import FeedbackStore
from ..state.files import count_quarantined
from ..state.folder import measure_space
from ..state.generations import Changes
from ..state.low_pvalues import LowPValues
from ..state.odd_cells import OddCells
from ..truths import FeedbackSummary
from .drift import DriftWatch


@dataclass(frozen=True)
class Readings:
    """All values on the metrics page."""

    snapshot: Snapshot
    threshold: float
    model_info: Mapping[str, str]
    """Labels of isoserve_model_info."""
    seldon_labels: dict[str, str]
    training_outlier_share: float | None = None
    """Share (0 to 1) of the training rows below the threshold; None without a card."""
    drift: Drift = field(default_factory=Drift)
    odd_cells: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Odd cells, which are unlike all of training's, by (column, kind)."""
    share: float | None = None
    """The share of rows (0 to 1) that the threshold was chosen for, if it was."""
    calibrated: int | None = None
    """The training rows that p-values rest on; None without p-values."""
    low_pvalues: Mapping[float, int] = field(default_factory=dict)
    """Rows with a low p-value, by level."""
    changes: Changes = field(default_factory=Changes)
    """Changes of the model and the threshold."""
    summary: FeedbackSummary | None = None
    """Summary of the feedback; None if it cannot be read."""
    storage_up: bool = True
    workers: int = 0
    """Worker processes that are alive."""
    space: tuple[int, int] | None = None
    """Total and free bytes of the state folder's file system; None if they are unknown."""
    quarantined: int | None = None
    """Quarantined files in the state folder; None if it cannot be read."""


@dataclass(frozen=True)
class Sources:
    """Where the readings come from."""

    settings: Settings
    counts: Counts
    feedback: FeedbackStore
    changes: Callable[[], Changes]
    drift: DriftWatch | None
    odd_cells: OddCells
    low_pvalues: LowPValues

    def read(
        self,
        model: Model,
        threshold: float,
        share: float | None = None,
        pvalues: PValues | None = None,
    ) -> Readings:
        """Return the current readings of a service with this model and threshold.

        `share` is the one that the threshold was chosen for, if it was.
        """
        summary, storage_up = self.feedback.survey()
        return Readings(
            snapshot=self.counts.read(),
            threshold=threshold,
            model_info={
                "name": self.settings.model_name,
                "version": model.version,
                "features": str(len(model.features)),
                "isoserve": __version__,
            },
            seldon_labels=seldon_labels(self.settings),
            training_outlier_share=training_share(model.card, threshold, pvalues)
            if model.card
            else None,
            drift=self.drift.latest() if self.drift else Drift(),
            odd_cells=self.odd_cells.read(),
            share=share,
            calibrated=pvalues.rows if pvalues else None,
            low_pvalues=_possible(self.low_pvalues.read(), pvalues),
            changes=self.changes(),
            summary=summary,
            storage_up=storage_up,
            workers=self.counts.processes(),
            space=measure_space(self.settings.state_dir),
            quarantined=count_quarantined(self.settings.state_dir),
        )


def _possible(low: Mapping[float, int], pvalues: PValues | None) -> dict[float, int]:
    """Return the levels that p-values of this model can reach."""
    if pvalues is None:
        return {}
    return {level: rows for level, rows in low.items() if level >= pvalues.smallest}


def training_share(card: Card, threshold: float, pvalues: PValues | None = None) -> float:
    """Return the share (0 to 1) of the training rows with a score below a threshold.

    It is exact for the threshold 0. Else it is that of the out-of-bag scores; without these it is
    interpolated between the percentiles of the card.
    """
    if threshold == 0:
        return card.training_outlier_share
    if pvalues is not None:
        return float(pvalues.shares(np.array([threshold]))[0])
    shares = np.linspace(0, 1, len(card.score_quantiles))
    return float(np.interp(threshold, card.score_quantiles, shares))


def seldon_labels(settings: Settings) -> dict[str, str]:
    """Return the labels that Seldon's wrapper puts on each metric, without the worker's pid."""
    image, _, version = settings.model_image.rpartition(":")
    values = {
        "deployment_name": settings.deployment_name,
        "model_name": settings.model_name,
        "model_image": image,
        "model_version": version,
        "predictor_name": settings.predictor_name,
        "predictor_version": settings.predictor_version,
        "seldon_deployment_name": settings.deployment_name,
        "image_name": image,
        "image_version": version,
    }
    known = {name: value or "NOT_IMPLEMENTED" for name, value in values.items()}
    return known | {"method": "predict"}
