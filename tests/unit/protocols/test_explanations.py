import numpy as np

from service.protocols.explanations import encode_explanations


def test_an_explanation_lists_the_features_that_isolated_each_outlier_most():
    cells = [[7.0, 8.0, "casino"]]
    shares = np.array([[-1.0, 0.5, -3.0]])
    assert encode_explanations([1], "abc", cells, shares, 2) == [
        {
            "row": 1,
            "features": [
                {"name": "c", "contribution": -3.0, "value": "casino"},
                {"name": "a", "contribution": -1.0, "value": 7.0},
            ],
        }
    ]
