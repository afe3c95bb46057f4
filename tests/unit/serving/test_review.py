"""The queue of flagged rows, its filter, and the labelled rows that are like another."""

import numpy as np
import pytest

from service.errors import BadInput
from service.model.content import read_model_file
from service.model.file import open_model
from service.rows import RawTable
from service.serving import review as module
from service.serving.detector import Detector
from service.serving.feedback import FeedbackMatcher
from service.serving.predictor import Predictor
from service.serving.review import ORDERS, Review
from service.state.counts import Counts
from service.state.feedback.store import begin_feedback
from service.state.records import begin_records
from service.truths import Statement
from tests.support.markup import COLUMNS, ODD, SCRIPT, make_rows, train_model


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    path = train_model(tmp_path_factory.mktemp("hostile"))
    return Detector(open_model(read_model_file(path)))


@pytest.fixture
def matcher(detector, tmp_path):
    columns = detector.columns.recorded
    texts = [name for name, is_text in columns.items() if is_text]
    records = begin_records(tmp_path, list(columns), 2_000, texts=texts)
    predictor = Predictor(detector, Counts(), records)
    return FeedbackMatcher(predictor, begin_feedback(tmp_path))


def send(matcher, rows, puid):
    """Predict some rows; return which are flagged."""
    predictor, detector = matcher.predictor, matcher.predictor.detector
    encoded = detector.columns.encode(RawTable([list(row) for row in rows], tuple(COLUMNS)))
    verdict, _ = predictor.predict(detector, encoded, puid)
    return np.flatnonzero(verdict.labels).tolist()


def usual(n, seed):
    return [row[1:] for row in make_rows(n, seed)]


def look(matcher):
    return Review(matcher.predictor, matcher.store)


def places(matcher, queue):
    read = look(matcher).read(queue.rows)
    return [(row["puid"].decode(), int(row["row"])) for row in read]


def label(matcher, place, truth):
    matcher.record(Statement(place[0], row=place[1], truths=(truth,)))


def expected(matcher, key=lambda row: row["score"], flagged=1):
    """Return the places of unlabelled rows, by reading the record row by row."""
    rows = [row for row in matcher.predictor.records.read() if row["label"] == flagged]
    ordered = sorted(rows, key=key)
    found = [(row["puid"].decode(), int(row["row"])) for row in ordered]
    return [place for place in found if matcher.store.find_truth(*place) is None]


@pytest.fixture
def busy(matcher):
    """Three requests with usual rows and some odd ones."""
    for i in range(3):
        odd = [[ODD[0] * (j + 1) + i, *ODD[1:]] for j in range(4)]
        send(matcher, usual(60, i) + odd, f"p{i}")
    return matcher


def test_a_service_without_rows_has_an_empty_queue(matcher):
    queue = look(matcher).queue()
    assert (len(queue.rows), queue.recorded, queue.flagged, queue.labelled) == (0, 0, 0, 0)


def test_a_service_without_a_record_has_an_empty_queue(detector, tmp_path):
    review = Review(Predictor(detector, Counts()), begin_feedback(tmp_path))
    assert len(review.queue().rows) == 0
    assert review.find("p", 0) is None


def test_flagged_rows_wait_in_the_order_asked_for(busy):
    assert places(busy, look(busy).queue()) == expected(busy)
    nearest = places(busy, look(busy).queue("threshold"))
    assert nearest == expected(busy, lambda row: abs(row["score"]))
    newest = places(busy, look(busy).queue("newest"))
    assert newest == expected(busy, lambda row: -row["stamp"])


def test_rows_that_were_not_flagged_come_in_an_order_without_meaning(busy):
    others = places(busy, look(busy).queue("others"))
    assert sorted(others) == sorted(expected(busy, flagged=0))
    assert others != sorted(others)
    assert others == places(busy, look(busy).queue("others"))


@pytest.mark.parametrize("order", ORDERS)
def test_a_labelled_row_leaves_the_queue_and_returns_when_the_label_is_taken_back(busy, order):
    before = places(busy, look(busy).queue(order))
    label(busy, before[1], 1)
    assert places(busy, look(busy).queue(order)) == before[:1] + before[2:]
    busy.take_back(*before[1])
    assert places(busy, look(busy).queue(order)) == before


def test_the_counts_equal_a_recount(busy):
    first, second, *_ = expected(busy)
    label(busy, first, 1)
    label(busy, second, 0)
    label(busy, expected(busy, flagged=0)[0], 0)
    queue, rows = look(busy).queue(), busy.predictor.records.read()
    assert queue.recorded == len(rows)
    assert queue.flagged == rows["label"].sum()
    assert (queue.labelled, queue.replaced) == (2, 0)
    assert queue.flagged == len(queue.rows) + queue.labelled


def test_more_labels_than_are_read_at_once_are_looked_up_one_by_one(busy, monkeypatch):
    monkeypatch.setattr(module, "MOST_LABELS", 2)
    for place in expected(busy)[:4]:
        label(busy, place, 1)
    queue = look(busy).queue()
    assert not queue.is_exact
    assert places(busy, queue) == expected(busy)


def test_rows_whose_puid_was_used_again_are_counted_apart(matcher):
    flagged = send(matcher, [ODD, ODD], "same")
    assert send(matcher, [ODD], "same") == [0]
    queue = look(matcher).queue()
    assert (places(matcher, queue), queue.replaced) == ([("same", 0)], len(flagged))


def test_a_puid_that_the_record_cut_is_known_to_be_cut(matcher):
    send(matcher, [ODD], "x" * 60)
    [(name, _)] = places(matcher, look(matcher).queue())
    assert not module.is_known(name)
    assert module.is_known("monday-1")


def filtered(matcher, find):
    read = look(matcher).read(look(matcher).queue("others", find).rows)
    return matcher.predictor.records.cells(read), read


def test_a_filter_compares_columns_and_searches_texts(busy):
    cells, _ = filtered(busy, "amount>20 amount<40")
    assert len(cells["amount"])
    assert ((cells["amount"] > 20) & (cells["amount"] < 40)).all()
    cells, _ = filtered(busy, "shop=CAFE")
    assert set(cells["shop"].tolist()) == {b"cafe"}
    number = cells[SCRIPT][0]
    cells, _ = filtered(busy, f'"{SCRIPT}={number}"')
    assert set(cells[SCRIPT].tolist()) == {number}
    cells, _ = filtered(busy, "<b>")
    assert set(cells["shop"].tolist()) == {b"<b>bold</b>"}
    _, read = filtered(busy, "p1")
    assert set(read["puid"].tolist()) == {b"p1"}


@pytest.mark.parametrize("find", ["amount > 20", "amount> 20", "Amount >20", "amount>20"])
def test_a_comparison_may_have_blanks(busy, find):
    cells, _ = filtered(busy, find)
    assert len(cells["amount"])
    assert (cells["amount"] > 20).all()


@pytest.mark.parametrize(("value", "number"), [("yes", 1.0), ("No", 0.0), ("1", 1.0), ("", None)])
def test_a_flag_is_found_by_the_word_that_is_shown(value, number):
    column = np.array([0.0, 1.0, np.nan])
    wanted = np.isnan(column) if number is None else column == number
    assert (module._compare(column, "=", value, "new") == wanted).all()


@pytest.mark.parametrize("find", ["'", '"a', "amount=", "=", ">", "%s", "\0"])
def test_a_filter_that_is_half_typed_is_no_error(busy, find):
    look(busy).queue(find=find)


@pytest.mark.parametrize(
    ("find", "text"),
    [
        ("amount>x", "amount is a number, and 'x' is none"),
        ("amount=yes", "amount is a number, and 'yes' is none"),
        ("shop<a", "filter it with shop=value"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_with_a_sentence(busy, find, text):
    with pytest.raises(BadInput, match=text):
        look(busy).queue(find=find)


def test_an_unknown_order_is_refused_with_those_that_there_are(busy):
    with pytest.raises(BadInput, match="abnormal, threshold, newest, others, not 'worst'"):
        look(busy).queue("worst")


def test_recorded_rows_are_encoded_as_they_were_scored(busy):
    review = look(busy)
    rows = review.read(review.outline)
    kept = rows[[len(text) < 32 for text in rows["texts"][:, 1].tolist()]]
    encoded = review.encode(kept)
    assert np.array_equal(busy.predictor.detector.score(encoded).scores, kept["score"])


def test_the_labelled_rows_most_alike_share_the_most_leaves(busy):
    for i, place in enumerate(expected(busy)[:6] + expected(busy, flagged=0)[:6]):
        label(busy, place, i % 2)
    review = look(busy)
    place = expected(busy)[0]
    row = review.encode(review.find(*place))
    found = review.neighbours(row, place, most=4)
    scorer, truths = busy.predictor.detector.model.scorer, {}
    for one in busy.store.last_truths(99):
        other = review.encode(review.find(one.puid, one.row_index))
        alike = float(scorer.alikeness(row.values[0], other.values)[0])
        truths[one.puid, one.row_index] = alike, one.truth
    assert [one.alikeness for one in found] == sorted((a for a, _ in truths.values()))[:-5:-1]
    for one in found:
        assert truths[one.puid, one.row] == (one.alikeness, one.truth)
        assert one.cells[0] == review.find(one.puid, one.row)["values"][0, 0]


def test_only_the_rows_labelled_last_are_compared(busy, monkeypatch):
    monkeypatch.setattr(module, "MOST_COMPARED", 1)
    first, second, third, *_ = expected(busy)
    label(busy, first, 1)
    label(busy, second, 0)
    review = look(busy)
    found = review.neighbours(review.encode(review.find(*third)), third)
    assert [(one.puid, one.row) for one in found] == [second]


def test_a_row_is_not_its_own_neighbour(busy):
    place = expected(busy)[0]
    label(busy, place, 1)
    review = look(busy)
    assert review.neighbours(review.encode(review.find(*place)), place) == []
