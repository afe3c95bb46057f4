"""Handlers, without Flask and without a server: from a body to an answer."""

import json

import numpy as np
import pytest

from service.errors import BadInput, TooLarge, Unavailable, Unsupported
from service.model.file import load_model
from service.protocols.codec import JSON
from service.rows import Limits, Totals
from service.serving.detector import Detector
from service.serving.feedback import FeedbackMatcher
from service.serving.predictor import Predictor
from service.state.counts import Counts
from service.state.feedback.store import begin_feedback
from service.state.records import begin_records
from service.web.admission import RowLimit
from service.web.handlers import Handlers, encode_error
from service.web.request import Request
from tests.support.cards import calibration

ROW, OUTLIER = [1.0, 1.0], [60.0, 40.0]


@pytest.fixture
def handlers(folder, write_card):
    write_card()
    detector = Detector(load_model(folder / "model.pickle"))
    state = folder / "state"
    state.mkdir()
    predictor = Predictor(detector, Counts(), begin_records(state, ("mean", "sd"), 100))
    matcher = FeedbackMatcher(predictor, begin_feedback(state))
    return Handlers(predictor, Limits(rows=1000), lambda: "new", matcher, RowLimit(1000))


def ask(query=b"", content_type=JSON):
    return Request("POST", "/", {b"content-type": content_type.encode()}, query)


def body(rows, **more):
    return json.dumps({"data": {"ndarray": rows}, **more}).encode()


def test_each_protocol_scores_counts_and_records_the_same_rows(handlers):
    tensor = {"name": "rows", "shape": [2, 2], "datatype": "FP64", "data": [*ROW, *OUTLIER]}
    seldon = handlers.seldon(ask(), body([ROW, OUTLIER]))
    infer = handlers.open_inference(ask(), json.dumps({"inputs": [tensor]}).encode())
    invoked = handlers.invocations(ask(), json.dumps({"inputs": [ROW, OUTLIER]}).encode())
    assert json.loads(seldon.body)["data"]["ndarray"] == [0, 1]
    assert json.loads(infer.body)["outputs"][0]["data"] == [0, 1]
    assert json.loads(invoked.body)["predictions"] == [0, 1]
    assert handlers.predictor.counts.totals() == Totals(6, 3)
    assert len(handlers.predictor.records.read()) == 6
    versions = {answer.version for answer in (seldon, infer, invoked)}
    assert versions == {handlers.predictor.detector.model.version}


def test_a_prediction_keeps_its_id_or_gets_a_new_one(handlers):
    for meta, puid in (({"puid": "mine"}, "mine"), ({}, "new")):
        answer = json.loads(handlers.seldon(ask(), body([ROW], meta=meta)).body)
        assert answer["meta"]["puid"] == puid
        assert len(handlers.predictor.records.find(puid)) == 1


def test_each_protocol_gives_p_values_where_they_are_asked_for(handlers, write_card, folder):
    write_card(calibration=calibration(np.linspace(-0.1, 0.9, 999)))
    detector = handlers.predictor.detector = Detector(load_model(folder / "model.pickle"))
    scores = detector.model.scorer.decision_function(np.array([ROW, OUTLIER]))
    expected = [(1 + int((np.linspace(-0.1, 0.9, 999) <= score).sum())) / 1000 for score in scores]
    asked = ask(b"pvalues=1")
    tensor = {"name": "rows", "shape": [2, 2], "datatype": "FP64", "data": [*ROW, *OUTLIER]}
    message = {"inputs": [tensor], "outputs": [{"name": "pvalue"}]}
    seldon = handlers.seldon(asked, body([ROW, OUTLIER]))
    infer = handlers.open_inference(ask(), json.dumps(message).encode())
    rows = json.dumps({"inputs": [ROW, OUTLIER]}).encode()
    invoked = handlers.invocations(asked, rows)
    assert json.loads(seldon.body)["meta"]["tags"] == {"p-values": expected}
    (output,) = json.loads(infer.body)["outputs"]
    assert (output["name"], output["datatype"], output["data"]) == ("pvalue", "FP64", expected)
    assert json.loads(invoked.body)["pvalues"] == expected
    assert "pvalues" not in json.loads(handlers.invocations(ask(), rows).body)
    low = (scores < np.linspace(-0.1, 0.9, 999)[9]).sum()
    assert handlers.predictor.low_pvalues.read()[0.01] == 4 * low > 0


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "its card is of an earlier version"),
        ({"calibration": calibration([])}, "too few trees"),
    ],
)
def test_p_values_that_a_model_does_not_have_are_refused_before_anything_is_counted(
    handlers, write_card, folder, changes, words
):
    write_card(**changes)
    handlers.predictor.detector = Detector(load_model(folder / "model.pickle"))
    tensor = {"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": ROW}
    message = {"inputs": [tensor], "outputs": [{"name": "pvalue"}]}
    rows = json.dumps({"inputs": [ROW]}).encode()
    for predict in (
        lambda: handlers.seldon(ask(b"pvalues=1"), body([ROW])),
        lambda: handlers.invocations(ask(b"pvalues=1"), rows),
        lambda: handlers.open_inference(ask(), json.dumps(message).encode()),
    ):
        with pytest.raises(BadInput, match=f"this model has no p-values: {words}"):
            predict()
    assert handlers.predictor.counts.totals() == Totals(0, 0)


def test_a_refused_request_is_neither_counted_nor_recorded(handlers):
    with pytest.raises(BadInput, match=r"row 0, column 1 \('sd'\): 'x' is not a number"):
        handlers.seldon(ask(), body([[1, "x"]]))
    with pytest.raises(BadInput, match="row 0, column 1: inf is not a finite number"):
        handlers.seldon(ask(), b'{"data": {"ndarray": [[1, Infinity]]}}')
    with pytest.raises(BadInput, match="Can't find JSON"):
        handlers.seldon(ask(), b'{"data": {"ndarray": [[1, 2]]}, "x": Infinity}')
    with pytest.raises(TooLarge, match="1,001 rows in one request; at most 1,000"):
        handlers.seldon(ask(), body([ROW] * 1001))
    with pytest.raises(Unsupported):
        handlers.invocations(ask(content_type="text/plain"), b"x")
    assert handlers.predictor.counts.totals() == Totals(0, 0)
    assert len(handlers.predictor.records.read()) == 0


def test_scores_and_explanations_are_returned_on_request(handlers):
    answer = json.loads(handlers.seldon(ask(b"scores=1"), body([ROW, OUTLIER])).body)
    assert answer["meta"]["tags"]["threshold"] == 0
    assert [score < 0 for score in answer["meta"]["tags"]["anomaly-scores"]] == [False, True]
    answer = json.loads(handlers.seldon(ask(b"explain=1"), body([ROW, OUTLIER])).body)
    explained = answer["meta"]["tags"]["explanations"]
    assert [one["row"] for one in explained] == [1]
    assert explained[0]["features"][0]["name"] in ("mean", "sd")


def test_feedback_is_stored_and_counts_no_prediction(handlers):
    handlers.seldon(ask(), body([OUTLIER], meta={"puid": "p"}))
    message = {"response": {"meta": {"puid": "p"}}, "truth": {"data": {"ndarray": [1]}}}
    answer = json.loads(handlers.seldon_feedback(ask(), json.dumps(message).encode()).body)
    gauges = {gauge["key"]: gauge["value"] for gauge in answer["meta"]["metrics"]}
    assert (gauges["true_positive"], gauges["observation"]) == (1, 1)


def test_transform_output_scores_nothing(handlers):
    answer = json.loads(handlers.seldon_echo(ask(), b'{"strData": "x"}').body)
    assert answer["strData"] == "x"
    assert handlers.predictor.counts.totals() == Totals(0, 0)


def test_rows_beyond_the_limit_in_flight_are_refused_and_the_next_ones_are_not(handlers):
    with handlers.row_limit.admit(900), pytest.raises(Unavailable, match="900 rows are being"):
        handlers.seldon(ask(), body([ROW] * 500))
    assert handlers.seldon(ask(), body([ROW] * 500)).status == 200


@pytest.mark.parametrize(
    ("path", "key"),
    [("/predict", "status"), ("/v2/models/x/infer", "error"), ("/invocations", "message")],
)
def test_an_error_has_the_shape_of_its_protocol(path, key):
    assert key in json.loads(encode_error(path, "no", 400))
