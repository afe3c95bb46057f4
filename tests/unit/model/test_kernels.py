import numpy as np
import pytest

from service.model import kernels


def keys(values):
    return kernels.order_key(np.array(values, np.float32))


def test_keys_sort_like_their_floats():
    values = [-np.inf, -3.4e38, -2.0, -1e-45, 0.0, 1e-45, 1.0, np.nextafter(1, 2), 3.4e38, np.inf]
    values = np.unique(np.array(values, np.float32))
    assert (np.diff(keys(values).astype(np.int64)) > 0).all()
    assert keys([-0.0]) == keys([0.0])
    assert kernels.NAN_LEFT < keys([-np.inf]) < keys([np.inf]) < kernels.NAN_RIGHT <= kernels.LEAF


@pytest.mark.parametrize(
    ("threshold", "floor"),
    [
        (0.5, 0.5),
        (0.1, np.nextafter(np.float32(0.1), np.float32(0))),  # float32(0.1) is above 0.1
        (-0.1, np.float32(-0.1)),  # and below -0.1 is float32(-0.1)
        (-0.0, 0.0),
        (1e-300, 0.0),
        (-1e-300, -1e-45),
        (1e300, np.finfo(np.float32).max),
        (-1e300, -np.inf),
        (np.inf, np.inf),
        (-np.inf, -np.inf),
    ],
)
def test_a_threshold_becomes_the_largest_float32_not_above_it(threshold, floor):
    assert kernels.threshold_keys(np.array([threshold])) == keys([floor])


def test_no_value_is_at_most_nan():
    assert kernels.threshold_keys(np.array([np.nan])) == kernels.NAN_LEFT < keys([-np.inf])


def test_comparing_keys_equals_comparing_floats_for_every_float32():
    rng = np.random.default_rng(16)
    thresholds = rng.normal(size=20_000) * 10.0 ** rng.integers(-44, 39, 20_000)
    values = thresholds.astype(np.float32)
    for x in (values, np.nextafter(values, np.float32(9)), np.nextafter(values, np.float32(-9))):
        assert np.array_equal(
            kernels.order_key(x) <= kernels.threshold_keys(thresholds), x <= thresholds
        )
