"""What training says about the choice of a threshold."""

from dataclasses import replace

import numpy as np
import pytest

from service.model.card import LabelCurve
from tests.support.cards import calibration, make_card
from training.advice import advise

SCORES = np.sort(np.random.default_rng(9).normal(size=1_000))


@pytest.fixture
def card(forest, samples):
    fields = {"calibration": calibration(SCORES), "parameters": {"contamination": "auto"}}
    return make_card(b"", forest, samples, **fields)


def label(card, found):
    """Return the card of a table whose rows have labels: the outliers up to each row's score."""
    return replace(card, labels=LabelCurve(1_000, False, SCORES.tolist(), found))


def test_without_labels_one_line_says_that_auto_flags_more_than_most_want_and_how_to_choose(card):
    assert advise(card, "COMMAND") == {
        "p-values": "rest on 1,000 rows",
        "auto": "flags 12 % of the rows, which is more than most people want: choose by "
        "--contamination 0.005, or later by COMMAND --budget 20/day",
    }
    assert "auto" not in advise(replace(card, training_outlier_share=0.006), "")
    assert "auto" not in advise(replace(card, parameters={"contamination": 0.2}), "")


def test_labels_give_three_steps_and_the_share_of_the_labelled_outliers(card):
    truths = np.zeros(1_000, int)
    truths[[*range(15), *range(30, 35)]] = 1  # of the 20 lowest scores 15 are outliers
    lines = advise(label(card, np.cumsum(truths).tolist()), "COMMAND")
    titles = ["p-values", "flag 1 %", "flag 2 %", "flag 4 %", "choose", "auto"]
    assert list(lines) == titles
    assert lines["flag 4 %"] == "precision 0.51 (0.36-0.66), recall 1.00 (0.84-1.00)"
    assert lines["choose"] == (
        "2 % of your labels are 1: --contamination 0.02 gives precision 0.79, recall 0.75"
    )
    assert "--contamination 0.02, or later" in lines["auto"]


def test_labels_that_are_mostly_1_are_said_to_be(card):
    lines = advise(label(card, list(range(1, 701)) + [700] * 300), "COMMAND")
    assert lines["choose"] == "70.0% of your labels are 1: too many to be called outliers"


def test_a_card_without_p_values_says_why(card):
    lines = advise(replace(card, calibration=calibration([])), "COMMAND")
    assert lines["p-values"] == "none: too few trees"
    truths = [1] * 1_000
    assert advise(label(replace(card, calibration=calibration([])), truths), "C")["flag 0.1 %"]


@pytest.mark.parametrize(
    ("share", "line"),
    [
        (
            0.0133,
            "10 % were asked for, and 1.3 % are flagged: many rows have the same score, that ",
        ),
        (0.09, ""),
        (0.1, ""),
    ],
)
def test_a_share_that_ties_made_another_is_told(card, share, line):
    tied = replace(card, parameters={"contamination": 0.1}, training_outlier_share=share)
    assert advise(tied, "").get("ties", "")[: len(line) or None] == line


def test_the_share_of_a_short_table_is_as_close_as_a_row_can_make_it(card):
    short = replace(card, rows=60, parameters={"contamination": 0.005})
    assert "ties" not in advise(replace(short, training_outlier_share=1 / 60), "")
