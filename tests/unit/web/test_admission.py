import asyncio
import os
from contextlib import suppress

import pytest

from service.errors import BadInput, Unauthorized, Unavailable
from service.web import admission
from service.web.admission import Admission, Line, RowLimit, SharedFlag
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
    row_limit = RowLimit(most_rows=100)
    with row_limit.admit(60):
        with row_limit.admit(40):
            refuse(row_limit, 1, "100 rows are being scored")
        with row_limit.admit(1):
            pass
    with row_limit.admit(100):
        pass


def test_a_request_that_is_alone_is_always_admitted():
    row_limit = RowLimit(most_rows=100)
    with row_limit.admit(5000):
        assert refuse(row_limit, 1).retry_after == 1


def test_a_failed_request_releases_its_rows():
    row_limit = RowLimit(most_rows=1)
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
    admission = Admission(RowLimit(1), ApiKey(KEY))
    for path in ("/live", "/ready", "/health/ping", "/v2/health/live", "/v2/models/m/ready"):
        assert admission.refusal(ask(path)) is None
    for path in ("/predict", "/metrics", "/nowhere", "/live/", "/metadata"):
        assert refusal(admission, path) is Unauthorized
        assert admission.refusal(ask(path, x_api_key=KEY.encode())) is None


def test_preflight_requests_need_no_key():
    admission = Admission(RowLimit(1), ApiKey(KEY))
    assert admission.refusal(ask("/predict", "OPTIONS")) is None
    assert refusal(admission, "/v2/models/versions/ready/infer") is Unauthorized


def test_only_http_1_0_may_leave_out_the_host():
    admission = Admission(RowLimit(1))
    assert isinstance(admission.refusal(Request("GET", "/live", {})), BadInput)
    assert admission.refusal(Request("GET", "/live", {}, needs_host=False)) is None


def test_a_stopping_service_is_not_ready_but_live_and_still_answers():
    admission = Admission(RowLimit(1))
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


@pytest.fixture
def soon(monkeypatch):
    """Let every request wait as long as it takes, and every turn last until its request ends."""
    monkeypatch.setattr(admission, "_patience", lambda _rows: 10)
    monkeypatch.setattr(admission, "_LONGEST", 10)


async def settle():
    """Let all other tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


class Worker:
    """Works off requests in a line, each until it is told to end."""

    def __init__(self):
        self.has_thread, self.working, self.tasks = True, [], {}
        self.line = Line(lambda: self.has_thread)

    def ask(self, name, rows):
        self.tasks[name] = asyncio.ensure_future(self._work(name, rows))

    async def _work(self, name, rows):
        async with self.line.turn(rows):
            self.working.append(name)
            await asyncio.Event().wait()

    async def end(self, name):
        self.tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self.tasks[name]
        await settle()

    async def end_all(self):
        for name in list(self.tasks):
            await self.end(name)


def test_requests_get_their_turns_one_after_another(soon):
    async def run():
        worker = Worker()
        for name in "abcd":
            worker.ask(name, 2000)
        await settle()
        assert worker.working == ["a"]
        await worker.end("c")  # its client has gone
        await worker.end("a")
        assert worker.working == ["a", "b"]
        await worker.end("b")
        assert worker.working == ["a", "b", "d"]
        await worker.end_all()

    asyncio.run(run())


def test_of_several_that_wait_for_too_long_only_the_last_is_not_refused(monkeypatch):
    monkeypatch.setattr(admission, "_LONGEST", 10)

    async def run():
        worker = Worker()
        worker.ask("a", 5000)
        await settle()
        lines = [worker.line.turn(rows) for rows in (5000, 2000, 2000)]
        waiting = [asyncio.ensure_future(line.__aenter__()) for line in lines]
        for refused in waiting[:2]:
            with pytest.raises(Unavailable) as refusal:
                await refused
            assert refusal.value.retry_after == 1
        await asyncio.sleep(2 * admission._patience(2000))
        assert not waiting[2].done()
        await worker.end("a")
        assert waiting[2].done()
        worker.ask("b", 5000)
        await lines[2].__aexit__(None, None, None)
        await settle()
        assert worker.working == ["a", "b"]
        await worker.end_all()

    asyncio.run(run())


def test_medium_requests_do_not_wait_long_and_large_ones_as_long_as_they_take():
    assert admission._patience(1) > admission._patience(4000) == admission._patience(5000)
    assert admission._patience(100_000) == pytest.approx(5 * admission._patience(20_000))


def test_a_turn_ends_once_even_if_its_request_does_not(soon, monkeypatch):
    monkeypatch.setattr(admission, "_LONGEST", 0.01)

    async def run():
        worker = Worker()
        worker.has_thread = False
        worker.ask("hangs", 2000)
        worker.ask("a", 2000)
        await asyncio.sleep(0.03)
        assert worker.working == ["hangs"]
        monkeypatch.setattr(admission, "_LONGEST", 10)
        worker.has_thread = True
        await asyncio.sleep(0.03)
        for name in "bc":
            worker.ask(name, 2000)
        await settle()
        assert worker.working == ["hangs", "a"]
        await worker.end("hangs")  # it has ended its turn before
        assert worker.working == ["hangs", "a"]
        await worker.end("a")
        assert worker.working == ["hangs", "a", "b"]
        await worker.end_all()

    asyncio.run(run())
