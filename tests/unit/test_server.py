"""What of gunicorn the service relies on, and how it listens."""

import contextlib
import inspect
import os
import re
import socket
import sys

import pytest
import structlog
from gunicorn import config
from gunicorn.app.base import BaseApplication
from structlog.testing import capture_logs

from service import server
from service.errors import BadSetting
from service.settings import Settings

HOOKS = {
    "on_starting": 1,
    "on_reload": 1,
    "when_ready": 1,
    "post_worker_init": 1,
    "worker_int": 1,
    "worker_exit": 2,
}
"""The hooks in use, and how many arguments each gets."""


@pytest.fixture
def listener():
    with socket.socket() as one:
        yield one


def test_every_option_and_hook_is_a_setting_of_gunicorn(listener):
    known = config.make_settings()
    options = server.gunicorn_options(Settings(), listener)
    assert set(options) | set(HOOKS) <= set(known)
    for name, value in options.items():
        known[name].set(value)  # gunicorn's own check
    for name, arguments in HOOKS.items():
        assert len(inspect.signature(known[name].default).parameters) == arguments


def test_only_documented_methods_of_gunicorn_are_overridden():
    ours = {name for name in vars(server.Server) if not name.startswith("__")}
    assert ours & set(dir(BaseApplication)) == {"load", "load_config"}


def test_no_private_name_of_gunicorn_is_used():
    source = inspect.getsource(server)
    assert source.count("from gunicorn") == 1
    assert "worker._" not in source
    assert "server._" not in source


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "0.0.0.0", "::"])
def test_every_way_to_write_an_address_is_listened_on(host):
    settings = Settings(host=host, port=free())
    with contextlib.closing(server.listen(settings)) as listener:
        family = listener.family
        address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        socket.create_connection((address, settings.port), timeout=5).close()


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "::1::2", "203.0.113.9", "[::1"])
def test_an_address_that_is_not_ours_is_refused_in_a_sentence(host):
    with pytest.raises(BadSetting, match="cannot listen there"):
        server.listen(Settings(host=host, port=free()))


def test_a_port_in_use_is_refused_in_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BadSetting, match=rf"={port}: .* \(Address already in use\); "):
            server.listen(Settings(port=port))


@pytest.mark.parametrize(
    ("host", "key", "lines"),
    [
        ("0.0.0.0", "", 1),
        ("::", "", 1),
        ("0.0.0.0", "a key for nothing but tests", 0),
        ("127.0.0.1", "", 0),
        ("[::1]", "", 0),
    ],
)
def test_listening_on_all_addresses_without_a_key_logs_a_warning(host, key, lines):
    with structlog.testing.capture_logs() as logged:
        server.warn_of_missing_key(Settings(host=host, api_key=key))
    assert len(logged) == lines


@pytest.mark.parametrize(("files", "connections"), [(150, 100), (1024, 924), (10**6, 1000)])
def test_the_connection_limit_leaves_file_descriptors_for_other_files(
    monkeypatch, files, connections
):
    monkeypatch.setattr(server, "getrlimit", lambda _: (files, files))
    assert server.most_connections() == connections


def test_the_sockets_of_another_server_are_not_taken_over(make_client, monkeypatch):
    for name in ("GUNICORN_PID", "GUNICORN_FD", "LISTEN_PID", "LISTEN_FDS"):
        monkeypatch.setenv(name, "1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.Server(make_client().application, Settings(), listener)
    assert not [name for name in os.environ if name.startswith(("GUNICORN_", "LISTEN_"))]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("can't start new thread"), "the system gives no more threads; raise its"),
        (MemoryError(), "there is not enough memory; give the process more"),
        (OSError(28, "No space left on device", "counts.bin"), "counts.bin: No space left"),
        (BadSetting("more than 64 processes share these counts"), "more than 64 processes"),
        (KeyError("x"), "KeyError: 'x' \\(test_server.py, line \\d+\\); this is"),
    ],
)
def test_a_worker_that_cannot_start_says_why_in_one_sentence(monkeypatch, error, words):
    def begin():
        raise error

    ended = []
    monkeypatch.setattr(server, "end_process", lambda code: ended.append(code) or sys.exit(code))
    one = server.Server.__new__(server.Server)
    one._begins, one._works = [begin], False
    monkeypatch.setattr(server, "_RESTART_SECONDS", 0)
    with capture_logs() as logs, pytest.raises(SystemExit):
        one._begin_work(None)
    assert ended == [1]
    assert re.match(f"a worker could not start: {words}", logs[0]["event"])
    assert "exc_info" not in logs[0]
