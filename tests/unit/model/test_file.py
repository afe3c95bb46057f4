import json
import logging
import pickle

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from service.errors import BadModel
from service.model.card import Card
from service.model.file import load_model


def test_a_model_is_read_with_its_card(folder, write_card, forest, samples):
    write_card()
    model = load_model(folder / "model.pickle", require_card=True)
    assert model.features == ("mean", "sd")
    assert model.named
    assert model.card.training_outlier_share == 0.125
    assert model.version == model.card.files["model.pickle"][:12]
    expected = forest.decision_function(samples)
    assert np.array_equal(model.scorer.decision_function(samples), expected)


def test_a_card_comes_back_as_it_was_written(write_card):
    card = write_card(score_quantiles=[0.1 + 0.2] * 100 + [1e-17])
    assert Card.from_json(card.to_json()) == card


def test_a_model_without_a_card_is_served_with_a_warning(folder, caplog):
    model = load_model(folder / "model.pickle")
    assert (model.card, model.features, model.named) == (None, ("f0", "f1"), False)
    assert "model.json cannot be read" in caplog.text


def damaged(text, **changes):
    return json.dumps(json.loads(text) | changes)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text[:100], "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: damaged(text, format=2), "format 2 is not 1"),
        (lambda text: damaged(text, surplus=1), "is damaged"),
        (lambda text: damaged(text, files=[]), "files is of the wrong type"),
        (lambda text: damaged(text, training_outlier_share="x"), "training_outlier_share is of"),
        (lambda text: text.replace('"mean"', "1"), "features is of the wrong type"),
        (lambda text: text.replace('"mean"', '"sd"'), "two features have one name"),
        (lambda text: damaged(text, offset=float("nan")), "NaN is not a number"),
        (lambda text: damaged(text, score_quantiles=[0.0]), "there are not 101 quantiles"),
        (lambda text: "[" * 100_000, "is damaged"),
        (lambda text: damaged(text, files={"model.pickle": "0"}), "describes another file"),
        (
            lambda text: damaged(text, golden={"rows": [[1]], "scores": [0]}),
            "golden has not a cell",
        ),
        (lambda text: text.replace("-0.5", "-1e999"), "offset is of the wrong type"),
        (
            lambda text: damaged(text, features=[], golden={"rows": [], "scores": []}),
            "names 0 features for 2",
        ),
    ],
)
def test_a_card_that_does_not_fit_is_ignored_or_refused(folder, write_card, caplog, spoil, words):
    write_card()
    place = folder / "model.json"
    place.write_text(spoil(place.read_text()))
    with caplog.at_level(logging.WARNING):
        assert load_model(folder / "model.pickle").card is None
    assert words in caplog.text
    with pytest.raises(BadModel, match="ISOSERVE_REQUIRE_CARD"):
        load_model(folder / "model.pickle", require_card=True)


def test_a_missing_file_is_told_with_what_to_do(tmp_path):
    with pytest.raises(BadModel, match=r"cannot be read.*python -m training\.train"):
        load_model(tmp_path / "model.pickle")


class Attack:
    def __reduce__(self):
        return print, ("attacked",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a pickled IsolationForest"),
        (b"not a pickle", "is not a pickled IsolationForest"),
        (pickle.dumps([1]), "holds a list"),
        (pickle.dumps(Attack()), "it holds builtins.print"),
        (pickle.dumps(IsolationForest()), "never fitted"),
    ],
)
def test_what_is_no_forest_is_refused(tmp_path, capsys, content, words):
    path = tmp_path / "model.pickle"
    path.write_bytes(content)
    with pytest.raises(BadModel, match=words):
        load_model(path)
    assert capsys.readouterr().out == ""


def test_half_a_file_is_refused(folder):
    path = folder / "model.pickle"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadModel, match="is not a pickled IsolationForest"):
        load_model(path)


def test_names_of_a_data_frame_are_kept(tmp_path, samples):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(samples, columns=["mean", "sd"])
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(IsolationForest(n_estimators=2).fit(frame)))
    model = load_model(path)
    assert (model.features, model.named) == (("mean", "sd"), True)
