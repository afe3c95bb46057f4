import hashlib
import json
import os
import pickle
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest

from service.errors import CannotTrain
from service.model.card import Card
from service.model.content import read_model_file
from service.model.file import load_fitted, load_model
from training.datasets import Dataset, held_out_spending, spending
from training.export import check_folder, describe, save_model
from training.forest import fit_forest


@pytest.fixture(scope="module")
def dataset(samples):
    """1,000 rows, a twentieth of them labelled as outliers."""
    labels = (samples[:1000, 0] > np.quantile(samples[:1000, 0], 0.95)).astype(np.int64)
    return Dataset.of_numbers("test", samples[:1000], ("mean", "sd"), labels=labels)


@pytest.fixture(scope="module")
def fitted(dataset):
    return fit_forest(dataset.X, contamination=0.05, n_estimators=10, seed=7)


@pytest.fixture(scope="module")
def card(fitted, dataset):
    return describe(fitted, dataset)


def test_the_service_loads_a_trained_model(tmp_path, fitted, card, dataset):
    path = save_model(tmp_path / "new" / "folder", fitted, card)
    model = load_model(path, require_card=True)
    assert model.features == ("mean", "sd")
    assert np.array_equal(
        model.scorer.decision_function(dataset.X), fitted.decision_function(dataset.X)
    )


def test_the_pickle_contains_no_class_of_isoserve(tmp_path, fitted, card):
    path = save_model(tmp_path, fitted, card)
    content = path.read_bytes()
    assert content[:2] == b"\x80\x05"  # protocol 5
    assert not any(name in content for name in (b"training", b"service", b"pandas"))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).predict([[9, 9]]))"
    loaded = subprocess.run(
        [sys.executable, "-c", code, path], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert loaded.stdout == "[-1]\n"


def test_the_card_describes_the_training(card, fitted, dataset):
    assert (card.dataset, card.rows, card.seed) == ("test", 1000, 7)
    assert [(c.name, c.type) for c in card.columns] == [("mean", "float"), ("sd", "float")]
    assert card.parameters == fitted.get_params()
    assert card.offset == fitted.offset_
    assert card.training_outlier_share == (fitted.decision_function(dataset.X) < 0).mean() == 0.05
    assert card.versions.keys() == {"isoserve", "python", "numpy", "scikit-learn"}
    assert card.created.endswith("+00:00")


def test_quantiles_are_values_of_the_table(card, dataset, fitted):
    for feature, column in zip(card.columns, dataset.X.T, strict=True):
        assert len(feature.quantiles) == 101
        assert np.isin(feature.quantiles, column).all()
        assert (feature.quantiles[0], feature.quantiles[100]) == (column.min(), column.max())
    scores = fitted.decision_function(dataset.X)
    assert np.isin(card.score_quantiles, scores).all()
    assert (
        (scores <= card.score_quantiles[30]).mean()
        >= 0.3
        > (scores < card.score_quantiles[30]).mean()
    )


def test_golden_rows_span_the_range_of_scores(card, fitted, dataset):
    scores = fitted.decision_function(dataset.X)
    assert len(card.golden.rows) == len(card.golden.scores) == 32
    assert np.array_equal(fitted.decision_function(card.golden.rows), card.golden.scores)
    assert card.golden.scores == sorted(card.golden.scores)
    assert (card.golden.scores[0], card.golden.scores[-1]) == (scores.min(), scores.max())


def test_a_table_of_fewer_rows_has_fewer_golden_rows(samples):
    small = Dataset.of_numbers("small", samples[:5], ("a", "b"))
    card = describe(fit_forest(small.X, n_estimators=3), small)
    assert sorted(card.golden.rows) == sorted(small.X.tolist())


def test_the_card_is_exact_and_readable(tmp_path, fitted, card):
    path = save_model(tmp_path, fitted, card)
    text = (tmp_path / "model.json").read_text()
    read = Card.from_json(text)
    assert read == replace(
        card, files={"model.pickle": hashlib.sha256(path.read_bytes()).hexdigest()}
    )
    assert json.loads(text) | {"pool": None} == json.loads(json.dumps(asdict(read)))
    golden = [line for line in text.splitlines() if line.strip().startswith("[")]
    assert len(golden) == 32  # one line a row


def test_missing_cells_are_null(samples):
    X = samples[:500].copy()
    X[:490, 0] = np.nan
    X[:, 1] = np.nan
    gaps = Dataset.of_numbers("gaps", X, ("a", "b"))
    card = describe(fit_forest(X, n_estimators=3), gaps)
    assert [column.missing for column in card.columns] == [490, 500]
    assert card.columns[1].quantiles == [None] * 101
    assert None in card.golden.rows[0]
    assert "NaN" not in card.to_json()


def test_the_forest_is_evaluated_by_labels(card, fitted, dataset):
    quality = card.quality
    found = fitted.decision_function(dataset.X) < 0
    hits = (found & (dataset.labels == 1)).sum()
    assert (quality.rows, quality.outliers, quality.held_out) == (1000, 50, False)
    assert quality.precision == hits / found.sum()
    assert quality.recall == hits / 50
    assert 0.4 < quality.average_precision < quality.roc_auc < 1


def test_recall_is_reported_by_kind_of_outlier_if_known(fitted, dataset):
    far = fitted.decision_function(dataset.X) < -0.02
    kinds = np.where(dataset.labels == 0, "normal", np.where(far, "glaring", "mild"))
    recalls = describe(fitted, replace(dataset, kinds=kinds)).quality.recall_by_kind
    assert recalls.keys() == {"glaring", "mild"}
    assert recalls["glaring"] == 1.0 > recalls["mild"]


@pytest.mark.parametrize("labels", [None, np.zeros(1000, dtype=int), np.ones(1000, dtype=int)])
def test_without_both_labels_there_is_no_quality(fitted, dataset, labels):
    assert describe(fitted, replace(dataset, labels=labels)).quality is None


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_a_forest_fitted_in_a_notebook_can_be_saved(tmp_path):
    train = spending()
    forest = IsolationForest(n_estimators=5, contamination=0.001, random_state=16)
    forest.fit(pd.DataFrame(train.X, columns=train.features))
    path = save_model(str(tmp_path), forest, describe(forest, train, held_out_spending()))
    assert load_model(path, require_card=True).features == ("mean", "sd")


def test_parameters_from_numpy_are_described_as_json_has_them(dataset):
    forest = IsolationForest(
        n_estimators=np.int64(2), warm_start=np.bool_(False), contamination=np.float32(0.125),
        random_state=np.random.RandomState(1),
    ).fit(dataset.X)  # fmt: skip
    card = Card.from_json(describe(forest, dataset).to_json())
    assert (card.seed, card.parameters["n_estimators"]) == (None, 2)
    assert card.parameters["random_state"].startswith("RandomState")


@pytest.mark.parametrize("order", [["sd", "mean"], ["mean", "other"]])
def test_columns_that_contradict_the_forest_are_not_described(dataset, order):
    named = pd.DataFrame(dataset.X, columns=order)
    forest = IsolationForest(n_estimators=2).fit(named)
    with pytest.raises(CannotTrain, match="the table that the forest was fitted on"):
        describe(forest, dataset)


def test_files_have_the_permissions_of_the_umask_and_no_temporary_file_is_left(
    tmp_path, fitted, card
):
    old = os.umask(0o027)
    try:
        path = save_model(tmp_path, fitted, card)
    finally:
        os.umask(old)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "model.pickle"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "model.json").stat().st_mode) == 0o640


def test_the_pickle_comes_first_and_the_card_last(tmp_path, fitted, card, monkeypatch):
    order = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda a, b: (order.append(b.name), rename(a, b)))
    save_model(tmp_path, fitted, card)
    assert order == ["model.pickle", "model.json"]


def test_a_failed_save_leaves_the_old_model(tmp_path, fitted, card, monkeypatch):
    path = save_model(tmp_path, fitted, card)
    before = path.read_bytes(), (tmp_path / "model.json").read_bytes()
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:  # of the card
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotTrain, match=r"model\.pickle cannot be written: No space left"):
        save_model(tmp_path, fit_forest(spending().X, n_estimators=2), card)
    assert (path.read_bytes(), (tmp_path / "model.json").read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_files_left_by_a_killed_training_are_replaced(tmp_path, fitted, card):
    (tmp_path / ".model.pickle.part").write_bytes(b"half")
    path = save_model(tmp_path, fitted, card)
    assert load_model(path, require_card=True)
    assert not (tmp_path / ".model.pickle.part").exists()


@pytest.mark.slow
def test_concurrent_trainings_leave_one_matching_pair(tmp_path):
    code = """
import sys
from training.datasets import spending
from training.export import describe, save_model
from training.forest import fit_forest
train = spending()
forest = fit_forest(train.X, n_estimators=5, seed=int(sys.argv[2]))
card = describe(forest, train)
for _ in range(10):
    save_model(sys.argv[1], forest, card)
"""
    root = Path(__file__).parents[3]
    running = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, str(seed)], cwd=root)
        for seed in range(2)
    ]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    model = load_model(tmp_path / "model.pickle", require_card=True)
    fitted = load_fitted(read_model_file(tmp_path / "model.pickle"))
    assert model.card.seed == fitted.random_state
    assert len(list(tmp_path.iterdir())) == 2


def test_checking_a_folder_leaves_no_file(tmp_path):
    check_folder(tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CannotTrain, match=r"no model can be saved in .*file: Not a directory"):
        check_folder(tmp_path / "file" / "models")


def test_a_folder_of_another_user_is_refused(tmp_path):
    if os.geteuid() != 0:
        tmp_path.chmod(0o555)
        with pytest.raises(CannotTrain, match="Permission denied"):
            check_folder(tmp_path)
        return
    tmp_path.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(CannotTrain, match="Permission denied"):
            check_folder(tmp_path)
    finally:
        os.seteuid(0)


def test_the_pickle_is_the_same_every_time(samples):
    pickles = {pickle.dumps(fit_forest(samples, seed=3, n_estimators=5), 5) for _ in range(3)}
    assert len(pickles) == 1
