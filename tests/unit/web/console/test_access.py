import socket

import pytest

from service.settings import Settings
from service.web.console.access import IDLE, LONGEST, Access

TOKEN = "a token of the tests"


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def access(clock):
    return Access(Settings(host="0.0.0.0"), TOKEN, clock)


@pytest.mark.parametrize(
    ("settings", "token", "reason"),
    [
        ({}, "", ""),
        ({"host": "::1"}, "", ""),
        ({"host": "0.0.0.0"}, "", "The service listens on 0.0.0.0, where others can reach it."),
        ({"host": "10.1.2.3"}, "", "The service listens on 10.1.2.3, where others can reach it."),
        ({"api_key": "k" * 16}, "", "An API key is set, and a browser cannot send one."),
        ({"host": "0.0.0.0", "api_key": "k" * 16}, TOKEN, ""),
    ],
)
def test_without_a_token_the_console_is_open_on_loopback_only(settings, token, reason):
    assert Access(Settings(**settings), token).closed() == reason


@pytest.mark.parametrize(
    ("host", "open_", "bound", "wildcard"),
    [
        ("127.0.0.1:8000", True, True, True),
        ("localhost", True, True, True),
        ("LOCALHOST.:8000", True, True, True),
        ("[::1]:8000", True, True, True),
        ("10.1.2.3:8000", False, True, True),
        ("10.9.9.9", False, False, True),
        ("review.example", False, True, True),
        ("evil.example:8000", False, False, False),
        ("127.0.0.1.evil.example", False, False, False),
        ("localhost@evil.example", False, False, False),
        ("", False, False, False),
        ("[", False, False, False),
    ],
)
def test_only_known_hosts_are_answered(host, open_, bound, wildcard):
    names = {"console_hosts": "Review.Example, other.example"}
    assert Access(Settings(**names), "").allows_host(host) == open_
    assert Access(Settings(host="10.1.2.3", **names), TOKEN).allows_host(host) == bound
    assert Access(Settings(host="0.0.0.0", **names), TOKEN).allows_host(host) == wildcard


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("https://review.example", "review.example", True),
        ("https://review.example", "review.example:443", True),
        ("http://127.0.0.1:9000", "127.0.0.1:8000", False),
        ("http://evil.example", "127.0.0.1:8000", False),
        ("http://127.0.0.1:8000.evil.example", "127.0.0.1:8000", False),
        ("null", "127.0.0.1:8000", False),
        ("", "127.0.0.1:8000", False),
        ("file://127.0.0.1:8000", "127.0.0.1:8000", False),
        ("http://[", "127.0.0.1:8000", False),
    ],
)
def test_a_form_comes_from_a_page_of_the_same_host_and_port(access, origin, host, allowed):
    assert access.allows_origin(origin, host) == allowed


def test_a_login_lasts_an_hour_after_the_last_page_and_twelve_in_all(access, clock):
    cookie = access.seal(access.log_in(secure=False))
    clock.now += IDLE - 1
    session = access.read(cookie)
    renewed = access.seal(access.renew(session))
    clock.now += 2
    assert access.read(cookie) is None
    assert access.read(renewed) is not None
    clock.now += LONGEST
    assert access.read(renewed) is None
    forever = access.seal(access.renew(session))
    assert access.read(forever) is None


def test_a_new_login_is_not_renewed_by_each_page(access, clock):
    session = access.log_in(secure=True)
    assert access.renew(session) is None
    clock.now += 600
    assert access.renew(session).secure


def test_a_forged_cookie_or_one_of_another_token_is_no_login(access, clock):
    cookie = access.seal(access.log_in(secure=False))
    assert access.read(cookie) is not None
    for forged in ("", "x", cookie[:-1] + ("0" if cookie[-1] != "0" else "1"), "9" + cookie[1:]):
        assert access.read(forged) is None
    assert Access(Settings(), "another token, as long", clock).read(cookie) is None
    assert Access(Settings(), "", clock).read(cookie) is None
    assert TOKEN not in cookie


def test_a_forms_token_belongs_to_one_login(access):
    one, other = access.log_in(secure=False), access.log_in(secure=False)
    assert access.allows_form(access.form_token(one), one)
    assert not access.allows_form(access.form_token(one), other)
    assert not access.allows_form("", one)
    assert not access.allows_form("\u20ac", one)


def test_without_a_login_a_forms_token_belongs_to_one_start_of_the_service():
    first, second = Access(Settings(), ""), Access(Settings(), "")
    assert first.allows_form(first.form_token(None), None)
    assert not second.allows_form(first.form_token(None), None)


def test_only_the_admin_token_is_accepted(access):
    assert access.is_admin(TOKEN)
    assert not access.is_admin("")
    assert not Access(Settings(), "").is_admin("")


def test_a_connection_of_this_user_is_allowed_and_an_unknown_one_not():
    access = Access(Settings(), "")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = listener.getsockname()
        with socket.create_connection(server) as client:
            assert access.allows_user(client.getsockname(), server)
        assert not access.allows_user(("127.0.0.1", 1), server)
    assert access.allows_user(None, None), "this process"
