import logging
import pickle
import re

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from service.errors import BadModel
from service.model.card import Golden
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


def test_a_model_without_a_card_is_served_with_a_warning(folder, caplog):
    model = load_model(folder / "model.pickle")
    assert (model.card, model.features, model.named) == (None, ("f0", "f1"), False)
    assert "model.json cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offset": "high"}, r"is damaged \(offset is of the wrong type\)"),
        ({"files": {"model.pickle": "0"}}, "describes another file"),
        ({"features": [], "golden": Golden([], [])}, "names 0 features for 2"),
    ],
)
def test_a_card_that_does_not_fit_is_ignored_or_refused(folder, write_card, caplog, changes, words):
    write_card(**changes)
    with caplog.at_level(logging.WARNING):
        assert load_model(folder / "model.pickle").card is None
    assert re.search(words, caplog.text)
    with pytest.raises(BadModel, match="ISOSERVE_REQUIRE_CARD"):
        load_model(folder / "model.pickle", require_card=True)


def test_a_card_that_is_not_text_is_damaged(folder, caplog):
    (folder / "model.json").write_bytes(b"\xff")
    assert load_model(folder / "model.pickle").card is None
    assert "model.json is damaged" in caplog.text


def test_the_error_for_a_missing_file_says_how_to_create_one(tmp_path):
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
def test_a_file_without_a_forest_is_refused(tmp_path, capsys, content, words):
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


def test_column_names_of_a_data_frame_are_kept(tmp_path, samples):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(samples, columns=["mean", "sd"])
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(IsolationForest(n_estimators=2).fit(frame)))
    model = load_model(path)
    assert (model.features, model.named) == (("mean", "sd"), True)
