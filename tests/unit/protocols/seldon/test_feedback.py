import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadInput, TooLarge
from service.protocols.seldon.feedback import Feedback, encode_summary, parse_feedback
from service.rows import Limits, Totals
from service.truths import Confusion, FeedbackSummary, Statement


def decode(body, **limits):
    return parse_feedback(body, Limits(**limits), lambda: "new")


def decode_statement(body):
    return decode(body).statement


def metrics(*sent):
    return {"request": {"meta": {"metrics": list(sent)}}}


def truth(values):
    return {"truth": {"data": {"ndarray": values}}}


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        truth([]),
        {"reward": None},
        {"truth": {"data": {}}},
        {"request": None, "truth": []},
        {"request": {"meta": {}, "data": {}}},
        {"response": {"status": {"code": 1}}},
    ],
)
def test_an_empty_message_is_feedback_without_truth_and_reward(body):
    statement = Statement("new", is_new=True, row_field="request.meta.tags.row")
    assert decode(body) == Feedback(statement)


@pytest.mark.parametrize(
    "data",
    [
        {"ndarray": [0, 1]},
        {"ndarray": [[0], [1]]},
        {"ndarray": ["0", 1.0]},
        {"ndarray": [False, True], "names": ["t:0"]},
        {"tensor": {"shape": [2], "values": [0, 1]}},
        {"tensor": {"shape": [2, 1], "values": [0, 1]}, "ndarray": [1, 1]},
        {"tensor": {"values": [0, 1]}},
    ],
)
def test_truth_comes_in_several_shapes(data):
    body = {"response": {"meta": {"puid": "p"}}, "truth": {"data": data}}
    assert decode_statement(body).truths == (0, 1)


@pytest.mark.parametrize(
    ("reward", "millionths"),
    [
        *(("1", 1_000_000), ('"0.5"', 500_000), ("-2.5", -2_500_000), ("null", None), ("0", 0)),
        *(("0.1", 100_000), ("0.3", 300_000), ("0.000001", 1), ("1e-6", 1), ("-0.0", 0)),
        *(("1000000", 10**12), ("-1e6", -(10**12)), ("999999.999999", 999_999_999_999)),
        *(("0.10", 100_000), ('"0.7000000000"', 700_000), ("123456.654321", 123_456_654_321)),
    ],
)
def test_a_reward_is_a_number_of_whole_millionths_or_a_string_of_one(reward, millionths):
    assert decode_statement(json.loads(f'{{"reward": {reward}}}')).reward == millionths


@given(millionths=st.integers(-(10**12), 10**12))
def test_every_reward_of_whole_millionths_is_read_exactly(millionths):
    assert decode_statement({"reward": millionths / 1_000_000}).reward == millionths
    assert decode_statement({"reward": f"{millionths}e-6"}).reward == millionths


def test_the_puid_is_read_from_the_response_or_the_request():
    meta = {"meta": {"puid": "p"}}
    for body in ({"response": meta}, {"request": meta}, {"request": meta, "response": meta}):
        assert decode_statement(body) == Statement("p", row_field="request.meta.tags.row")
    empty = decode_statement({"request": {"meta": {"puid": ""}}})
    assert (empty.puid, empty.is_new) == ("new", True)


def test_the_rows_of_the_request_are_decoded():
    body = {"request": {"meta": {"tags": {"row": 1.0}}, "data": {"ndarray": [[1, 2], [3, 4]]}}}
    feedback = decode(body)
    assert feedback.statement.row == 1
    assert feedback.statement.rows.cells == [[1, 2], [3, 4]]
    assert feedback.is_array


def test_a_request_without_rows_is_accepted():
    assert decode_statement({"request": {"strData": "hello"}, "reward": 1}).rows is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "Invalid JSON: a Feedback is a JSON object"),
        ("text", "Invalid JSON: a Feedback is a JSON object"),
        ([1], "Invalid JSON: a Feedback is not an object"),
        ({"truths": {}}, "Invalid JSON: a Feedback has no field 'truths' (is it 'truth'?)"),
        ({"request": {"dta": {}}}, "Invalid JSON: request has no field 'dta' (is it 'data'?)"),
        ({"request": {"meta": {"x": 1}}}, "request.meta has no field 'x'; it has puid, tags"),
        ({"response": 5}, "Invalid JSON: response is not an object"),
        ({"reward": "good"}, "Invalid JSON: reward is 'good', not a number"),
        ({"reward": True}, "Invalid JSON: reward is 'True', not a number"),
        ({"reward": [1]}, "Invalid JSON: reward is '[1]', not a number"),
        ({"reward": "1_0"}, "Invalid JSON: reward is '1_0', not a number"),
        ({"reward": "nan"}, "Invalid JSON: reward is nan, not a finite"),
        ({"reward": 1e39}, "Invalid JSON: reward is 1e+39, not a finite 32-bit number"),
        ({"reward": 10**400}, "Invalid JSON: reward is '1000"),
        ({"reward": 1_000_001}, "reward is 1000001; it is a number from -1,000,000 to 1,000,000"),
        ({"reward": "-1000000.000001"}, "reward is -1000000.000001; it is a number from"),
        ({"reward": 1e-7}, "reward is 1e-07; it has at most six digits after the point"),
        ({"reward": 0.1 + 0.2}, "reward is 0.30000000000000004; it has at most six digits after"),
        ({"reward": "0.0000001"}, "reward is 0.0000001; it has at most six digits after the point"),
        (truth([0]), "truth about no prediction: send its puid, as in {"),
        ({"request": {"meta": {"puid": 7}}}, "Invalid JSON: request.meta.puid is not a string"),
        ({"request": {"meta": {"tags": [1]}}}, "request.meta.tags is not an object"),
        ({"request": {"meta": {"metrics": {}}}}, "request.meta.metrics is not a list"),
        (metrics(1), "request.meta.metrics[0] is not an object with key, type and value"),
        (metrics({}, None), "request.meta.metrics[1] is not an object with key, type and value"),
        (metrics({"odd": 1}), "request.meta.metrics[0] has no field 'odd'; it has key, type, "),
        (metrics({"key": 1}), "request.meta.metrics[0].key is not a string"),
        (metrics({"type": "ODD"}),
         "request.meta.metrics[0].type is 'ODD', none of COUNTER, GAUGE, TIMER"),
        (metrics({"value": "x"}), "request.meta.metrics[0].value is 'x', not a number"),
        (metrics({"value": math.nan}), "request.meta.metrics[0].value is nan, not a finite 32-bit"),
        (metrics({"tags": {"a": 1}}), "request.meta.metrics[0].tags is not an object of strings"),
        ({"request": {"meta": {"tags": {"row": -1}}}}, "request.meta.tags.row is '-1'; it is"),
        ({"request": {"meta": {"tags": {"row": 0.5}}}}, "request.meta.tags.row is '0.5'"),
        ({"request": {"meta": {"tags": {"row": True}}}}, "request.meta.tags.row is 'True'"),
        ({"request": {"meta": {"tags": {"row": "1"}}}}, "request.meta.tags.row is '1'"),
        ({"request": {"meta": {"tags": {"row": 1e400}}}}, "request.meta.tags.row is 'inf'"),
        ({"request": {"meta": {"puid": "a"}}, "response": {"meta": {"puid": "b"}}},
         "response.meta.puid is 'b' and request.meta.puid is 'a'"),
        ({"request": {"meta": {"tags": {"row": 1}}}, **truth([0, 1])}, "2 truths for the one row"),
        ({"request": {"data": {"ndarray": [[1, "x"], [2]]}}},
         "the request that the feedback carries: row 1 has 1 column, row 0 has 2"),
        (truth([-1]), "truth 0 is -1; send 1 for an outlier and 0 for an inlier"),
        (truth([0, 0.5]), "truth 1 is 0.5; send 1 for an outlier"),
        (truth([None]), "truth 0 is None; send 1"),
        (truth([[0, 1]]), "truth 0 is [0, 1]; send 1"),
        (truth("01"), "truth is a list with 0 or 1 for each row"),
        ({"truth": {"jsonData": [1]}}, "truth.jsonData is not read here"),
        ({"truth": {"data": [1]}}, "truth.data is not an object"),
        ({"truth": {"data": {"tensor": {"shape": [1, 2], "values": [0, 1]}}}},
         "truth.data.tensor has the shape [1, 2]; its 2 values are of the shape [2]"),
        ({"truth": {"data": {"tensor": [1]}}}, "truth.data.tensor is an object"),
    ],
)  # fmt: skip
def test_a_message_that_is_not_feedback_is_refused_with_a_reason(body, words):
    with pytest.raises(BadInput) as refusal:
        decode(body)
    assert words in str(refusal.value)


def test_metrics_of_the_request_are_kept():
    sent = [{"key": "a", "type": "TIMER", "value": "2.5", "tags": {"b": "c"}}, {"type": 0}, {}]
    assert decode(metrics(*sent)).metrics == tuple(sent)


def test_limits_hold_for_truths_and_for_the_request():
    with pytest.raises(TooLarge, match="3 truths in one message; at most 2"):
        decode(truth([0, 0, 0]), rows=2)
    with pytest.raises(TooLarge, match="the feedback carries: 3 rows in one request"):
        decode({"request": {"data": {"ndarray": [[1]] * 3}}}, rows=2)


def test_the_response_has_no_data_and_the_figures_as_metrics():
    total, recent = Confusion(true_positive=2, true_negative=1), Confusion(true_positive=1)
    summary = FeedbackSummary(total=total, recent=recent, models=("a1", "b2"))
    about = Statement("p")
    feedback = Feedback(about, is_array=True, metrics=({"key": "mine"},), path={"a": "b:1"})
    answer = encode_summary(feedback, Totals(4, 1), 0.0, summary, {"unit": "c:2"})
    assert answer["data"] == {"ndarray": []}
    assert answer["meta"]["puid"] == "p"
    assert answer["meta"]["requestPath"] == {"unit": "c:2", "a": "b:1"}
    assert answer["meta"]["metrics"][0] == {"key": "mine"}
    assert answer["meta"]["tags"] == {"models": ["a1", "b2"]}
    gauges = {gauge["key"]: gauge["value"] for gauge in answer["meta"]["metrics"][1:]}
    assert (gauges["observation"], gauges["recall_tot"], gauges["nb_labels_roll"]) == (4, 1.0, 1)
    assert "is_outlier" not in gauges
    empty = encode_summary(Feedback(about), Totals(0, 0), 0.0, FeedbackSummary(), {})
    assert empty["data"] == {"tensor": {"shape": [0]}}
    assert "requestPath" not in empty["meta"]
    assert "tags" not in empty["meta"]
    many = FeedbackSummary(models=tuple(f"{i:012x}" for i in range(25)))
    listed = encode_summary(Feedback(about), Totals(0, 0), 0.0, many, {})["meta"]["tags"]["models"]
    assert listed[-2:] == ["000000000013", "and 5 more"]
