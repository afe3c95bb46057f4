import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest

from service.components import CoreIsolationForest, OutlierIsolationForest
from service.errors import BadInput, BadModel, BadSetting
from service.model.file import load_model
from service.rows import RawTable
from service.serving.detector import Detector
from tests.support.cards import calibration

NORMAL, ODD = [1.0, 1.0], [60.0, 40.0]


def values(metrics):
    return {metric["key"]: metric["value"] for metric in metrics}


@pytest.fixture(params=[CoreIsolationForest, OutlierIsolationForest])
def component(request, folder):
    return request.param(threshold=0.0, load_path=f"{folder}/")


def test_a_share_of_rows_is_flagged_and_p_values_are_those_of_the_latest_call(
    write_card, folder, forest, samples
):
    scores = forest.decision_function(samples)
    with pytest.raises(BadInput, match="no p-values"):
        CoreIsolationForest(load_path=str(folder), outlier_share=0.01)
    write_card(calibration=calibration(scores))
    component = CoreIsolationForest(load_path=str(folder), outlier_share=0.01)
    assert component.pvalues is None
    labels = component.predict(samples)
    assert np.array_equal(labels == 1, component.pvalues <= 0.01)
    assert component.threshold == np.sort(scores)[49]
    with pytest.raises(BadInput, match="choose one of them"):
        CoreIsolationForest(0.1, str(folder), 0.01)


def test_labels_are_one_for_outliers(component):
    assert component.predict(np.array([NORMAL, ODD]), ["a", "b"]).tolist() == [0, 1]
    assert (component.N, component.nb_outliers, component.threshold) == (2, 1, 0.0)


def test_labels_equal_scikit_learns(component, forest, samples):
    labels = component.predict(samples)
    assert np.array_equal(labels == 1, forest.predict(samples) == -1)


def test_the_threshold_changes_the_labels(folder, samples):
    scores = CoreIsolationForest(load_path=str(folder)).clf.decision_function(samples)
    labels = CoreIsolationForest(threshold=0.05, load_path=str(folder)).predict(samples)
    assert np.array_equal(labels, scores < 0.05)


@pytest.fixture(params=[CoreIsolationForest, OutlierIsolationForest])
def named(request, folder, write_card):
    """A component whose model knows its columns: mean, sd."""
    write_card()
    return request.param(load_path=str(folder))


def scores_of(named, X, names):
    """Score rows by each method that takes names, and check that all agree."""
    named.predict(X, names)
    scores = named.decision_val.tolist()
    named.transform_input(X, names)
    assert named.decision_val.tolist() == scores
    named.send_feedback(X, names, 1.0, [0] * len(X), routing=None)
    return scores


@pytest.mark.parametrize("make", [list, tuple, np.array, pd.Index])
def test_named_columns_are_matched_in_any_order(named, forest, make):
    X = np.array([[0.3, 9.0], [60.0, 0.1]])
    expected = forest.decision_function(X).tolist()
    for table, names in ((X, ["mean", "sd"]), (X[:, ::-1], ["sd", "mean"])):
        assert scores_of(named, table, make(names)) == expected
        assert scores_of(named, pd.DataFrame(table, columns=names), None) == expected
        assert scores_of(named, pd.DataFrame(table, columns=names), make(names)) == expected


@pytest.mark.parametrize("names", [None, [], ["t:0", "t:1"], ["", ""]])
def test_columns_without_names_are_in_the_models_order(named, forest, names):
    X = np.array([[0.3, 9.0]])
    expected = forest.decision_function(X).tolist()
    assert scores_of(named, X, names) == expected
    assert scores_of(named, pd.DataFrame(X), names or None) == expected


@pytest.mark.parametrize(
    ("X", "names", "sentence"),
    [
        ([NORMAL], ["mean", "std"], "'sd' is missing .is it 'std'"),
        ([NORMAL], ["mean", "mean"], "'mean' is named twice"),
        ([NORMAL], ["mean"], "1 name for 2 columns"),
        ([NORMAL], ["mean", "sd", "id"], "3 names for 2 columns"),
        (pd.DataFrame([NORMAL], columns=["sd", "mean"]), ["mean", "sd"], "but the columns of X"),
        (pd.DataFrame([NORMAL], columns=["a", "b"]), None, "'mean' is missing"),
        (pd.DataFrame([["x", 1]], columns=["mean", "sd"]), None, "row 0, column 0"),
    ],
)
def test_names_that_do_not_fit_are_refused_and_nothing_is_counted(named, X, names, sentence):
    with pytest.raises(BadInput, match=sentence):
        named.predict(X, names)
    with pytest.raises(BadInput, match=sentence):
        named.transform_input(X, names)
    if isinstance(named, OutlierIsolationForest):
        with pytest.raises(BadInput, match=sentence):
            named.send_feedback(X, names, 1.0, [0])
    assert named.N == 0


def test_the_threshold_can_be_set(component):
    component.predict([NORMAL])
    score = component.decision_val[0]
    component.threshold = np.float64(score + 0.001)
    assert component.predict([NORMAL]).tolist() == [1]
    assert values(component.metrics())["threshold"] == component.threshold == score + 0.001
    component.threshold = -1
    assert component.predict([NORMAL]).tolist() == [0]


@pytest.mark.parametrize("threshold", ["high", None, float("nan"), float("-inf"), [1, 2]])
def test_a_threshold_that_is_no_number_is_refused_and_the_old_one_stays(component, threshold):
    with pytest.raises(BadInput, match=r"threshold is .*; give a finite number"):
        component.threshold = threshold
    assert component.threshold == 0.0
    with pytest.raises(BadInput, match="threshold is"):
        type(component)(threshold=threshold)


def test_the_attributes_of_seldons_own_class_describe_the_latest_call(component, forest):
    names = ("prediction", "decision_val", "prediction_meta")
    assert [getattr(component, name) for name in names] == [None, None, None]
    component.transform_input([NORMAL, ODD])
    assert component.prediction_meta.tolist() == component.prediction.tolist() == [0, 1]
    assert np.array_equal(component.decision_val, forest.decision_function([NORMAL, ODD]))
    component.predict([ODD])
    assert (component.prediction.tolist(), component.prediction_meta) == ([1], None)


def test_clf_says_what_to_install_without_scikit_learn(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(BadSetting, match="clf needs scikit-learn: pip install scikit-learn"):
        _ = CoreIsolationForest(load_path=str(folder)).clf


def test_clf_is_never_another_file_than_the_one_that_is_served(folder, samples):
    component = CoreIsolationForest(load_path=str(folder))
    other = IsolationForest(n_estimators=1).fit(samples)
    (folder / "model.pickle").write_bytes(pickle.dumps(other))
    with pytest.raises(BadModel, match="is no longer the file that is served"):
        _ = component.clf


def test_transform_input_returns_x_unchanged_and_tags_the_labels(component):
    X = np.array([NORMAL, ODD])
    assert component.transform_input(X, ["a", "b"]) is X
    assert component.tags() == {"outlier-predictions": [0, 1]}


def test_tags_belong_to_one_call_only(component):
    component.transform_input([NORMAL])
    component.predict([NORMAL])
    assert component.tags() == {}


def test_feedback_and_health_checks_have_no_tags_of_a_prediction(component):
    for other in (component.health_status, lambda: component.send_feedback([NORMAL], [], 1.0, [0])):
        component.transform_input([ODD])
        other()
        assert component.tags() == {}
        assert "is_outlier" not in values(component.metrics())
    assert values(component.metrics())["observation"] == 2


def test_metrics_work_before_the_first_prediction_and_change_nothing(component):
    assert component.tags() == {}
    first = values(component.metrics())
    assert first["observation"] == 0
    assert "is_outlier" not in first
    assert "fraction_outliers" not in first
    component.predict([NORMAL, ODD])
    for _ in range(5):
        seen = values(component.metrics())
        assert (seen["observation"], seen["nb_outliers"], seen["is_outlier"]) == (2, 1, 0.5)


def test_each_thread_sees_its_own_latest_call(component):
    rows = [NORMAL, ODD] * 100

    def label(row):
        component.transform_input([row])
        return values(component.metrics())["is_outlier"], component.tags()["outlier-predictions"][0]

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(label, rows))
    assert seen == [(float(row is ODD), int(row is ODD)) for row in rows]
    assert (component.N, component.nb_outliers) == (200, 100)


@pytest.mark.parametrize("X", [[[1.0]], [1.0, 2.0], [[1.0, float("nan")]], [], [["a", "b"]]])
def test_bad_rows_are_refused_and_not_counted(component, X):
    with pytest.raises(BadInput):
        component.predict(X)
    assert component.N == 0


@pytest.mark.parametrize("what", ["no file", "a folder", "no folder", "a broken file"])
def test_a_model_that_cannot_be_loaded_is_reported_without_settings_of_the_service(tmp_path, what):
    path = tmp_path / "model.pickle"
    if what == "a folder":
        path.mkdir()
    elif what == "a broken file":
        path.write_bytes(b"broken")
    folder = tmp_path / "none" if what == "no folder" else tmp_path
    with pytest.raises(BadModel) as caught:
        OutlierIsolationForest(load_path=str(folder))
    assert ("as load_path" in str(caught.value)) == (what != "a broken file")
    assert "ISOSERVE_" not in str(caught.value)


def test_feedback_is_compared_with_the_rows_in_its_message(folder):
    component = OutlierIsolationForest(load_path=str(folder))
    component.predict([NORMAL])
    component.predict([NORMAL])
    component.send_feedback([ODD], ["a", "b"], 1.0, [1], routing=None)
    component.send_feedback([NORMAL, ODD], [], 0.0, np.array([[0], [0]]))
    seen = values(component.metrics())
    assert (seen["true_positive"], seen["true_negative"], seen["false_positive"]) == (1, 1, 1)
    assert seen["precision_tot"] == 0.5
    assert seen["observation"] == 2


def test_feedback_without_truth_changes_nothing(folder):
    component = OutlierIsolationForest(load_path=str(folder))
    component.send_feedback([NORMAL], [], 1.0, None)
    component.send_feedback([NORMAL], [], 1.0, [])
    assert values(component.metrics())["nb_labels_tot"] == 0


@pytest.mark.parametrize("truth", [[0, 1], [-1], [0.5], ["x"]])
def test_a_truth_that_does_not_fit_is_refused(folder, truth):
    with pytest.raises(BadInput, match="truth"):
        OutlierIsolationForest(load_path=str(folder)).send_feedback([NORMAL], [], 1.0, truth)


def test_detecting_has_no_side_effect(folder, forest, samples):
    detector = Detector(load_model(folder / "model.pickle"))
    verdict = detector.detect(RawTable(samples))
    assert np.array_equal(verdict.scores, forest.decision_function(samples))


def test_the_component_imports_no_web_libraries():
    banned = "flask", "gunicorn", "prometheus_client", "pydantic", "structlog", "orjson", "typer"
    code = f"import service.components, sys; print([m for m in {banned!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_forked_processes_count_together(folder):
    component = CoreIsolationForest(load_path=str(folder))
    component.predict([[60, 40]])
    child = os.fork()
    if child == 0:
        component.predict([[1, 1], [60, 40]])
        os._exit(0)
    os.waitpid(child, 0)
    component.predict([[1, 1]])
    assert (component.N, component.nb_outliers) == (4, 2)
