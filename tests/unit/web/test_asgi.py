"""The event loop: it answers what Flask answers, and does not wait for slow clients."""

import asyncio
import json
import sys
import threading
from collections import Counter
from contextlib import ExitStack
from http import HTTPStatus
from itertools import count, product
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, run_wsgi_app

from service.protocols.seldon import plain as plain_messages
from service.serving.detector import Detector
from service.state.records import as_table
from service.web import admission
from service.web.request import from_scope
from tests.support.asgi import Asker, make_scope
from tests.support.examples import examples

KEY = "a key for nothing but tests"
JSON = (b"content-type", b"application/json")
MINE = (b"x-request-id", b"mine")
ROW = b'{"data":{"ndarray":[[1,2]]}}'
V2_ROW = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP64","data":[1,2]}]}'

numbers = st.one_of(st.floats(), st.integers(-(10**400), 10**400), st.text(max_size=3), st.none())
cells = st.one_of(st.floats(-100, 100), numbers, st.booleans())
rows = st.lists(st.floats(-100, 100), min_size=2, max_size=2)
tables = st.lists(rows, min_size=1, max_size=40)
odd_tables = st.one_of(st.lists(st.lists(cells, max_size=3), max_size=4), numbers)
names = st.one_of(
    st.sampled_from([[], ["mean", "sd"], ["sd", "mean"], ["f0", "f1"], ["t:1", "t:0"], None]),
    st.lists(st.text(max_size=3), max_size=3),
)
metas = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={"puid": st.text(max_size=60), "tags": st.dictionaries(st.text(), numbers)}
    ),
)
messages = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries(
            {"ndarray": st.one_of(rows.map(lambda row: [row]), tables, odd_tables)},
            optional={"names": names},
        )
    },
    optional={"meta": metas},
)
bodies = st.one_of(
    messages.map(lambda message: json.dumps(message).encode()),
    st.builds(lambda text: text.encode("utf-16"), st.text()),
    st.binary(max_size=200),
)


class Both:
    """The same service twice: in the event loop, and as Flask alone under a WSGI server."""

    def __init__(self, make_client, stack, **chosen):
        self.apps = []
        for _ in range(2):
            puids = map("puid-{}".format, count())
            self.apps.append(make_client(puids.__next__, **chosen).application)
        self.loop = Asker(self.apps[0].extensions["isoserve"])
        stack.callback(self.loop.close)

    def ask(self, method, path, body=b"", headers=(JSON,), query=b""):
        """Return the answer of both; fail if they differ."""
        headers = [MINE, *headers]
        first = self.loop.ask(method, path, body, headers, query)
        builder = EnvironBuilder(path, method=method, data=body, query_string=query.decode())
        variables = {f"HTTP_{key.decode().upper().replace('-', '_')}": value.decode("latin-1")
                     for key, value in headers}  # fmt: skip
        if "HTTP_CONTENT_TYPE" in variables:
            variables["CONTENT_TYPE"] = variables.pop("HTTP_CONTENT_TYPE")
        environ = builder.get_environ() | variables
        with patch.object(plain_messages, "read_row", lambda *_: None):  # takes the general way
            chunks, status, got = run_wsgi_app(self.apps[1].wsgi_app, environ)
        fields = {name.lower().encode(): value.encode("latin-1") for name, value in got}
        for headers in (first[1], fields):
            headers.pop(b"date", None)
        second = int(status[:3]), fields, b"".join(chunks)
        assert first == second
        return first


CHECKS = {
    "no checks": {},
    "a key": {"api_key": KEY},
    "few rows in flight": {"rows_in_flight": 1},
    "an image of Seldon's graph": {"model_image": "image:1"},
    "no metrics": {"answer_metrics": False},
}


@pytest.fixture(params=CHECKS)
def both(make_client, request):
    with ExitStack() as stack:
        yield Both(make_client, stack, max_body_bytes=100_000, **CHECKS[request.param])


@pytest.fixture
def plain(make_client):
    with ExitStack() as stack:
        yield Both(make_client, stack)


def test_the_event_loop_and_flask_give_the_same_responses(both, request):
    check_same(both, 1000 if "no checks" in request.node.name else 50)


@pytest.mark.slow
def test_the_event_loop_and_flask_give_the_same_responses_to_thousands_of_requests(both):
    check_same(both, 2000)


def check_same(both, number):
    headers = [JSON, (b"x-api-key", KEY.encode())]

    @settings(max_examples=examples(number), deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies)
    @example(b"")
    @example(ROW)
    @example(b'{"data":{"ndarray":[[1,2]],"ndarray":[[3,4]]}}')
    @example(b'{"data":[[[[[[[[[]]]]]]]]],"data":{"ndarray":[[1,2]]}}')
    @example(b'{"data":{"ndarray":[[true,1e308]]}}')
    @example(b'{"data":{"ndarray":[[1,1e999]]}}')
    @example(b'{"data":{"ndarray":[["1","2"]]}}')
    @example(b'{"data":{"ndarray":[[1,2]]},"meta":{}}')
    @example(b'{"data":{"names":["mean","sd"],"ndarray":[[1,2]]}}')
    @example(b'{"data":{"names":["sd","mean"],"ndarray":[[1,2]]}}')
    @example(b"[" * 100_000)
    @example(b" " * 100_001)
    def same(body):
        status, _, _ = both.ask("POST", "/predict", body, headers)
        assert status < 500

    same()


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v2/models/isoserve/infer", V2_ROW), ("/invocations", b'{"inputs":[[1,2]]}')],
)
def test_the_other_protocols_are_answered_alike_too(plain, path, body):
    assert plain.ask("POST", path, body)[0] == HTTPStatus.OK
    assert plain.ask("POST", path, b"{" + body)[0] == HTTPStatus.BAD_REQUEST
    assert plain.ask("POST", path, b"")[0] == HTTPStatus.BAD_REQUEST


PATHS = (
    *("/live", "/ready", "/ping", "/health", "/health/ping", "/v2/health/ready", "/metadata"),
    *("/docs", "/docs/", "/v2", "/v2/", "/v2/models/isoserve", "/v2/models/isoserve/ready"),
    *("/nowhere", "/predict", "/v2/models/none/infer", "/route", "/invocations/", "/"),
)


def test_every_method_and_path_gets_flasks_response(plain):
    for path, method in product(PATHS, ["GET", "HEAD", "OPTIONS", "POST", "DELETE"]):
        plain.ask(method, path)


def test_a_path_with_two_slashes_is_one_with_one(plain):
    for path in ("//predict", "///predict"):
        assert plain.loop.ask("POST", path, ROW, [JSON])[0] == HTTPStatus.OK


UNUSUAL = (
    ([JSON], b"scores=1"),
    ([JSON], b"explain=1&x=%C3%A9"),
    ([JSON], b"explian=1"),
    ([(b"content-type", b"text/plain")], b""),
    ([(b"content-type", b"application/json; charset=utf-8")], b""),
    ([JSON, (b"content-encoding", b"gzip")], b""),
    ([JSON, (b"origin", b"https://example.org")], b""),
    ([JSON, (b"authorization", b"\xff")], b""),
    ([], b""),
)


def test_unusual_predictions_get_flasks_response(plain):
    for headers, query in UNUSUAL:
        plain.ask("POST", "/predict", ROW, headers, query)


def test_a_query_of_other_bytes_than_ascii_is_read(plain):
    status, _, body = plain.loop.ask("POST", "/predict", ROW, [JSON], "é=1".encode())
    assert status == HTTPStatus.OK, body


def test_only_harmless_request_ids_are_repeated(plain):
    for name in (b"mine", b"", b"two words", b"x" * 65):
        headers = plain.loop.ask("GET", "/live", headers=[(b"x-request-id", name)])[1]
        assert (headers[b"x-request-id"] == name) == (name == b"mine")


def test_an_internal_error_is_one_sentence(plain, monkeypatch):
    monkeypatch.setattr("service.serving.predictor.Predictor.predict", lambda *arguments: 1 / 0)
    status, _, body = plain.ask("POST", "/predict", ROW)
    assert (status, b"internal error; the log has it" in body) == (500, True)


def test_the_key_is_checked_before_the_body_is_read(make_client):
    with ExitStack() as stack:
        both = Both(make_client, stack, api_key=KEY)
        status, headers, body = both.ask("POST", "/predict", b"[" * 1000)
        assert (status, headers[b"www-authenticate"]) == (401, b"Bearer")
        assert b"X-API-Key" in body


def test_a_repeated_key_is_no_key(make_client):
    with ExitStack() as stack:
        both = Both(make_client, stack, api_key=KEY)
        twice = [(b"x-api-key", b"another"), (b"x-api-key", KEY.encode())]
        assert both.loop.ask("GET", "/metadata", headers=twice)[0] == HTTPStatus.UNAUTHORIZED


def test_a_request_without_host_is_refused(plain):
    scope = make_scope("GET", "/live")
    scope["headers"] = []
    assert plain.loop.run(plain.loop.send(scope, [b""]))[0] == HTTPStatus.BAD_REQUEST
    scope["http_version"] = "1.0"
    assert plain.loop.run(plain.loop.send(scope, [b""]))[0] == HTTPStatus.OK


def test_rows_in_flight_are_limited_and_short_requests_admitted(make_client):
    with ExitStack() as stack:
        both = Both(make_client, stack, rows_in_flight=1)
        for app in both.apps:
            stack.enter_context(app.extensions["isoserve"].admission.row_limit.admit(1))
        many = json.dumps({"data": {"ndarray": [[1, 2]] * 200}}).encode()
        status, headers, body = both.ask("POST", "/predict", many)
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert b"1 rows are being scored already" in body
        assert both.ask("POST", "/predict", ROW)[0] == HTTPStatus.OK


def test_a_body_in_parts_is_joined_and_limited(plain, make_client):
    scope = make_scope("POST", "/predict", [JSON])
    parts = [ROW[:5], ROW[5:20], b"", ROW[20:]]
    assert plain.loop.run(plain.loop.send(scope, parts))[0] == HTTPStatus.OK
    with ExitStack() as stack:
        small = Both(make_client, stack, max_body_bytes=20).loop
        status, _, body = small.run(small.send(scope, parts))
        assert (status, b"larger than 20 bytes" in body) == (413, True)


def test_a_body_that_comes_too_slowly_is_refused(make_client):
    with ExitStack() as stack:
        loop = Both(make_client, stack, timeout=1).loop
        answer = loop.run(loop.send(make_scope("POST", "/predict", [JSON]), [b"{"] * 4, pause=0.4))
        assert (answer[0], b"did not arrive within 1 seconds" in answer[2]) == (408, True)


def test_a_client_that_leaves_gets_no_answer_and_is_forgotten(plain):
    assert plain.loop.run(plain.loop.send(make_scope("POST", "/predict", [JSON]), [])) is None
    assert plain.loop.app.in_flight.all() == []


def test_a_body_that_never_begins_is_told_to_be_too_slow(plain):
    plain.loop.app._timeout = 0
    headers = [JSON, (b"content-length", b"9")]
    answer = plain.loop.run(plain.loop.send(make_scope("POST", "/predict", headers), [], 0.01))
    assert answer[0] == HTTPStatus.REQUEST_TIMEOUT


LONG = json.dumps({"data": {"ndarray": [[1, 2]] * 5000}}).encode()


@pytest.mark.parametrize("path", ["/predict", "/transform-input"])  # in either pool of threads
def test_a_request_whose_client_has_gone_is_watched_until_its_thread_ends(plain, monkeypatch, path):
    loop, begun, go_on = plain.loop, threading.Event(), threading.Event()
    score = Detector.score

    def wait(*arguments):
        begun.set()
        go_on.wait(10)
        return score(*arguments)

    monkeypatch.setattr(Detector, "score", wait)

    async def leave():
        task = asyncio.ensure_future(loop.send(make_scope("POST", path, [JSON]), [LONG]))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 10)
        task.cancel()  # as gunicorn does some seconds after the client has left
        await asyncio.sleep(0.05)
        (request,) = loop.app.in_flight.all()
        assert request.thread not in (0, threading.get_ident())
        go_on.set()
        return await task

    assert loop.run(leave())[0] == HTTPStatus.OK
    assert loop.app.in_flight.all() == []
    assert loop.app._in_flask == 0


@pytest.mark.parametrize(
    ("path", "body"), [("/predict", ROW), ("/predict", LONG), ("/transform-input", ROW)]
)
def test_a_client_that_reads_slowly_is_no_hung_request(plain, path, body):
    loop, seen = plain.loop, []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(_):
        (request,) = loop.app.in_flight.all()
        seen.append((request.thread, request.answered > 0))

    loop.run(loop.app(make_scope("POST", path, [JSON]), receive, send))
    assert set(seen) == {(0, True)}


@pytest.mark.parametrize(
    ("headers", "query", "body", "is_short"),
    [
        ([], b"", ROW, True),
        ([], b"scores=1&pvalues=1", ROW, True),
        ([], b"explain=1", ROW, False),
        ([], b"x=1", b"", True),
        ([(b"content-encoding", b"gzip")], b"", ROW, False),
        ([], b"", b"[0.25,0.5]," * 1000, True),
        ([], b"", b"[1,2]," * 2000, False),
        ([], b"", b"[0.25,0.5]," * 2000, False),
        ([], b"", b'"contributions"' + b" " * 2000, False),
        ([(b"inference-header-content-length", b"9")], b"", b'"INT8"' + bytes(3000), False),
    ],
)
def test_what_takes_long_is_no_work_for_the_event_loop(plain, headers, query, body, is_short):
    scope = make_scope("POST" if body else "GET", "/predict", [JSON, *headers], query)
    assert plain.loop.app._handlers.are_short(from_scope(scope), body) is is_short


def test_a_plain_prediction_costs_at_most_a_hundred_calls(plain):
    app, calls = plain.loop.app, []
    headers = [JSON, (b"content-length", b"%d" % len(ROW))]
    scope, message = make_scope("POST", "/predict", headers), {"body": ROW, "more_body": False}

    async def receive():
        return {"type": "http.request", **message}

    async def send(message):
        if not message.get("more_body", True):
            sys.setprofile(None)

    def note(frame, event, _):
        if event in ("call", "c_call") and frame.f_code.co_filename != __file__:
            calls.append(frame.f_code.co_name)

    async def measure():
        for _ in range(3):
            calls.clear()
            sys.setprofile(note)
            try:
                await app(scope, receive, send)
            finally:
                sys.setprofile(None)

    plain.loop.run(measure())
    assert 50 < len(calls) <= 100, Counter(calls).most_common()


def test_bodies_held_at_once_are_bounded(make_client):
    with ExitStack() as stack:
        loop = Both(make_client, stack, max_body_bytes=1000).loop
        scope, parts = make_scope("POST", "/predict", [JSON]), [b" " * 400, b" " * 400, ROW]

        async def many():
            return await asyncio.gather(*(loop.send(scope, parts, 0.05) for _ in range(30)))

        statuses = [answer[0] for answer in loop.run(many())]
        assert set(statuses) == {200, 503}
        assert loop.ask("POST", "/predict", ROW, [JSON])[0] == HTTPStatus.OK
        assert loop.app._held == 0


def test_short_requests_are_answered_while_long_ones_wait_for_their_turn(make_client, monkeypatch):
    with ExitStack() as stack:
        loop = Both(make_client, stack).loop
        monkeypatch.setattr(admission, "_patience", lambda _rows: 0.001)
        scope, order = make_scope("POST", "/predict", [JSON]), []

        async def ask(body):
            answer = await loop.send(scope, [body])
            order.append(answer[0])
            return answer

        async def many():
            return await asyncio.gather(*map(ask, [LONG] * 20), ask(ROW))

        answers = loop.run(many())
        assert answers[-1][0] == HTTPStatus.OK
        assert {200, 503} == {answer[0] for answer in answers}
        refused = next(answer for answer in answers if answer[0] != HTTPStatus.OK)
        assert refused[1][b"retry-after"] == b"1"
        assert b"more requests wait" in refused[2]
        assert loop.app._in_threads == 0


def test_long_requests_go_on_beside_one_that_hangs_while_there_are_threads(
    make_client, monkeypatch
):
    begun, go_on = threading.Event(), threading.Event()
    score = Detector.score

    def hang(detector, rows, *more):
        if rows.values[0, 0] == 666:
            begun.set()
            go_on.wait(10)
        return score(detector, rows, *more)

    monkeypatch.setattr(Detector, "score", hang)
    monkeypatch.setattr(admission, "_LONGEST", 0.01)
    hanging = LONG.replace(b"[1, 2]", b"[666, 2]", 1)
    with ExitStack() as stack:
        for threads in (1, 2):
            loop = Both(make_client, stack, threads=threads).loop
            begun.clear()
            go_on.clear()

            async def ask(loop=loop, threads=threads):
                scope = make_scope("POST", "/predict", [JSON])
                first = asyncio.ensure_future(loop.send(scope, [hanging]))
                await asyncio.get_running_loop().run_in_executor(None, begun.wait, 10)
                second = asyncio.ensure_future(loop.send(scope, [LONG]))
                await asyncio.wait([second], timeout=10 if threads == 2 else 0.1)
                assert second.done() == (threads == 2)  # one that waits alone is not refused
                go_on.set()
                return (await first)[0], (await second)[0]

            assert loop.run(ask()) == (200, 200)


def test_a_refused_body_is_read_before_the_answer_ends(make_client):
    with ExitStack() as stack:
        loop = Both(make_client, stack, api_key=KEY).loop
        parts = [b"x"] * 5
        scope, left = make_scope("POST", "/predict", [JSON]), list(parts)
        sent = []

        async def receive():
            part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(left)}

        async def send(message):
            sent.append((message, len(left)))

        loop.run(loop.app(scope, receive, send))
        assert sent[0][0]["status"] == HTTPStatus.UNAUTHORIZED
        assert [entry[1] for entry in sent] == [5, 5, 0]


def test_a_stopping_service_asks_clients_to_close_their_connections(plain):
    plain.loop.app.admission.stopping.set()
    assert plain.loop.ask("GET", "/live")[1][b"connection"] == b"close"
    assert plain.loop.ask("GET", "/metadata")[1][b"connection"] == b"close"
    assert plain.loop.ask("GET", "/ready")[0] == HTTPStatus.SERVICE_UNAVAILABLE


def test_requests_are_counted_by_their_route(plain):
    for method, path, body in [
        ("POST", "/predict", ROW),
        ("GET", "/live", b""),
        ("GET", "/x", b""),
    ]:
        plain.loop.ask(method, path, body, [JSON])
    page = plain.loop.ask("GET", "/metrics")[2].decode()
    for route, status in (("/predict", "2xx"), ("/live", "2xx"), ("other", "4xx")):
        assert f'isoserve_requests_total{{route="{route}",status="{status}"}} 1.0' in page


TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("query", [b"", b"explain=1"])
@pytest.mark.parametrize(
    ("path", "body"),
    [("/predict", ROW), ("/predict", ROW.replace(b"]]", b"],[3,4]]")), ("/invocations",
     b'{"inputs": [[1, 2]]}'), ("/v2/models/isoserve/infer", V2_ROW)],
)  # fmt: skip
def test_rows_are_recorded_with_their_trace(make_client, path, body, query):
    if path.startswith("/v2") and query:
        pytest.skip("V2 has no options")
    app = make_client().application.extensions["isoserve"]
    asker = Asker(app)
    for sent in ([JSON], [JSON, (b"traceparent", TRACEPARENT)]):
        status, headers, _ = asker.ask("POST", path, body, sent, query)
        assert (status, dict(headers).get(b"traceparent")) == (200, dict(sent).get(b"traceparent"))
    asker.close()
    records = app._entrance._predictor.records
    recorded = as_table(records)["trace_id"]
    half = len(recorded) // 2
    assert recorded == [None] * half + [TRACEPARENT[3:35].decode()] * half
