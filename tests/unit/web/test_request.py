from service.web.request import from_environ, from_scope
from tests.support.asgi import make_scope


def test_repeated_headers_are_joined_as_in_wsgi():
    scope = make_scope("GET", "/x", [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert from_scope(scope).headers == {b"host": b"localhost", b"a": b"1,3", b"b": b"2"}


def test_both_kinds_of_server_give_the_same_request():
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v2/caf\u00c3\u00a9",  # the bytes of "é" in UTF-8, as WSGI gives them
        "SERVER_PROTOCOL": "HTTP/1.0",
        "HTTP_HOST": "localhost",
        "HTTP_X_REQUEST_ID": "\xff",
        "CONTENT_TYPE": "text/csv",
        "CONTENT_LENGTH": "",
    }
    fields = [(b"x-request-id", b"\xff"), (b"content-type", b"text/csv")]
    scope = make_scope("POST", "/v2/café", fields, version="1.0")
    one, other = from_environ(environ), from_scope(scope)
    for name in ("method", "path", "headers", "needs_host"):
        assert getattr(one, name) == getattr(other, name)
