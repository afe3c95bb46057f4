import json

import numpy as np
import pytest

from service.errors import BadInput, TooLarge
from service.protocols.seldon import messages as seldon_v1
from service.rows import Limits, Totals, Verdict

VERDICT = Verdict(np.array([0.25, -0.5]), threshold=0.0)
TOTALS = Totals(samples=10, outliers=4)


def decode(body, limits=None):
    decoded = seldon_v1.decode_message(body, limits or Limits())
    decoded.table.numbers()
    return decoded


def echo(body):
    return seldon_v1.decode_echo(json.dumps(body).encode(), "application/json", "", Limits())


def message(**extra):
    return {"data": {"names": ["a", "b"], "ndarray": [[1, 2], [60, 40]]}, **extra}


def test_ndarray_and_tensor_decode_to_the_same_rows():
    tensor = {"data": {"tensor": {"shape": [2, 2], "values": [1, 2, 60, 40]}}}
    for body in (message(), tensor):
        assert decode(body).table.numbers().values.tolist() == [[1, 2], [60, 40]]


@pytest.mark.parametrize("shape", [[2, 3], [-1, 3], [2, -1]])
def test_one_dimension_of_a_tensors_shape_may_be_minus_1(shape):
    body = {"data": {"tensor": {"shape": shape, "values": [1, 2, 3, 4, 5, 6]}}}
    assert decode(body).table.numbers().values.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_tensor_wins_over_ndarray_as_in_seldon():
    body = {"data": {"tensor": {"shape": [1, 1], "values": [7]}, "ndarray": [[8]]}}
    assert decode(body).table.numbers().values.tolist() == [[7]]


def test_json_data_is_a_table_and_its_labels_are_a_tensor():
    decoded = decode({"jsonData": [[1, 2], [60, 40]]})
    assert decoded.table.numbers().values.tolist() == [[1, 2], [60, 40]]
    labels = seldon_v1.encode_labels(decoded, VERDICT, TOTALS)["data"]["tensor"]
    assert (labels["shape"], labels["values"].tolist()) == ([2], [0, 1])
    rows = seldon_v1.encode_rows(decoded, VERDICT, TOTALS)["data"]["tensor"]
    assert (rows["shape"], rows["values"].tolist()) == ([2, 2], [1, 2, 60, 40])


def test_rows_are_returned_as_a_tensor_with_its_actual_shape():
    body = {"data": {"tensor": {"shape": [-1, 2], "values": ["40", 60]}}}
    tensor = seldon_v1.encode_rows(decode(body), VERDICT, TOTALS)["data"]["tensor"]
    assert (tensor["shape"], tensor["values"].tolist()) == ([1, 2], [40.0, 60.0])
    texts = message(data={"ndarray": [["1", 2]]})
    rows = seldon_v1.encode_rows(decode(texts), VERDICT, TOTALS)["data"]
    assert rows == {"names": [], "ndarray": [["1", 2]]}


def test_data_wins_over_json_data_as_in_seldon():
    body = message(jsonData=[[7]])
    assert decode(body).table.numbers().values.tolist() == [[1, 2], [60, 40]]


OBJECTS = (
    "row 0 is an object, not a list of numbers; send the numbers in the order of the columns, as "
    "in [[1, 2]], and the columns' names beside the rows"
)
TENSOR_FORM = 'data.tensor is an object with shape and values: {"shape": [1, 2], "values": [1, 2]}'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([[1, 2]], 'a Seldon message is a JSON object, as in {"data": {"ndarray": [[1, 2]]}}'),
        ({}, 'no data; send {"data": {"ndarray": [[1, 2]]}}'),
        ({"data": None}, 'no data; send {"data": {"ndarray": [[1, 2]]}}'),
        ({"strData": "x"}, 'strData is not served here; send {"data": {"ndarray": [[1, 2]]}}'),
        ({"data": {}},
         'data holds neither ndarray nor tensor; send {"data": {"ndarray": [[1, 2]]}}'),
        ({"data": {"tensor": 3}}, TENSOR_FORM),
        ({"data": {"tensor": {"values": [1]}}}, TENSOR_FORM),
        ({"data": {"tensor": {"shape": 2, "values": [1]}}},
         "data.tensor.shape is not a list of whole numbers"),
        ({"data": {"tensor": {"shape": [1.0, 1], "values": [1]}}},
         "data.tensor.shape is not a list of whole numbers"),
        ({"data": {"tensor": {"shape": [2], "values": [1, 2]}}},
         "data.tensor.shape has 1 dimension; rows have 2, as in [1, 2]"),
        ({"data": {"tensor": {"shape": [2, 2], "values": [1, 2, 3]}}},
         "data.tensor has 3 values for the shape [2, 2]"),
        ({"data": {"tensor": {"shape": [-1, -1], "values": [1]}}},
         "data.tensor has 1 value for the shape [-1, -1]"),
        ({"data": {"tensor": {"shape": [1, 1], "values": "1"}}},
         "data.tensor.values is not a list"),
        ({"data": {"tensor": {"shape": [0, 5], "values": []}}},
         "there are no rows; one row is [[1, 2]]"),
        ({"data": {"tensor": {"shape": [2, 2], "values": [1, 2, 3, {}]}}},
         "row 1, column 1: an object is not a number"),
        ({"data": {"tensor": {"shape": [2, 1], "values": [[1], [2]]}}},
         "row 0, column 0: a list is too deep; a table has two dimensions"),
        ({"data": {"tftensor": {}}},
         'data.tftensor is not served here; send {"data": {"ndarray": [[1, 2]]}}'),
        ({"data": [[1, 2]]}, 'data is not an object; send {"data": {"ndarray": [[1, 2]]}}'),
        ({"data": "x", "jsonData": [[1]]},
         'data is not an object; send {"data": {"ndarray": [[1, 2]]}}'),
        ({"jsonData": {"a": 1}}, "rows are a list of lists, as in [[1, 2]]; an object came"),
        ({"jsonData": [[1], ["x"]]}, "row 1, column 0: 'x' is not a number"),
        ({"jsonData": None, "binData": "AA=="},
         'binData is not served here; send {"data": {"ndarray": [[1, 2]]}}'),
        ({"data": {"names": "ab", "ndarray": [[1]]}}, "data.names is not a list of strings"),
        ({"data": {"names": [1.5], "ndarray": [[1]]}}, "data.names is not a list of strings"),
        ({"data": {"names": [False], "ndarray": [[1]]}}, "data.names is not a list of strings"),
        ({"data": {"ndarray": [{"a": 1}]}}, OBJECTS),
        ({"jsonData": [{"a": 1}, [2]]}, "jsonData is not a list of objects, as in "
         '[{"a": 1, "b": 2}]'),
        (message(meta="x"), "meta is not an object"),
        (message(meta={"puid": 3}), "meta.puid is not a string"),
        (message(meta={"tags": []}), "meta.tags is not an object"),
        (message(meta={"tags": {"a": [float("nan")]}}), "meta.tags holds NaN, which is no number"),
        (message(meta={"metrics": {}}), "meta.metrics is not a list"),
    ],
)  # fmt: skip
def test_an_invalid_message_is_refused_with_a_reason(body, text):
    with pytest.raises(BadInput) as refusal:
        decode(body)
    assert str(refusal.value) == text


@pytest.mark.parametrize("field", ["names", "columns", "column_names", "feature_names", "features"])
def test_names_in_a_field_that_is_not_read_are_refused(field):
    bodies = [message(**{field: ["b", "a"]}), {"jsonData": [[1, 2]], field: ["b", "a"]}]
    if field != "names":
        bodies.append({"data": {"ndarray": [[1, 2]], field: ["b", "a"]}})
    for body in bodies:
        with pytest.raises(BadInput, match=f"'{field}', which is not read; names of columns stand"):
            decode(body)


def test_whole_numbers_are_names_as_pandas_counts_columns():
    assert decode({"data": {"names": [1, 0], "ndarray": [[1, 2]]}}).table.names == ("1", "0")


def test_limits_hold_for_tensors_too():
    body = {"data": {"tensor": {"shape": [3, 1], "values": [1, 2, 3]}}}
    with pytest.raises(TooLarge, match="3 rows in one request; at most 2"):
        decode(body, Limits(rows=2))


def test_labels_have_the_form_of_the_request():
    ndarray = seldon_v1.encode_labels(decode(message()), VERDICT, TOTALS)
    assert ndarray["data"]["names"] == []
    assert ndarray["data"]["ndarray"].tolist() == [0, 1]
    body = {"data": {"tensor": {"shape": [2, 1], "values": [1, 2]}}}
    tensor = seldon_v1.encode_labels(decode(body), VERDICT, TOTALS)
    assert tensor["data"]["tensor"]["shape"] == [2]
    assert tensor["data"]["tensor"]["values"].tolist() == [0, 1]


def test_gauges_describe_the_requests_rows_and_the_services_totals():
    answer = seldon_v1.encode_labels(decode(message()), VERDICT, TOTALS)
    assert answer["meta"]["metrics"] == [
        {"key": "is_outlier", "type": "GAUGE", "value": 0.5},
        {"key": "anomaly_score", "type": "GAUGE", "value": -0.125},
        {"key": "nb_outliers", "type": "GAUGE", "value": 4},
        {"key": "fraction_outliers", "type": "GAUGE", "value": 0.4},
        {"key": "observation", "type": "GAUGE", "value": 10},
        {"key": "threshold", "type": "GAUGE", "value": 0.0},
    ]


def test_meta_of_the_request_is_returned_with_additions():
    own = {"key": "mm", "type": "COUNTER", "value": 1}
    meta = {"puid": "p1", "tags": {"t": 1}, "routing": {"r": 1}, "metrics": [own],
            "requestPath": {"up": "img:1"}}  # fmt: skip
    decoded = decode(message(meta=meta))
    tags = seldon_v1.score_tags(VERDICT)
    answer = seldon_v1.encode_labels(decoded, VERDICT, TOTALS, tags)["meta"]
    assert answer["metrics"][0] == own
    assert (answer["puid"], answer["requestPath"]) == ("p1", {"up": "img:1"})
    assert answer["tags"]["t"] == 1
    assert answer["tags"]["anomaly-scores"].tolist() == [0.25, -0.5]
    assert answer["tags"]["threshold"] == 0.0
    assert "routing" not in answer


def test_without_tags_meta_has_no_tags():
    answer = seldon_v1.encode_labels(decode(message()), VERDICT, TOTALS)
    assert set(answer["meta"]) == {"metrics"}


def test_transform_input_returns_rows_and_names_unchanged():
    answer = seldon_v1.encode_rows(decode(message()), VERDICT, TOTALS)
    assert answer["data"] == {"names": ["a", "b"], "ndarray": [[1, 2], [60, 40]]}
    assert answer["meta"]["tags"]["outlier-predictions"].tolist() == [0, 1]


def test_request_path_keeps_earlier_units_and_adds_this_one():
    sent = decode(message(meta={"requestPath": {"up": "img:1"}}))
    named = seldon_v1.name_meta(sent.meta, lambda: "new", {"clf": "reg/if:0.1"})
    assert named == {"puid": "new", "requestPath": {"clf": "reg/if:0.1", "up": "img:1"}}
    assert seldon_v1.name_meta(named, lambda: "newer", {}) is named


@pytest.mark.parametrize(
    "payload",
    [{"data": {"names": ["s"], "ndarray": [0, 1]}}, {"strData": "x"}, {"jsonData": {"a": 1}}],
)
def test_transform_output_returns_the_message_unchanged(payload):
    sent = echo({"meta": {"puid": "p", "tags": {"t": 1}}, **payload})
    answer = seldon_v1.encode_echo(*sent, TOTALS, 0.0)
    meta = answer.pop("meta")
    assert answer == payload
    assert (meta["puid"], meta["tags"]) == ("p", {"t": 1})
    assert meta["metrics"][0]["key"] == "nb_outliers"


@pytest.mark.parametrize("body", [{}, {"data": None}, {"meta": {}}, []])
def test_transform_output_refuses_an_empty_message(body):
    with pytest.raises(BadInput, match=r"as in|send"):
        echo(body)


def test_a_health_answer_before_the_first_row_leaves_the_fraction_out():
    metrics = seldon_v1.encode_health(Totals(), 0.0)["meta"]["metrics"]
    assert [metric["key"] for metric in metrics] == ["nb_outliers", "observation", "threshold"]


def test_metrics_of_the_request_are_returned_unchecked_as_in_seldon():
    sent = [1, "x", {"key": "a"}, {"key": "a", "type": "ODD", "value": "x"}]
    message = decode({"data": {"ndarray": [[1, 2]]}, "meta": {"metrics": sent}})
    verdict = Verdict(np.array([0.25]), 0.0)
    answer = seldon_v1.encode_labels(message, verdict, Totals(1, 0))
    assert answer["meta"]["metrics"][: len(sent)] == sent


def test_errors_have_seldons_shape():
    assert seldon_v1.encode_error("no", 400) == {
        "status": {"code": -1, "info": "no", "reason": "MICROSERVICE_BAD_DATA", "status": 1}
    }
