import pytest

from service.errors import BadInput
from service.web.query import Options, read_options, refuse_options
from service.web.request import Request


def ask(query):
    return Request("POST", "/predict", {}, query)


@pytest.mark.parametrize(
    ("query", "options"),
    [
        (b"", Options()),
        (b"scores=", Options()),
        (b"scores=TRUE", Options(scores=True)),
        (b"scores=0&x=%C3%A9&\xe9=1", Options()),
        (b"explain=3&pvalues=1", Options(explain=3, pvalues=True)),
        (b"explain=999999", Options(explain=999_999)),
    ],
)
def test_options_are_off_by_default(query, options):
    assert read_options(ask(query)) == options


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (b"scores=maybe", "scores is 1 or 0, not 'maybe'"),
        (b"scores=1&scores=1", "scores is given 2 times"),
        (b"score=1", "the query has 'score', which is no option (is it 'scores'?)"),
        (b"explain=-1", "explain is a whole number, not '-1'"),
        (b"explain=1234567", "explain has at most 6 digits, not 7"),
    ],
)
def test_a_malformed_option_is_refused(query, text):
    with pytest.raises(BadInput) as refused:
        read_options(ask(query))
    assert str(refused.value) == text


def test_an_option_that_a_route_does_not_have_is_refused_if_it_is_on():
    refuse_options(ask(b"scores=0&y=1"), {"scores": "ask elsewhere"})
    with pytest.raises(BadInput, match="scores is no option of /predict; ask elsewhere"):
        refuse_options(ask(b"scores=1"), {"scores": "ask elsewhere"})
