"""p-values: how often a row like the training rows scores as low as this one.

Each training row has an out-of-bag score, from the trees that were grown without it. So it stands
for a new row, and for a new row of the same distribution

    p = (1 + number of out-of-bag scores that are at most the row's score) / (n + 1)

is at most `a` with a probability of about `a`, for every share `a`: a conformal p-value (Vovk,
Gammerman and Shafer, Algorithmic Learning in a Random World, 2005), calibrated out of bag.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, count
from ..rows import Floats

if TYPE_CHECKING:
    from .card import Card

KEPT = 1_000
"""So many of the lowest out-of-bag scores are kept; of the others, one for each percent of rank."""

_PERCENT = 100


def kept_ranks(n: int) -> NDArray[np.int64]:
    """Return the ranks of the scores that a card keeps of `n`; 1 is the lowest score.

    >>> kept_ranks(1025)[-4:]
    array([1000, 1010, 1020, 1025])
    """
    ranks = list(range(1, min(n, KEPT) + 1))
    while ranks and ranks[-1] < n:
        ranks.append(min(n, ranks[-1] + ranks[-1] // _PERCENT))
    return np.array(ranks, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class PValues:
    """The out-of-bag scores of a model's training rows, as its card keeps them."""

    rows: int
    """n, the number of out-of-bag scores."""
    scores: Floats
    """The scores at `kept_ranks(rows)`, ascending."""

    @classmethod
    def of_card(cls, card: Card | None) -> PValues | None:
        """Return the p-values that a card knows; None if it has no out-of-bag scores."""
        found = card and card.calibration
        return cls(found.rows, np.array(found.scores)) if found and found.rows else None

    @cached_property
    def levels(self) -> Floats:
        """The p-value of a score below each kept one and not below the one before; and 1.

        Between two kept scores it is the higher of the possible values, so never too low.
        """
        levels: Floats = np.append(kept_ranks(self.rows), self.rows + 1) / (self.rows + 1)
        return levels

    @property
    def smallest(self) -> float:
        """The smallest p-value that a row can have."""
        return 1 / (self.rows + 1)

    def of(self, scores: Floats) -> Floats:
        """Return the p-value of each score (`decision_function`), in (0, 1].

        Where the card keeps not every score it is up to 1 % of itself too high.
        """
        found: Floats = self.levels[np.searchsorted(self.scores, scores, side="right")]
        return found

    def shares(self, thresholds: Floats) -> Floats:
        """Return the share of rows like training's that each threshold flags, as a bound.

        A row is flagged if its score is below the threshold; its p-value is at most this share.
        """
        found: Floats = self.levels[np.searchsorted(self.scores, thresholds, side="left")]
        return found

    def threshold(self, share: float) -> float:
        """Return the highest threshold that flags at most this share of rows like training's.

        BadInput if it is no share, or there are too few training rows for one so small.
        """
        if not 0 < share < 1:
            raise BadInput(f"a share is above 0 and below 1, not {share:g}")
        exact = share * (1 + 1e-12)  # 10 / 1000 is not always the float that was asked for
        index = int(np.searchsorted(self.levels, exact, side="right")) - 1
        if index < 0:
            raise BadInput(
                f"{count(self.rows, 'training row')} cannot promise a share of {share:g}; the "
                f"smallest is {self.smallest:.2g}: train on more rows, or choose a larger share"
            )
        return float(self.scores[min(index, len(self.scores) - 1)])


def explain_lack(card: Card | None) -> str:
    """Return why a card knows no p-values; empty if it does."""
    if card is None:
        return "it has no card"
    if card.calibration is None:
        return "its card is of an earlier version"
    return card.calibration.without


def no_share(without: str) -> str:
    """Return why no share can be promised; `without` says why there are no p-values."""
    return (
        f"this model has no p-values ({without or 'its card has none'}), so no share of flagged "
        "rows can be promised: choose a threshold instead"
    )
