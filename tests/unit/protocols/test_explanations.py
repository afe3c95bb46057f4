import numpy as np

from service.protocols.explanations import encode_explanations
from service.rows import Rows


def test_an_explanation_lists_the_features_that_isolated_each_outlier_most():
    rows = Rows(np.array([[7.0, 8.0, 9.0]]), ("a", "b", "c"))
    shares = np.array([[-1.0, 0.5, -3.0]])
    assert encode_explanations([1], rows, shares, 2) == [
        {
            "row": 1,
            "features": [
                {"name": "c", "contribution": -3.0, "value": 9.0},
                {"name": "a", "contribution": -1.0, "value": 7.0},
            ],
        }
    ]
