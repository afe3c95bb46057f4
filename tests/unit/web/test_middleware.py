import os
import re
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest
from structlog.testing import capture_logs

from service.web.middleware import new_id

KEY = "a key for nothing but tests"


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
    console = {rule for rule in rules if rule.startswith("/console")}  # it has a login instead
    answers = [client.get(rule, headers={"Host": "127.0.0.1"}) for rule in console]
    assert {answer.status_code for answer in answers} == {403}
    assert open_ones - console == {
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


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("path", ["/predict", "/live", "/nowhere", "/v2/models/isoserve/infer"])
def test_a_trace_goes_through_to_every_answer(client, path):
    answer = client.post(path, data="{", headers={"traceparent": TRACEPARENT})
    assert answer.headers["traceparent"] == TRACEPARENT
    assert "traceparent" not in client.post(path, data="{").headers
    malformed = {"traceparent": TRACEPARENT.upper()}
    assert "traceparent" not in client.post(path, data="{", headers=malformed).headers


def test_log_lines_have_the_trace_or_a_new_one(make_client):
    with capture_logs() as lines:
        client = make_client(access_log=True)
        client.get("/live", headers={"traceparent": TRACEPARENT})
        for sent in ({}, {"traceparent": "malformed"}):
            made = client.get("/live", headers=sent).headers["traceparent"]
            assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", made)
    logged = [line["trace_id"] for line in lines if line["event"] == "request"]
    assert logged[0] == TRACEPARENT[3:35]
    assert logged[2] == made[3:35] != logged[1]
