"""p-values count the training rows that score at most as high."""

import numpy as np
import pytest

from service.errors import BadInput
from service.model.pvalues import PValues, kept_ranks


def keep(scores):
    """Return the p-values of out-of-bag scores, as a card would keep them."""
    return PValues(len(scores), np.sort(scores)[kept_ranks(len(scores)) - 1])


def test_a_p_value_counts_the_scores_that_are_at_most_as_high():
    found = keep(np.array([-0.3, -0.1, -0.1, 0.2]))
    asked = np.array([-0.4, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3])
    assert (found.of(asked) * 5).round(9).tolist() == [1, 2, 2, 4, 4, 5, 5]
    assert found.smallest == 1 / 5


@pytest.mark.parametrize("n", [1, 2, 999, 1_000, 1_001, 50_000])
def test_kept_scores_give_p_values_that_are_never_too_low_and_at_most_one_percent_too_high(n):
    scores = np.random.default_rng(n).normal(size=n).round(4)  # with ties
    asked = np.concatenate([scores, scores + 1e-9, scores - 1e-9, [-9.0, 9.0]])
    exact = (1 + np.searchsorted(np.sort(scores), asked, side="right")) / (n + 1)
    found = keep(scores).of(asked)
    assert (found >= exact).all()
    assert (found <= exact * 1.01).all()
    low = exact * (n + 1) <= 1_000
    assert np.array_equal(found[low], exact[low])


@pytest.mark.parametrize("share", [0.001, 0.005, 0.01, 0.05, 0.3, 0.999])
@pytest.mark.parametrize("n", [999, 20_000])
def test_a_row_is_below_the_threshold_of_a_share_when_its_p_value_is_at_most_that_share(n, share):
    scores = np.random.default_rng(7).normal(size=n)
    found = keep(scores)
    threshold = found.threshold(share)
    asked = np.concatenate([scores, [threshold], np.nextafter([threshold, threshold], [-9, 9])])
    assert np.array_equal(asked < threshold, found.of(asked) <= share)
    assert found.shares(np.array([threshold]))[0] <= share * (1 + 1e-12)


def test_too_few_rows_have_no_threshold_for_a_small_share():
    found = keep(np.arange(99.0))
    assert found.threshold(0.01) == 0.0  # only a row below all 99 others is flagged
    with pytest.raises(BadInput, match="99 training rows cannot promise a share of"):
        found.threshold(0.0099)


def test_ranks_of_a_table_of_millions_are_few():
    ranks = kept_ranks(10_000_000)
    assert ranks[-1] == 10_000_000 and len(ranks) < 2_000
    assert kept_ranks(0).size == 0
