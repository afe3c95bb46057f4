import logging
import os
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest

from service.errors import BadModel
from service.model.card import Golden
from service.model.file import load_model
from tests.support.cards import make_card, number
from tests.support.hostile import by_joblib


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
    ],
)
def test_a_card_that_does_not_fit_is_ignored_or_refused(folder, write_card, caplog, changes, words):
    write_card(**changes)
    with caplog.at_level(logging.WARNING):
        assert load_model(folder / "model.pickle").card is None
    assert re.search(words, caplog.text)
    with pytest.raises(BadModel, match="ISOSERVE_REQUIRE_CARD"):
        load_model(folder / "model.pickle", require_card=True)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            (),
            r"model.json has 0 columns, and the forest 2; write the card anew: .*training.describe",
        ),
        (("sd", "mean"), "in another order .*column 0 is 'sd', there 'mean'"),
    ],
)
@pytest.mark.parametrize("require", [False, True])
def test_a_card_that_contradicts_its_forest_is_refused(tmp_path, samples, names, words, require):
    """Its names would give rows with names the scores of other columns."""
    frame = pd.DataFrame(samples, columns=["mean", "sd"])
    forest = IsolationForest(n_estimators=2, random_state=16).fit(frame)
    content = pickle.dumps(forest)
    columns = [number(name) for name in names]
    card = make_card(
        content, forest, frame, n_golden=0, columns=columns, golden=Golden([], None, [])
    )
    (tmp_path / "model.pickle").write_bytes(content)
    (tmp_path / "model.json").write_text(card.to_json())
    with pytest.raises(BadModel, match=words) as refusal:
        load_model(tmp_path / "model.pickle", require)
    assert refusal.value.reason == "card"


def test_a_forest_that_knows_missing_values_takes_them_without_a_card(tmp_path, samples):
    gaps = np.where(np.random.default_rng(16).random(samples.shape) < 0.1, np.nan, samples)
    for table, expected in ((gaps, True), (samples, False)):
        forest = IsolationForest(n_estimators=10, random_state=16).fit(table)
        (tmp_path / "model.joblib").write_bytes(by_joblib(forest))
        assert load_model(tmp_path / "model.joblib").knows_gaps is expected


def test_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "model.pickle")
    with pytest.raises(BadModel, match="it is not a file"):
        load_model(tmp_path / "model.pickle")


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
        (b"", "is not a saved IsolationForest"),
        (b"not a pickle", "is not a saved IsolationForest"),
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
    with pytest.raises(BadModel, match="is not a saved IsolationForest"):
        load_model(path)


def test_column_names_of_a_data_frame_are_kept(tmp_path, samples):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(samples, columns=["mean", "sd"])
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(IsolationForest(n_estimators=2).fit(frame)))
    model = load_model(path)
    assert (model.features, model.named) == (("mean", "sd"), True)
