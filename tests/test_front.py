import json
from http import HTTPStatus
from itertools import count

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, run_wsgi_app

PLAIN = {"CONTENT_TYPE": "application/json", "HTTP_X_REQUEST_ID": "mine"}

numbers = st.one_of(st.floats(), st.integers(-(10**400), 10**400), st.text(max_size=3), st.none())
cells = st.one_of(st.floats(-100, 100), numbers)
tables = st.lists(st.lists(st.floats(-100, 100), min_size=2, max_size=2), min_size=1, max_size=40)
odd_tables = st.one_of(st.lists(st.lists(cells, max_size=3), max_size=4), numbers)
metas = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={"puid": st.text(max_size=60), "tags": st.dictionaries(st.text(), numbers)}
    ),
)
messages = st.fixed_dictionaries(
    {"data": st.fixed_dictionaries({"ndarray": st.one_of(tables, odd_tables)})},
    optional={"meta": metas},
)
bodies = st.one_of(
    messages.map(lambda message: json.dumps(message).encode()),
    st.builds(lambda text: text.encode("utf-16"), st.text()),
    st.binary(max_size=200),
)


@pytest.fixture
def both(make_client):
    """The same service twice, with the short cut and without."""
    apps = []
    for _ in range(2):
        names = map("puid-{}".format, count())
        apps.append(make_client(make_puid=names.__next__, max_body_bytes=100_000).application)
    apps[1].wsgi_app._is_plain = lambda environ: False
    return apps


def send(app, body, **changes):
    environ = EnvironBuilder("/predict", method="POST", data=body).get_environ()
    chunks, status, headers = run_wsgi_app(app.wsgi_app, environ | PLAIN | changes)
    return status, list(headers), b"".join(chunks)


def test_both_ways_give_the_same_answers(both):
    @settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies)
    @example(b"")
    @example(b"[" * 100_000)
    @example(b" " * 100_001)
    def same(body):
        answers = [send(app, body) for app in both]
        assert answers[0] == answers[1]
        assert not answers[0][0].startswith("5")

    same()


@pytest.mark.parametrize("name", ["mine", "", "two words", "x" * 65])
def test_both_ways_name_the_request_alike(both, name):
    body = b'{"data":{"ndarray":[[1,2]]}}'
    names = [dict(send(app, body, HTTP_X_REQUEST_ID=name)[1])["X-Request-ID"] for app in both]
    assert names == ["mine", "mine"] if name == "mine" else name not in names


def test_both_ways_refuse_a_body_that_ends_early(both):
    answers = [send(app, b'{"data"', CONTENT_LENGTH="70") for app in both]
    assert answers[0] == answers[1]
    assert b"the body ends early: 7 of 70 bytes came" in answers[0][2]


def test_both_ways_tell_a_failure_of_ours_in_one_sentence(both):
    for app in both:
        app.wsgi_app._roads.desk.predict = lambda *arguments: 1 / 0
    answers = [send(app, b'{"data":{"ndarray":[[1,2]]}}') for app in both]
    assert answers[0] == answers[1]
    assert answers[0][0].startswith(str(HTTPStatus.INTERNAL_SERVER_ERROR.value))
    assert b"internal error; the log has it" in answers[0][2]


@pytest.mark.parametrize(
    "changes",
    [
        {"QUERY_STRING": "scores=1"},
        {"CONTENT_TYPE": "text/plain"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
        {"CONTENT_LENGTH": "9" * 5000},
        {"CONTENT_LENGTH": "-1"},
        {"CONTENT_LENGTH": ""},
        {"REQUEST_METHOD": "GET"},
    ],
)
def test_only_plain_predictions_take_the_short_cut(both, changes):
    answers = [send(app, b'{"data":{"ndarray":[[1,2]]}}', **changes) for app in both]
    assert answers[0] == answers[1]
