import pytest
from flask import Flask

from service.errors import BadInput, TooLarge
from service.web.query import read_body, read_encoding, read_number, read_plain_body, read_switch

APP = Flask("query")


def ask(path, **request):
    return APP.test_request_context(path, method="POST", **request)


@pytest.mark.parametrize(
    ("query", "on"), [("", False), ("scores=", False), ("scores=TRUE", True), ("scores=0", False)]
)
def test_a_boolean_option_is_off_by_default(query, on):
    with ask(f"/?{query}"):
        assert read_switch("scores") is on


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("scores=maybe", "scores is 1 or 0, not 'maybe'"),
        ("scores=1&scores=1", "scores is given 2 times"),
        ("score=1", "the query has 'score', which is no option (is it 'scores'?)"),
    ],
)
def test_an_invalid_boolean_option_is_refused(query, text):
    with ask(f"/?{query}"), pytest.raises(BadInput) as refused:
        read_switch("scores")
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("query", "number"), [("", 0), ("explain=3", 3), ("explain=999999", 999_999)]
)
def test_a_numeric_option_is_0_by_default(query, number):
    with ask(f"/?{query}"):
        assert read_number("explain") == number


def test_a_body_is_returned_undecoded_with_its_encoding():
    with ask("/", data=b"abc", headers={"Content-Encoding": "gzip"}):
        assert read_encoding() == "gzip"
        with pytest.raises(BadInput, match="a body with Content-Encoding is not read here"):
            read_plain_body(3)
        assert read_body(3) == b"abc"


def test_a_body_over_the_limit_is_not_read():
    with ask("/", data=b"abcd"), pytest.raises(TooLarge, match="larger than 3 bytes"):
        read_body(3)
