"""Choosing a threshold: every figure equals a recount."""

import numpy as np
import pytest

from service.errors import BadInput
from service.model.pvalues import PValues, kept_ranks
from service.serving.proposals import Cost, Evidence, Interval, Labels, measure_rate

RNG = np.random.default_rng(22)
TRAINING = np.sort(RNG.normal(size=4_000))
RECORDED = np.sort(RNG.normal(size=2_500).round(2))  # with ties
TRUTHS = (RNG.random(3_000) < 0.02).astype(np.int64)
SCORES = np.where(TRUTHS, RNG.normal(-2, 1, 3_000), RNG.normal(size=3_000)).round(2)


@pytest.fixture
def pvalues():
    return PValues(len(TRAINING), TRAINING[kept_ranks(len(TRAINING)) - 1])


@pytest.fixture
def evidence(pvalues):
    return Evidence(pvalues, RECORDED, 50_000.0, Labels.of(SCORES, TRUTHS, "training rows"))


def test_wilsons_interval_is_that_of_the_textbook():
    assert Interval.of(0, 0) is None
    share, low, high = Interval.of(0, 10)
    assert (share, low, round(high, 4)) == (0.0, 0.0, 0.2775)
    assert [round(x, 4) for x in Interval.of(81, 263)] == [0.308, 0.2553, 0.3662]  # Newcombe, 1998


def test_each_figure_of_a_step_equals_a_recount(evidence):
    for step in evidence.ladder(Cost(1, 50)):
        flagged = step.threshold > SCORES
        found = int((flagged & (TRUTHS == 1)).sum())
        assert step.recorded == (step.threshold > RECORDED).mean()
        assert step.per_day == step.recorded * 50_000
        assert step.precision == Interval.of(found, int(flagged.sum()))
        assert step.recall == Interval.of(found, int(TRUTHS.sum()))
        spent = (flagged.sum() - found) + 50 * (TRUTHS.sum() - found)
        assert step.cost == pytest.approx(1000 * spent / 3_000)
        exact = (1 + (step.threshold > TRAINING).sum()) / 4_001
        assert exact <= step.promised <= exact * 1.01
    assert len(evidence.ladder()) == 7


@pytest.mark.parametrize("share", [0, 1.0, 1.5, -1])
def test_a_share_is_above_0_and_below_1(evidence, share):
    with pytest.raises(BadInput, match="above 0 and below 1"):
        evidence.at_share(share)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2])
def test_a_share_flags_at_most_this_share_of_rows_like_trainings(evidence, share):
    step = evidence.at_share(share)
    assert 0.9 * share < step.promised <= share * (1 + 1e-12)


def test_a_budget_is_kept_on_the_recorded_rows_and_not_wasted(evidence):
    step = evidence.at_budget(1_000)
    assert step.per_day <= 1_000
    above = np.unique(RECORDED)[np.searchsorted(np.unique(RECORDED), step.threshold) + 1]
    assert evidence.step(above).per_day > 1_000


def test_a_small_budget_rests_on_p_values_and_a_large_one_flags_all_but_one(evidence):
    step = evidence.at_budget(50)  # 1 in 1,000: two and a half recorded rows
    assert step.promised <= 0.001
    assert step.threshold == evidence.at_share(0.001).threshold
    assert evidence.at_budget(1e9).recorded > 0.99


def test_the_cheapest_threshold_is_cheaper_than_any_other(evidence):
    step = evidence.at_cost(Cost(1, 30))
    others = [evidence.step(one, Cost(1, 30)).cost for one in np.linspace(-5, 5, 2_001)]
    assert step.cost <= min(others)
    assert evidence.at_cost(Cost(1, 0)).precision is None  # flagging nothing costs nothing


@pytest.mark.parametrize("recall", [0.1, 0.5, 0.95, 1.0])
def test_a_recall_is_reached_with_as_few_flagged_rows_as_possible(evidence, recall):
    step = evidence.at_recall(recall)
    assert step.recall.share >= recall
    lower = SCORES[step.threshold > SCORES].max()
    assert evidence.step(lower).recall.share < recall


def test_labels_of_flagged_rows_say_nothing_of_recall_and_of_higher_thresholds():
    labels = Labels.of(np.array([-0.3, -0.2, -0.1]), np.array([1, 0, 1]), "feedback", True)
    evidence = Evidence(labels=labels)
    step = evidence.step(-0.15)
    assert (step.precision, step.recall) == (Interval.of(1, 2), None)
    assert evidence.step(0.2).precision is None
    for ask in (lambda: evidence.at_recall(0.5), lambda: evidence.at_cost(Cost(1, 2))):
        with pytest.raises(BadInput, match="rows that were not flagged"):
            ask()


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda one: one.at_share(0.01), "no p-values"),
        (lambda one: one.at_budget(20), "rows a day are not known"),
        (lambda one: one.at_budget(-1), "above 0"),
        (lambda one: one.at_recall(0.5), "train with --label, or send feedback"),
        (lambda one: one.at_recall(2), "at most 1"),
        (lambda one: one.ladder(), "nothing is known about the scores"),
    ],
)
def test_what_is_not_known_is_said(ask, words):
    with pytest.raises(BadInput, match=words):
        ask(Evidence())


def test_a_share_smaller_than_one_row_of_training_is_refused(evidence):
    with pytest.raises(BadInput, match="4,000 training rows cannot promise a share of"):
        evidence.at_share(0.0001)


def test_a_ladder_is_made_of_recorded_rows_or_labels_where_there_are_no_p_values(evidence):
    recorded = Evidence(recorded=RECORDED).ladder()
    assert all(step.promised is None and step.recorded <= 0.05 for step in recorded)
    labelled = Evidence(labels=evidence.labels).ladder()
    assert labelled[-1].precision and labelled[-1].recorded is None


def test_labels_at_some_ranks_are_at_most_one_percent_off():
    scores, truths = RNG.normal(size=50_000), (RNG.random(50_000) < 0.3).astype(np.int64)
    whole = Labels.of(scores, truths, "")
    kept = kept_ranks(50_000)
    some = Labels(whole.scores[kept - 1], kept, whole.found[kept - 1], "")
    assert (some.rows, some.outliers) == (whole.rows, whole.outliers)
    for threshold in (-5.0, -3.0, -1.0, 0.0, 5.0):
        exact, found = whole.below(threshold)
        near = some.below(threshold)
        assert exact * 0.99 <= near[0] <= exact
        assert near == (exact, found) or exact > 1_000


def test_the_rate_is_that_of_the_recorded_times():
    assert measure_rate(np.linspace(0, 3_600, 101)) == pytest.approx(2_400)
    assert measure_rate(np.full(50, 7.0)) is None
    assert measure_rate(np.arange(3.0)) is None
