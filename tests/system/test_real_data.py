"""Train on real tables with the command line, serve the model, and score over HTTP."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from training.train import main as train

DATA = Path(__file__).parents[3] / "shared" / "data"
LOVOO_OPTIONS = ["--contamination", "0.001"]
BATCH = 20_000


def read_features(path, labelled):
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return table[:, :-1] if labelled else table


def ask(service, rows):
    """Return the service's scores and labels for rows sent in batches."""
    scores, labels = [], []
    for start in range(0, len(rows), BATCH):
        body = {"data": {"ndarray": rows[start : start + BATCH].tolist()}}
        status, answer = service.post("/predict?scores=1", body)
        assert status == 200
        scores += answer["meta"]["tags"]["anomaly-scores"]
        labels += answer["data"]["ndarray"]
    return np.array(scores), np.array(labels)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside the repository")
@pytest.mark.parametrize(
    ("table", "labelled", "options"),
    [
        ("breastw/breastw.csv", True, []),
        ("cardio/cardio.csv", True, []),
        ("mammography/mammography.csv", True, ["--contamination", "0.02"]),
        ("shuttle/shuttle.csv", True, []),
        ("lovoo/train.csv", False, LOVOO_OPTIONS),
    ],
)
def test_every_row_over_http_equals_scikit_learn(tmp_path, serve, table, labelled, options):
    label = ["--label", "label"] if labelled else []
    command = ["--dataset", str(DATA / table), *label, *options, "--save_path", str(tmp_path)]
    assert train(command) == 0
    path = tmp_path / "model.pickle"
    rows = read_features(DATA / table, labelled)
    forest = pickle.loads(path.read_bytes())

    service = serve(path, require_card=1)
    scores, labels = ask(service, rows)
    assert np.array_equal(scores, forest.decision_function(rows))
    assert np.array_equal(labels == 1, forest.predict(rows) == -1)

    _, page = service.request("GET", "/metrics")
    assert f"isoserve_samples_total {float(len(rows))}" in page.decode()
    assert f"isoserve_outliers_total {float(labels.sum())}" in page.decode()
    if options is LOVOO_OPTIONS:
        assert labels.sum() == 61
        assert ask(service, read_features(DATA / "lovoo/test.csv", labelled=False))[1].sum() == 13
        assert forest.score_samples([[0.1234, 0.1234]]).item() == -0.5968904587109694
