import functools
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import fetch_kddcup99

from service.errors import CannotTrain
from training import kddcup99
from training.kddcup99 import Connections, attack_kinds, draw
from training.train import main

ARCHIVE = Path(__file__).parents[4] / "shared/data/kddcup99/kddcup.data_10_percent.gz"

# The documentation of Seldon's example gives these.
COLUMNS = """['srv_count','serror_rate','srv_serror_rate','rerror_rate','srv_rerror_rate',
    'same_srv_rate','diff_srv_rate','srv_diff_host_rate','dst_host_count','dst_host_srv_count',
    'dst_host_same_srv_rate','dst_host_diff_srv_rate','dst_host_same_src_port_rate',
    'dst_host_srv_diff_host_rate','dst_host_serror_rate','dst_host_srv_serror_rate',
    'dst_host_rerror_rate','dst_host_srv_rerror_rate','target']"""


@pytest.fixture
def connections():
    """1,000 connections, half of them attacks; their count tells each row from the others."""
    rows = np.arange(1000)
    flags = np.where(rows % 10 == 0, b"REJ", b"SF")
    services = np.where(rows % 3 == 0, b"http", b"smtp")
    cells = np.empty((1000, 4), dtype=object)
    cells[:, 0], cells[:, 1], cells[:, 2], cells[:, 3] = rows, flags, services, b"tcp"
    kinds = np.where(rows < 500, "normal", np.where(rows < 990, "dos", "u2r"))
    return Connections(cells, ("count", "flag", "service", "protocol_type"), kinds)


@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        (b"normal.", "normal"),
        (b"smurf.", "dos"),
        (b"nmap.", "probe"),
        (b"warezclient.", "r2l"),
        (b"buffer_overflow.", "u2r"),
    ],
)
def test_attacks_are_mapped_by_name(attack, kind):
    others = np.array([b"back.", attack, b"spy."], dtype=object)
    assert attack_kinds(others).tolist() == ["dos", kind, "r2l"]


def test_an_unknown_attack_is_refused():
    with pytest.raises(CannotTrain, match="not known here: 'mailbomb'"):
        attack_kinds(np.array([b"mailbomb."], dtype=object))


def test_a_draw_has_the_requested_share_of_attacks(connections):
    training, held_out = draw(connections, samples=200, share=0.25)
    assert (len(training), training.labels.sum()) == (200, 50)
    assert (len(held_out), held_out.labels.sum()) == (200, 50)
    count = training.features.index("count")
    assert not set(training.X[:, count]) & set(held_out.X[:, count])
    assert np.array_equal(training.labels, training.X[:, count] >= 500)
    assert set(training.kinds[training.labels == 1]) <= {"dos", "u2r"}


def test_a_draw_is_reproducible_by_seed(connections):
    first, second, other = (draw(connections, 100, 0.1, seed=seed)[0].X for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_held_out_batch_is_limited_to_the_remaining_rows(connections):
    training, held_out = draw(connections, samples=500, share=0.1)  # 450 of 500 normal rows
    assert (len(training), len(held_out), held_out.labels.sum()) == (500, 55, 5)
    assert draw(connections, samples=1000, share=0.5)[1] is None


@pytest.mark.parametrize(
    ("samples", "share", "sentence"),
    [
        (600, 0.1, "needs 540 normal rows, but the file has 500: draw at most 555"),
        (1100, 0.5, "needs 550 normal rows, but the file has 500: draw at most 1,000"),
    ],
)
def test_more_rows_than_the_file_has_are_refused(connections, samples, share, sentence):
    with pytest.raises(CannotTrain, match=sentence):
        draw(connections, samples, share)
    draw(connections, int(sentence.rsplit(" ", 1)[1].replace(",", "")), share)


def test_text_columns_are_one_hot_encoded(connections):
    dataset, _ = draw(connections, 100, 0.1, ["flag", "count"])
    assert dataset.features == ("flag_REJ", "flag_SF", "count")
    assert dataset.types == ("bool", "bool", "int")
    assert np.array_equal(dataset.X[:, 0], dataset.X[:, 2] % 10 == 0)
    assert (dataset.X[:, 0] + dataset.X[:, 1] == 1).all()


def test_columns_are_selected_by_either_name_and_the_target_is_not_a_feature(connections):
    dataset, _ = draw(connections, 100, 0.1, ["target", "service_http", "count"])
    assert dataset.features == ("service_http", "count")
    assert draw(connections, 100, 0.1)[0].features == (
        "count", "flag_REJ", "flag_SF", "protocol_type_tcp",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keep_cols", "sentence"),
    [
        (["cuont"], "there is no column 'cuont' .is it 'count'"),
        (["flag", "flag_SF"], "--keep_cols names the column 'flag_SF' twice"),
        (["target"], "--keep_cols keeps the label only"),
    ],
)
def test_wrong_columns_are_refused(connections, keep_cols, sentence):
    with pytest.raises(CannotTrain, match=sentence):
        draw(connections, 100, 0.1, keep_cols)


def test_without_a_network_the_error_says_where_to_save_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a port without a server
    with pytest.raises(CannotTrain) as caught:
        kddcup99.load(tmp_path)
    sentence = str(caught.value)
    assert f"kddcup99 is not in {tmp_path}/kddcup99_10-py3 and could not be fetched" in sentence
    assert "save the archive kddcup.data_10_percent.gz there as kddcup99_10_data" in sentence


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.exists(), reason="the KDD Cup 99 archive is not here")
def test_a_real_file_saved_by_hand_can_be_trained_on_and_served(
    tmp_path, monkeypatch, capsys, serve
):
    folder = tmp_path / "kddcup99_10-py3"
    folder.mkdir()
    shutil.copyfile(ARCHIVE, folder / "kddcup99_10_data")
    # Reading it takes 10 to 20 s: once is enough for both trainings.
    monkeypatch.setattr(kddcup99, "fetch_kddcup99", functools.cache(fetch_kddcup99))
    home = ["--dataset", "kddcup99", "--data_home", str(tmp_path)]

    options = f"""--samples 50000 --keep_cols "{COLUMNS}" --contamination .1 --n_estimators 100
        --max_samples .8 --max_features 1. --save_path {tmp_path}/models/"""
    assert main([*home, *shlex.split(options)]) == 0
    card = json.loads((tmp_path / "models" / "model.json").read_text())
    assert len(card["columns"]) == 18
    assert card["rows"] == 50_000
    assert card["parameters"]["max_samples"] == 0.8
    assert card["training_outlier_share"] == pytest.approx(0.1, abs=0.001)
    assert card["quality"]["rows"] == 50_000
    assert card["quality"]["outliers"] == 5_000
    assert card["quality"]["recall_by_kind"].keys() >= {"dos", "probe", "r2l"}

    assert main([*home, "--save_path", f"{tmp_path}/default"]) == 0
    card = json.loads((tmp_path / "default" / "model.json").read_text())
    names = [feature["name"] for feature in card["columns"]]
    assert {"flag_SF", "protocol_type_tcp", "srv_count"} <= set(names)
    assert not any(name.startswith(("service", "target")) for name in names)
    assert card["quality"]["held_out"]
    assert card["quality"]["roc_auc"] >= 0.85
    assert "held-out rows" in capsys.readouterr().out

    # The golden rows reach from the most abnormal row to the most normal one.
    body = {"data": {"names": names, "ndarray": card["golden"]["rows"]}}
    service = serve(tmp_path / "default" / "model.pickle", require_card=1)
    status, answer = service.post("/predict?scores=1", body)
    assert status == 200
    assert answer["meta"]["tags"]["anomaly-scores"] == card["golden"]["scores"]
