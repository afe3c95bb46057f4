"""Which requests the connection thread answers itself."""

import contextlib
import socket
import threading

import pytest
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import SocketUnreader

from service.web.connection import SHORT_BYTES, is_short_request, read_rest


@pytest.fixture
def pair():
    """The client's end and the server's end of a connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        yield client, server


def post(body, *fields, line="POST /predict HTTP/1.1"):
    lines = [line, "Host: x", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    "sent",
    [
        post(b"{}"),
        post(b""),
        post(b"x" * SHORT_BYTES, "Content-Type: application/json", "Connection: close"),
        post(b"{}").replace(b"Content-Length", b"content-length"),
        b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
        b"GET /v2/models/isoserve/ready HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/models/isoserve/versions/1/ready HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD /ready HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /live HTTP/1.0\r\n\r\n",
        b"GET /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_complete_short_prediction_or_health_check_is_a_short_request(pair, sent):
    client, server = pair
    client.sendall(sent)
    assert is_short_request(server)
    assert server.recv(10_000) == sent  # it was peeked at, not consumed


@pytest.mark.parametrize(
    "sent",
    [
        b"P",
        b"POST /predict HTTP/1.1\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r",
        post(b"{}")[:-1],
        post(b"{}") + b"G",
        post(b"x" * (SHORT_BYTES + 1)),
        post(b"{}", line="POST /api/v1.0/feedback HTTP/1.1"),
        post(b"{}", line="POST /predict?scores=1 HTTP/1.1"),
        post(b"{}", line="POST /predict HTTP/1.0"),
        post(b"{}", "Content-Length: 2"),
        post(b"{}", "content-length : 20"),
        post(b"{}", "Transfer-Encoding: chunked"),
        post(b"{}", "X: Content-Length: 2").replace(b"h: 2\r\n\r", b"h: 3\r\n\r"),
        post(b"{}").replace(b": 2", b": +2"),
        post(b"{}").replace(b": 2", b": 2, 2"),
        post(b"{}").replace(b": 2", b":\t20"),
        b"POST /predict HTTP/1.1\r\nHost: x\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/models/isoserve HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD /predict HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_an_incomplete_long_or_other_request_is_not_a_short_request(pair, sent):
    client, server = pair
    client.sendall(sent)
    assert not is_short_request(server)


def test_a_closed_connection_is_handled_as_a_short_request(pair):
    client, server = pair
    client.close()
    assert is_short_request(server)


def test_a_client_that_reads_no_responses_has_no_short_request(pair):
    client, server = pair
    server.settimeout(0.1)
    with contextlib.suppress(TimeoutError):
        while True:
            server.send(b"x" * 10_000)
    client.sendall(post(b"{}"))
    assert not is_short_request(server)


def test_a_silent_connection_has_no_short_request(pair):
    assert not is_short_request(pair[1])


def begin_body(server, length):
    unreader = SocketUnreader(server)
    return Body(LengthReader(unreader, length)), unreader


def test_the_rest_of_a_request_is_read_to_its_end(pair):
    client, server = pair
    body, unreader = begin_body(server, 300_000)
    sending = threading.Thread(target=client.sendall, args=(bytes(300_000) + b"GET /next",))
    sending.start()
    assert read_rest(server, body.read, unreader)
    sending.join()
    assert unreader.read(9) == b"GET /next"


def test_a_slow_rest_of_a_request_is_not_waited_for(pair, monkeypatch):
    monkeypatch.setattr("service.web.connection._REST_SECONDS", 0.5)
    client, server = pair
    body, unreader = begin_body(server, 100_000)
    enough = threading.Event()

    def drip():
        for _ in range(3000):  # a minute
            if enough.wait(0.02):
                return
            client.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        assert not read_rest(server, body.read, unreader)
        assert dripping.is_alive()
    finally:
        enough.set()
        dripping.join()
