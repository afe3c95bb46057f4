import pytest

from service.settings import Settings
from service.telemetry.readings import seldon_labels, training_share
from tests.support.cards import make_card


@pytest.fixture
def card(forest, samples):
    return make_card(b"", forest, samples, score_quantiles=[i / 100 for i in range(-50, 51)])


@pytest.mark.parametrize(
    ("threshold", "share"), [(0, 0.125), (-0.4, 0.1), (-0.395, 0.105), (-9, 0), (9, 1)]
)
def test_the_training_share_is_exact_at_0_and_interpolated_elsewhere(card, threshold, share):
    assert training_share(card, threshold) == pytest.approx(share)


def test_seldons_labels_are_the_settings_and_unknown_ones_are_not_implemented(folder):
    labels = seldon_labels(Settings(model=folder / "model.pickle", model_image="reg:5/if:0.1"))
    assert (labels["image_name"], labels["image_version"]) == ("reg:5/if", "0.1")
    assert (labels["predictor_name"], labels["method"]) == ("NOT_IMPLEMENTED", "predict")
