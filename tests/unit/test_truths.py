import numpy as np
import pytest
from sklearn import metrics

from service.truths import Confusion, RunningConfusion


def test_no_figure_is_defined_before_the_first_feedback():
    assert Confusion().figures() == {}
    assert RunningConfusion().summary().gauges()["nb_labels_tot"] == 0
    assert "precision_tot" not in RunningConfusion().summary().gauges()


@pytest.mark.parametrize("seed", range(5))
def test_figures_equal_scikit_learns_in_total_and_over_the_window(seed):
    rng = np.random.default_rng(seed)
    labels, truths = rng.integers(0, 2, (2, 250))
    running = RunningConfusion(window=100)
    for label, truth in zip(labels.tolist(), truths.tolist(), strict=True):
        running.add(label, truth)
    gauges = running.summary().gauges()
    for suffix, part in (("tot", slice(None)), ("roll", slice(-100, None))):
        y, p = truths[part], labels[part]
        assert gauges[f"accuracy_{suffix}"] == pytest.approx(metrics.accuracy_score(y, p))
        assert gauges[f"precision_{suffix}"] == pytest.approx(metrics.precision_score(y, p))
        assert gauges[f"recall_{suffix}"] == pytest.approx(metrics.recall_score(y, p))
        assert gauges[f"f1_{suffix}"] == pytest.approx(metrics.f1_score(y, p))
        assert gauges[f"f2_{suffix}"] == pytest.approx(metrics.fbeta_score(y, p, beta=2))
        assert gauges[f"nb_outliers_{suffix}"] == y.sum()
        assert gauges[f"nb_labels_{suffix}"] == len(y)
    matrix = metrics.confusion_matrix(truths, labels).ravel().tolist()
    names = ["true_negative", "false_positive", "false_negative", "true_positive"]
    assert [gauges[name] for name in names] == matrix
