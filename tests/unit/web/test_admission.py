import os

import pytest

from service.errors import BadInput, Unauthorized, Unavailable
from service.web.admission import Admission, RowLimit, SharedFlag
from service.web.auth import ApiKey
from service.web.request import Request

KEY = "a key for nothing but tests"


@pytest.mark.parametrize(
    "header",
    [
        {b"x-api-key": KEY.encode()},
        {b"authorization": b"Bearer " + KEY.encode()},
        {b"authorization": b"bearer  " + KEY.encode()},
        {b"x-api-key": b"another key"},
    ],
)
def test_a_key_is_accepted_in_either_header(header):
    assert ApiKey(KEY, "another key").allows(header)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {b"x-api-key": KEY[:-1].encode()},
        {b"x-api-key": b"\xff\x00"},
        {b"authorization": KEY.encode()},
        {b"authorization": b"Basic " + KEY.encode()},
        {b"authorization": b"Bearer"},
    ],
)
def test_a_wrong_key_or_scheme_is_refused(header):
    assert not ApiKey(KEY).allows(header)


def refuse(row_limit, rows, text="rows are being scored"):
    """Check that these rows are refused; return the error."""
    with pytest.raises(Unavailable, match=text) as refusal, row_limit.admit(rows):
        pass
    return refusal.value


def test_rows_beyond_the_limit_are_refused_until_others_are_done():
    row_limit = RowLimit(most_rows=100, threads=4)
    with row_limit.admit(60):
        with row_limit.admit(40):
            refuse(row_limit, 1, "100 rows are being scored")
        with row_limit.admit(1):
            pass
    with row_limit.admit(100):
        pass


def test_a_request_that_is_alone_is_always_admitted():
    row_limit = RowLimit(most_rows=100, threads=4)
    with row_limit.admit(5000):
        assert refuse(row_limit, 1).retry_after == 1


def test_large_requests_leave_one_thread_free():
    row_limit = RowLimit(most_rows=1_000_000, threads=3)
    with row_limit.admit(10_000), row_limit.admit(10_000):
        refuse(row_limit, 10_000)
        with row_limit.admit(9_999):
            pass
    with row_limit.admit(10_000):
        pass


def test_a_failed_request_releases_its_rows():
    row_limit = RowLimit(most_rows=1, threads=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), row_limit.admit(1):
            raise ZeroDivisionError


def test_a_flag_is_shared_by_all_processes():
    flag = SharedFlag()
    assert not flag
    if not (child := os.fork()):
        flag.set()
        os._exit(0)
    os.waitpid(child, 0)
    assert flag


def ask(path, method="GET", **headers):
    fields = {name.lower().replace("_", "-").encode(): value for name, value in headers.items()}
    return Request(method, path, {b"host": b"x"} | fields)


def refusal(admission, path, **asked):
    return type(admission.refusal(ask(path, **asked)))


def test_health_needs_no_key_and_everything_else_does():
    admission = Admission(RowLimit(1, 1), ApiKey(KEY))
    for path in ("/live", "/ready", "/health/ping", "/v2/health/live", "/v2/models/m/ready"):
        assert admission.refusal(ask(path)) is None
    for path in ("/predict", "/metrics", "/nowhere", "/live/", "/metadata"):
        assert refusal(admission, path) is Unauthorized
        assert admission.refusal(ask(path, x_api_key=KEY.encode())) is None


def test_preflight_requests_need_no_key():
    admission = Admission(RowLimit(1, 1), ApiKey(KEY))
    assert admission.refusal(ask("/predict", "OPTIONS")) is None
    assert refusal(admission, "/v2/models/versions/ready/infer") is Unauthorized


def test_only_http_1_0_may_leave_out_the_host():
    admission = Admission(RowLimit(1, 1))
    assert isinstance(admission.refusal(Request("GET", "/live", {})), BadInput)
    assert admission.refusal(Request("GET", "/live", {}, needs_host=False)) is None


def test_a_stopping_service_is_not_ready_but_live_and_still_answers():
    admission = Admission(RowLimit(1, 1))
    admission.stopping.set()
    assert refusal(admission, "/ready") is refusal(admission, "/v2/health/ready") is Unavailable
    assert refusal(admission, "/v2/models/isoserve/versions/1/ready") is Unavailable
    assert admission.refusal(ask("/v2/models/none/ready")) is None  # there is no such model
    admission.version = lambda: "1"
    assert refusal(admission, "/v2/models/isoserve/versions/1/ready") is Unavailable
    assert refusal(admission, "/v2/models/isoserve/ready") is Unavailable
    assert admission.refusal(ask("/v2/models/isoserve/versions/2/ready")) is None
    assert admission.refusal(ask("/live")) is None
    assert admission.refusal(ask("/predict")) is None
