import json
from pathlib import Path

import pytest

from service.model.card import Card, card_path
from tests.support.cards import make_card


def test_a_card_survives_writing_and_reading(write_card):
    card = write_card(score_quantiles=[0.1 + 0.2] * 100 + [1e-17])
    assert Card.from_json(card.to_json()) == card


def test_a_card_has_a_line_for_each_field_feature_and_golden_row(write_card):
    lines = write_card(n_golden=3).to_json().splitlines()
    assert sum(line.startswith(' "') for line in lines) == 19
    assert sum(line.startswith('  {"name"') for line in lines) == 2
    assert sum(line.startswith("   [") for line in lines) == 3


def test_the_card_is_stored_beside_its_model():
    assert card_path(Path("models/model.pickle")) == Path("models/model.json")


def changed(text, **changes):
    return json.dumps(json.loads(text) | changes)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[:100], "Unterminated string|Expecting"),
        (lambda text: "[]", "TypeError"),
        (lambda text: "[" * 100_000, "RecursionError"),
        (
            lambda text: changed(text, format=1),
            "format 1, .* 2: train the model again",
        ),
        (lambda text: changed(text, surplus=1), "TypeError: .*surplus"),
        (lambda text: changed(text, files=[]), "files is of the wrong type"),
        (lambda text: changed(text, training_outlier_share="x"), "training_outlier_share is of"),
        (lambda text: text.replace('"mean"', "1"), "columns is of the wrong type"),
        (lambda text: text.replace('"mean"', '"sd"'), "two columns have one name"),
        (lambda text: text.replace('"mean"', r'"\ud800"'), "the name of column 0 is not valid"),
        (lambda text: changed(text, offset=float("nan")), "NaN is not a number"),
        (lambda text: text.replace("-0.5", "-1e999"), "offset is of the wrong type"),
        (lambda text: changed(text, score_quantiles=[0.0]), "there are not 101 quantiles"),
        (lambda text: changed(text, id="mean"), "the id is not among the columns left out"),
        (lambda text: changed(text, decimal="x"), "decimal is neither a point nor a comma"),
        (
            lambda text: text.replace('"number"', '"category"'),
            "'mean' is not described as a cat",
        ),
        (lambda text: text.replace('"number"', '"date"'), "'mean' is not described as a date"),
        (lambda text: text.replace('"number"', '"shape"'), "'mean' is not described as a shape"),
        (
            lambda text: changed(text, golden={"rows": [[1]], "encoded": None, "scores": [0]}),
            "golden needs a cell for each column",
        ),
    ],
)
def test_a_damaged_card_is_refused(write_card, damage, words):
    with pytest.raises(ValueError, match=words):
        Card.from_json(damage(write_card().to_json()))


@pytest.mark.parametrize(
    "calibration, words",
    [
        ({"rows": 3, "scores": [0.1, 0.2], "without": ""}, "not those of so many rows"),
        ({"rows": 2, "scores": [0.2, 0.1], "without": ""}, "not those of so many rows"),
        ({"rows": -1, "scores": [], "without": "x"}, "not those of so many rows|must be"),
        ({"rows": 0, "scores": [], "without": ""}, "a reason why there are none"),
        ({"rows": 1e30, "scores": [], "without": ""}, "wrong type"),
    ],
)
def test_out_of_bag_scores_that_do_not_fit_are_damage(forest, samples, calibration, words):
    text = make_card(b"", forest, samples).to_json()
    fields = json.loads(text) | {"calibration": calibration}
    with pytest.raises(ValueError, match=words):
        Card.from_json(json.dumps(fields))


@pytest.mark.parametrize("found", [[0, 2], [1, 0], [1], [-1, 0]])
def test_labels_that_are_not_counted_row_by_row_are_damage(forest, samples, found):
    text = make_card(b"", forest, samples).to_json()
    labels = {"rows": 2, "held_out": False, "scores": [0.1, 0.2], "found": found}
    with pytest.raises(ValueError, match="labelled outliers are not counted"):
        Card.from_json(json.dumps(json.loads(text) | {"labels": labels}))
