"""A forest of one's own gets a card."""

import pickle
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline

from service.model.file import load_model
from training.describe import main


@pytest.fixture
def frame(samples, tmp_path):
    table = pd.DataFrame(samples[:500], columns=["mean", "sd"])
    table.assign(id=range(500)).to_csv(tmp_path / "my.csv", index=False)
    return table


def test_a_joblib_file_is_served_with_the_card_of_its_table(tmp_path, frame):
    model, table = tmp_path / "m.joblib", tmp_path / "my.csv"
    forest = IsolationForest(n_estimators=5, random_state=1).fit(frame[["sd", "mean"]])
    joblib.dump(forest, model, compress=3)
    assert main([str(model), str(table)]) == 0
    served = load_model(model, require_card=True)
    assert served.features == ("sd", "mean")  # the forest's own names choose the columns
    expected = forest.decision_function(frame[["sd", "mean"]])
    assert np.array_equal(served.scorer.decision_function(frame[["sd", "mean"]]), expected)


def test_other_columns_than_the_forests_are_refused(tmp_path, frame, capsys):
    model = tmp_path / "m.pickle"
    model.write_bytes(pickle.dumps(IsolationForest(n_estimators=2).fit(frame)))
    assert main([str(model), str(tmp_path / "my.csv"), "--keep-cols", "sd,mean"]) == 1
    assert (
        "in another order than the table that the forest was fitted on" in capsys.readouterr().err
    )
    assert not (tmp_path / "m.json").exists()


def test_what_is_no_forest_is_refused_with_the_sentence_of_the_service(tmp_path, frame, capsys):
    model = tmp_path / "m.pickle"
    model.write_bytes(pickle.dumps(make_pipeline(IsolationForest())))
    assert main([str(model), str(tmp_path / "my.csv")]) == 1
    assert "fit the IsolationForest on the raw columns" in capsys.readouterr().err


def test_an_environment_for_serving_says_what_training_needs(tmp_path, monkeypatch, capsys):
    for module in [name for name in sys.modules if name.split(".")[0] in ("sklearn", "training")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    from training import describe, train

    for command, arguments in ((train.main, []), (describe.main, [str(tmp_path), str(tmp_path)])):
        assert command(arguments) == 1
        assert "sklearn is not installed" in capsys.readouterr().err
