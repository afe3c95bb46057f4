import numpy as np
import pytest

from training.spread import Spread


@pytest.fixture(scope="module")
def scores():
    return -np.random.default_rng(16).beta(5, 6, 100_000).clip(1e-9, 1.0)


def spread_of(scores):
    spread = Spread()
    for part in np.array_split(scores, 7):
        spread.add(part)
    return spread


def test_quantiles_are_scores_that_occur_within_a_millionth(scores):
    shares = np.linspace(0.0, 1.0, 101)
    found = spread_of(scores).quantiles(shares)
    exact = np.quantile(scores, shares, method="inverted_cdf")
    assert np.abs(found - exact).max() < 1e-6
    assert np.isin(found, scores).all()
    assert (found[0], found[-1]) == (scores.min(), scores.max())


@pytest.mark.parametrize("percent", [0.001, 0.1, 1.0, 10.0, 50.0])
def test_a_percentile_is_numpys(scores, percent):
    spread = spread_of(scores)
    assert spread.percentile(percent) == pytest.approx(np.percentile(scores, percent), abs=1e-6)
    share = spread.share_below(spread.percentile(percent))
    assert share == pytest.approx(percent / 100, abs=2e-5)


def test_few_different_scores_have_exact_percentiles():
    scores = np.array([-0.7, -0.5, -0.5, -0.5, -0.4, -0.25])
    spread = spread_of(scores)
    for percent in (1, 10, 25, 50):
        assert spread.percentile(percent) == pytest.approx(np.percentile(scores, percent))
    assert spread.share_below(-0.5) == 1 / 6
