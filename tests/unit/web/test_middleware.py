import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http import HTTPStatus
from itertools import count

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, run_wsgi_app

from service.web.middleware import new_id
from tests.support.examples import examples

PLAIN = {
    "CONTENT_TYPE": "application/json",
    "HTTP_X_REQUEST_ID": "mine",
    "HTTP_X_API_KEY": "a key for nothing but tests",
}

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


KEY = PLAIN["HTTP_X_API_KEY"]

CHECKS = {
    "no checks": {},
    "a key": {"api_key": KEY},
    "a key and a token": {"api_key": KEY, "admin_token": "a token for nothing but tests"},
    "few rows in flight": {"rows_in_flight": 1},
    "stopping": {},
    "too much to do": {},
}


@pytest.fixture(params=CHECKS)
def both(make_client, request):
    """The same service twice: plain predictions past Flask, and through it; with each check on."""
    apps = []
    for _ in range(2):
        names = map("puid-{}".format, count())
        chosen = {"make_puid": names.__next__, "max_body_bytes": 100_000}
        apps.append(make_client(**chosen, **CHECKS[request.param]).application)
        admission = apps[-1].extensions["isoserve admission"]
        if request.param == "stopping":
            admission.stopping.set()
        if request.param == "too much to do":
            admission.shedder.begin(waited=1.0, behind=100, now=time.monotonic())
    apps[1].wsgi_app._is_plain = lambda environ: False
    return apps


def send(app, body, **changes):
    environ = EnvironBuilder("/predict", method="POST", data=body).get_environ()
    chunks, status, headers = run_wsgi_app(app.wsgi_app, environ | PLAIN | changes)
    return status, list(headers), b"".join(chunks)


def test_the_short_cut_and_flask_give_the_same_responses(both, request):
    number = 1000 if "no checks" in request.node.name else 50
    check_same(both, number, may_be_late="too much" in request.node.name)


@pytest.mark.slow
def test_the_short_cut_and_flask_give_the_same_responses_to_thousands_of_requests(both, request):
    check_same(both, 2000, may_be_late="too much" in request.node.name)


def check_same(both, number, may_be_late):
    @settings(max_examples=examples(number), deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies)
    @example(b"")
    @example(b"[" * 100_000)
    @example(b" " * 100_001)
    def same(body):
        answers = [send(app, body) for app in both]
        assert answers[0] == answers[1]
        late = may_be_late and b"more requests wait than can be answered" in answers[0][2]
        assert late or not answers[0][0].startswith("5")

    same()


@pytest.mark.parametrize("name", ["mine", "", "two words", "x" * 65])
def test_the_short_cut_and_flask_accept_the_same_request_ids(both, name):
    body = b'{"data":{"ndarray":[[1,2]]}}'
    names = [dict(send(app, body, HTTP_X_REQUEST_ID=name)[1])["X-Request-ID"] for app in both]
    assert names == ["mine", "mine"] if name == "mine" else name not in names


def test_the_short_cut_and_flask_refuse_a_body_that_ends_early(both):
    answers = [send(app, b'{"data"', CONTENT_LENGTH="70") for app in both]
    assert answers[0] == answers[1]
    assert b"the body ends early: 7 of 70 bytes came" in answers[0][2]


def test_the_short_cut_and_flask_report_an_internal_error_in_one_sentence(both):
    for app in both:
        app.wsgi_app.handlers.predictor.predict = lambda *arguments: 1 / 0
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
def test_other_requests_than_plain_predictions_get_flasks_response(both, changes):
    answers = [send(app, b'{"data":{"ndarray":[[1,2]]}}', **changes) for app in both]
    assert answers[0] == answers[1]


@pytest.fixture
def both_full(make_client):
    """The same service twice, with as many rows in flight as it admits."""
    apps = [make_client(rows_in_flight=1).application for _ in range(2)]
    apps[1].wsgi_app._is_plain = lambda environ: False
    with ExitStack() as held:
        for app in apps:
            held.enter_context(app.extensions["isoserve admission"].row_limit.admit(1))
        yield apps


def test_the_short_cut_and_flask_limit_the_rows_in_flight(both_full):
    rows = json.dumps([[1, 2]] * 200)
    answers = [send(app, f'{{"data":{{"ndarray":{rows}}}}}'.encode()) for app in both_full]
    assert answers[0] == answers[1]
    assert answers[0][0] == "503 Service Unavailable"
    assert dict(answers[0][1])["Retry-After"] == "1"
    assert b"1 rows are being scored already" in answers[0][2]


def test_short_requests_are_admitted_beside_many_rows(both_full):
    answers = [send(app, b'{"data":{"ndarray":[[1,2]]}}') for app in both_full]
    assert [answer[0] for answer in answers] == ["200 OK", "200 OK"]


@pytest.mark.parametrize("sent", ["", "another key for nothing but tests"])
def test_the_short_cut_and_flask_check_the_key_before_reading_the_body(make_client, sent):
    apps = [make_client(api_key=KEY).application for _ in range(2)]
    apps[1].wsgi_app._is_plain = lambda environ: False
    answers = [send(app, b"[" * 1000, HTTP_X_API_KEY=sent) for app in apps]
    assert answers[0] == answers[1]
    assert answers[0][0] == "401 Unauthorized"
    assert dict(answers[0][1])["WWW-Authenticate"] == "Bearer"
    assert b"X-API-Key" in answers[0][2]


def test_the_short_cut_and_flask_refuse_a_request_without_host(both):
    answers = []
    for app in both:
        environ = EnvironBuilder("/predict", method="POST", data=b"{}").get_environ() | PLAIN
        del environ["HTTP_HOST"]
        answers.append([*run_wsgi_app(app.wsgi_app, environ)[:2]])
    assert answers[0][1] == answers[1][1] == "400 Bad Request"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/live"), ("POST", "/predict"), ("GET", "/metrics"), ("GET", "/nowhere")],
)
def test_every_answer_has_the_security_headers(client, method, path):
    headers = client.open(path, method=method).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Cache-Control"] == "no-store"


def test_every_route_except_health_checks_requires_the_key(make_client):
    client = make_client(api_key=KEY)
    rules = [rule.rule for rule in client.application.url_map.iter_rules() if "<" not in rule.rule]
    open_ones = {rule for rule in rules if client.get(rule).status_code != 401}
    assert open_ones == {
        *("/live", "/ready", "/health/ping", "/health/status", "/api/v1.0/health/status"),
        *("/v2/health/live", "/v2/health/ready", "/ping", "/health"),
    }
    assert client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_a_page_of_another_origin_has_no_more_rights_than_a_client_without_a_key(make_client):
    client, page = make_client(api_key=KEY), {"Origin": "https://example.org"}
    form = {"json": '{"data":{"ndarray":[[1,2]]}}'}
    for path in ("/predict", "/send-feedback"):
        answer = client.post(path, data=form, headers=page)  # a request without preflight
        assert answer.status_code == HTTPStatus.UNAUTHORIZED
        assert b"ndarray" not in client.options(path, headers=page).data
    for answer in (client.get("/live", headers=page), make_client().post("/predict", data=form)):
        assert answer.status_code == HTTPStatus.OK
        assert not {"Set-Cookie", "Access-Control-Allow-Credentials"} & set(answer.headers.keys())


def test_the_admin_token_is_accepted_wherever_the_key_is(make_client):
    client = make_client(api_key=KEY, admin_token="a token for nothing but tests")
    sent = {"Authorization": "Bearer a token for nothing but tests"}
    assert client.get("/metadata", headers=sent).status_code == 200
    path = "/v2/repository/models/isoserve/unload"
    assert client.post(path, headers=sent).status_code == 409
    assert client.post(path, headers={"X-API-Key": KEY}).status_code == 401


def test_a_request_is_listed_as_in_flight_only_while_it_is_answered(client):
    app = client.application
    admission, seen = app.extensions["isoserve admission"], []
    app.before_request(lambda: seen.extend(admission.in_flight.active()))
    client.get("/live", headers={"X-Request-ID": "mine"})
    assert [(one.request_id, one.request) for one in seen] == [("mine", "GET /live")]
    assert admission.in_flight.active() == []


def test_generated_ids_are_unique_over_threads():
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_id(), range(20_000)))
    assert len(set(ids)) == 20_000
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_generated_ids_are_unique_over_forks():
    new_id()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, " ".join(new_id() for _ in range(300)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 2**16).decode().split()
    mine = {new_id() for _ in range(300)}
    assert len(theirs) == 300
    assert mine.isdisjoint(theirs)
