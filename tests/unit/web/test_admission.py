import os
import threading

import pytest

from service.errors import Unauthorized, Unavailable
from service.web.admission import Admission, LoadShedder, RowLimit, SharedFlag, estimate_rows
from service.web.auth import ApiKey
from service.web.in_flight import InFlightRequests

KEY = "a key for nothing but tests"


@pytest.mark.parametrize(
    "header",
    [
        {"HTTP_X_API_KEY": KEY},
        {"HTTP_AUTHORIZATION": f"Bearer {KEY}"},
        {"HTTP_AUTHORIZATION": f"bearer  {KEY}"},
        {"HTTP_X_API_KEY": "another key"},
    ],
)
def test_a_key_is_accepted_in_either_header(header):
    assert ApiKey(KEY, "another key").allows(header)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"HTTP_X_API_KEY": KEY[:-1]},
        {"HTTP_X_API_KEY": "\xff\x00"},
        {"HTTP_AUTHORIZATION": KEY},
        {"HTTP_AUTHORIZATION": f"Basic {KEY}"},
        {"HTTP_AUTHORIZATION": "Bearer"},
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


@pytest.fixture
def row_limit():
    return RowLimit(most_rows=1000, threads=4)


def is_shedding(shedder, waited, behind, now):
    shedder.begin(waited, behind, now)
    return shedder.is_active


def renew(shedder, monkeypatch, now):
    """Refuse a request."""
    monkeypatch.setattr("service.web.admission.monotonic", lambda: now)
    shedder.begin(0.01, 1, now)
    assert shedder.refuses()


@pytest.mark.parametrize(("waited", "behind"), [(0.02, 1000), (60, 11)])
def test_shedding_does_not_start_while_waits_or_queues_are_short(row_limit, waited, behind):
    shedder = LoadShedder(row_limit)
    with row_limit.admit(1000):
        assert not any(is_shedding(shedder, waited, behind, now) for now in range(100, 200))


def test_shedding_ends_a_second_after_the_last_refusal(row_limit, monkeypatch):
    shedder = LoadShedder(row_limit)
    assert is_shedding(shedder, 0.1, 12, 100)
    assert is_shedding(shedder, 0, 0, 100.9)
    assert not is_shedding(shedder, 0, 0, 101.1)
    assert is_shedding(shedder, 0.1, 12, 200)
    renew(shedder, monkeypatch, 200.9)
    assert is_shedding(shedder, 0, 0, 201.8)
    assert not is_shedding(shedder, 0, 0, 202)


def test_a_request_that_is_alone_is_never_shed(row_limit):
    shedder = LoadShedder(row_limit)
    assert is_shedding(shedder, 0.1, 12, 100)
    assert shedder.refuses()
    shedder.end()
    shedder.begin(0.1, 0, 100.1)
    assert not shedder.refuses()


def test_shedding_lasts_at_most_half_a_minute_despite_retries(row_limit, monkeypatch):
    shedder, out = LoadShedder(row_limit), []
    assert is_shedding(shedder, 0.1, 12, 200)
    for now in range(400, 480):
        out.append(is_shedding(shedder, 0.01, 0, now / 2))
        if out[-1]:
            renew(shedder, monkeypatch, now / 2)
    assert out == [True] * 61 + [False] * 19


def test_shedding_starts_when_the_row_limit_refuses(row_limit, monkeypatch):
    monkeypatch.setattr("service.web.admission.monotonic", lambda: 100.0)
    shedder = LoadShedder(row_limit)
    assert not is_shedding(shedder, 0, 0, 99)
    with row_limit.admit(1000):
        refuse(row_limit, 1)
    assert is_shedding(shedder, 0, 0, 100.5)
    assert not is_shedding(shedder, 0, 0, 102)


def test_while_shedding_one_request_is_answered_at_a_time(row_limit):
    shedder, other = LoadShedder(row_limit), []
    assert not shedder.refuses()
    shedder.begin(0.1, 12, 100.0)
    assert shedder.refuses()
    shedder.begin(0.001, 0, 100.1)
    assert not shedder.refuses()

    def ask():
        shedder.begin(0.001, 0, 100.2)
        other.append(shedder.refuses())
        shedder.end()

    for answered in (False, True):
        if answered:
            shedder.end()
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert other == [True, False]


def test_shedding_is_shared_by_all_processes(row_limit):
    shedder = LoadShedder(row_limit)
    if not (child := os.fork()):
        os._exit(not is_shedding(shedder, 0.1, 12, 100.0))
    assert os.waitpid(child, 0)[1] == 0
    assert is_shedding(shedder, 0, 0, 100.5)


@pytest.mark.parametrize(
    ("body", "columns", "rows"),
    [
        (b'{"data":{"ndarray":[[1,2]]}}', 2, 1),
        (b'{"data":{"tensor":{"shape":[3,2],"values":[1,2,3,4,5,6]}}}', 2, 4),
        (b"[" + b"[0.1,0.2]," * 99_999 + b"[0.1,0.2]]", 2, 100_000),
        (bytes(8 * 2 * 1000), 2, 401),  # binary numbers have no commas
        (b"", 4, 1),
    ],
)
def test_rows_are_estimated_from_the_body(body, columns, rows):
    assert estimate_rows(body, columns) == pytest.approx(rows, rel=0.01)


def test_rows_of_binary_tensors_are_estimated_from_their_size():
    assert estimate_rows(bytes(8 * 2 * 1000), 2, 8) == 1001


def test_a_flag_is_shared_by_all_processes():
    flag = SharedFlag()
    assert not flag
    if not (child := os.fork()):
        flag.set()
        os._exit(0)
    os.waitpid(child, 0)
    assert flag


def test_requests_in_flight_are_visible_to_the_parent_until_they_end():
    in_flight = InFlightRequests(threads=2)
    end, hold = os.pipe()
    if not (child := os.fork()):
        for number in (1, 2):
            offset = in_flight.begin(f"id-{number}", "POST", "/pre\ndict \u20ac" + "x" * 500)
            if number == 1:
                in_flight.end(offset)
        os.read(end, 1)
        os._exit(0)
    active = []
    while [one.request_id for one in active] != ["id-2"]:
        active = in_flight.active()
    assert active[0].request.startswith("POST /pre\ndict ?xxx")
    assert 0 <= active[0].seconds < 60
    in_flight.restart(active[0].offset)
    assert in_flight.active()[0].seconds <= active[0].seconds + 1
    os.write(hold, b".")
    os.waitpid(child, 0)


def test_each_thread_has_its_own_request_in_flight():
    in_flight, at_once = InFlightRequests(threads=3), threading.Barrier(4)

    def request(name):
        offset = in_flight.begin(name, "GET", "/")
        at_once.wait(10)
        at_once.wait(10)
        in_flight.end(offset)

    threads = [threading.Thread(target=request, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    at_once.wait(10)
    assert sorted(one.request_id for one in in_flight.active()) == ["a", "b", "c"]
    at_once.wait(10)
    for thread in threads:
        thread.join()
    assert in_flight.active() == []


def refusal(admission, path, **headers):
    return type(admission.refusal({"PATH_INFO": path, **headers}))


def test_health_needs_no_key_and_everything_else_does():
    admission = Admission(RowLimit(1, 1), ApiKey(KEY))
    for path in ("/live", "/ready", "/health/ping", "/v2/health/live", "/v2/models/m/ready"):
        assert admission.refusal({"PATH_INFO": path}) is None
    for path in ("/predict", "/metrics", "/nowhere", "/live/", "/metadata"):
        assert refusal(admission, path) is Unauthorized
        assert admission.refusal({"PATH_INFO": path, "HTTP_X_API_KEY": KEY}) is None


def test_preflight_requests_need_no_key():
    admission = Admission(RowLimit(1, 1), ApiKey(KEY))
    assert admission.refusal({"PATH_INFO": "/predict", "REQUEST_METHOD": "OPTIONS"}) is None
    assert refusal(admission, "/v2/models/versions/ready/infer") is Unauthorized


def test_a_stopping_service_is_not_ready_but_live_and_still_answers():
    admission = Admission(RowLimit(1, 1))
    admission.stopping.set()
    assert refusal(admission, "/ready") is refusal(admission, "/v2/health/ready") is Unavailable
    assert refusal(admission, "/v2/models/isoserve/versions/1/ready") is Unavailable
    assert (
        admission.refusal({"PATH_INFO": "/v2/models/none/ready"}) is None
    )  # there is no such model
    admission.version = lambda: "1"
    assert refusal(admission, "/v2/models/isoserve/versions/1/ready") is Unavailable
    assert refusal(admission, "/v2/models/isoserve/ready") is Unavailable
    assert admission.refusal({"PATH_INFO": "/v2/models/isoserve/versions/2/ready"}) is None
    assert admission.refusal({"PATH_INFO": "/live"}) is None
    assert admission.refusal({"PATH_INFO": "/predict"}) is None
