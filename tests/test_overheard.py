import socket

import pytest

from service.doors import LATE
from service.overheard import overhear

ROWS = b'{"data":{"ndarray":[' + b"[1,2]," * 500 + b"[1,2]]}}"
HEAD = b"POST /predict?scores=1 HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\n"
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(ROWS) + ROWS


@pytest.fixture
def ends():
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def test_a_request_in_its_socket_is_known_and_stays_there(ends):
    here, there = ends
    here.sendall(REQUEST + b"POST /next")
    heard = overhear(there)
    assert heard.length == len(REQUEST)
    assert heard.environ["PATH_INFO"] == "/predict"
    assert heard.environ["HTTP_X_REQUEST_ID"] == "mine"
    assert heard.environ[LATE]
    assert there.recv(10) == b"POST /pred"


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        REQUEST[:-1],
        REQUEST.replace(b"POST", b"GET"),
        REQUEST.replace(b"/predict", b"/pre%64ict"),
        REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
        REQUEST.replace(b"Host: x\r\n", b"Connection: close\r\n"),
        REQUEST.replace(b"Host: x\r\n", b"Transfer-Encoding: chunked\r\n"),
        REQUEST.replace(b"Host: x\r\n", b"Expect: 100-continue\r\n"),
        REQUEST.replace(b"Host: x\r\n", b"Content-Length: 5\r\n"),
        REQUEST.replace(b"Host: x\r\n", b"Host : x\r\n"),
        REQUEST.replace(b"Host: x\r\n", b"Host: x\n"),
        REQUEST.replace(b"Length: ", b"Length: +"),
        REQUEST.replace(b"Content-Length", b"X"),
        HEAD + b"Content-Length: 28\r\n\r\n" + b'{"data":{"ndarray":[[1,2]]}}',
    ],
)
def test_what_is_small_or_not_plain_or_not_all_there_is_left_to_a_thread(ends, request_):
    here, there = ends
    here.sendall(request_)
    assert overhear(there) is None


def test_a_client_that_has_gone_is_nobody(ends):
    here, there = ends
    here.close()
    assert overhear(there) is None
    there.close()
    assert overhear(there) is None
