import gzip
import json
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import BadInput, Refusal, TooLarge, Unsupported
from service.protocols import mlflow, open_inference
from service.protocols.codec import (
    bounded,
    decode_names,
    load_json,
    parse_json,
    render_json,
    require_finite,
    unpack,
)
from service.protocols.seldon import feedback, messages
from service.rows import Limits, RawTable

JSON = "application/json"
TENSOR = {"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [1]}


def test_valid_json_is_read():
    assert load_json(b'{"a": [1, 2.5, "x", null, true]}') == {"a": [1, 2.5, "x", None, True]}


def test_the_last_of_duplicate_keys_counts():
    assert load_json(b'{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1,]",
        b"nothing",
        b"[01]",
        b"\xff",
        b'"\\ud800"',
        b"\xff\xfe[\0\xd8\xd8",
        b"\xef\xbb\xbf\xff",
        b"\0",
        b"[" + b"9" * 5000 + b"]",
    ],
)
def test_invalid_json_is_refused_with_seldons_text(body):
    with pytest.raises(BadInput, match=r"^Can't find JSON in data: "):
        load_json(body)


@pytest.mark.parametrize(
    "number", [b"Infinity", b"-Infinity", b"1e999", b"1" + b"0" * 400, b"NaN, -Infinity"]
)
def test_infinite_numbers_are_reported_beside_the_value(number):
    value, refusal = parse_json(b"[" + number + b"]")
    assert len(value) == 1 + (b"NaN" in number)
    assert str(refusal).startswith("Can't find JSON in data")


def test_a_refusal_names_the_cell_that_is_infinite():
    value, refusal = parse_json(b"[[1, Infinity]]")
    with pytest.raises(BadInput, match="row 0, column 1: inf is not a finite number"):
        require_finite(RawTable(value), refusal)
    with pytest.raises(BadInput, match="Can't find JSON"):  # it is elsewhere in the body
        require_finite(RawTable([[1, 2]]), refusal)
    assert require_finite(RawTable([[1, 2]]), None)


def test_nan_is_read_as_python_writes_it():
    value = load_json(b'{"a": [NaN, 1], "NaN": "\\"NaN", "b": 1180591620717411303424}')
    assert str(value) == """{'a': [nan, 1], 'NaN': '"NaN', 'b': 1.1805916207174113e+21}"""
    assert render_json(value)
    for body in (b'["NaN"', b"[NaN,]", b"NaNs", b"[-NaN]", b'[NaN, "\\ud800"]'):
        with pytest.raises(BadInput, match="Can't find JSON in data"):
            load_json(body)


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
)
def test_json_is_read_in_each_encoding_that_flask_reads(encoding):
    for text in ('{"\u00e9\u5b5b": [1, "\u5d7d"]}', '"x"', "[NaN, 1]", " 1"):
        assert str(load_json(text.encode(encoding))) == str(json.loads(text))
    with pytest.raises(TooLarge, match="more than 8 levels"):
        load_json(("[" * 9 + "]" * 9).encode(encoding))


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_refused(opening):
    closing = b"]" if opening == b"[" else b"}"
    assert load_json(opening * 8 + b"1" + closing * 8)
    for body in (opening * 9 + b"1" + closing * 9, opening * 100_000):
        with pytest.raises(TooLarge, match="nested more than 8 levels deep"):
            load_json(body)


def test_brackets_side_by_side_or_in_strings_do_not_nest():
    assert len(load_json(b"[" + b",".join([b"[[]]"] * 100) + b"]")) == 100
    assert load_json(b'["' + b"[{" * 50 + b'\\"[[[["]') == ["[{" * 50 + '"[[[[']


def test_responses_have_sorted_keys_no_spaces_and_exact_numbers():
    value = {"b": np.array([0.1, 1e-300]), "a": np.array([1, 0])}
    assert render_json(value) == b'{"a":[1,0],"b":[0.1,1e-300]}'


TEXT = b'{"a": [1, 2, 3]}'


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZIP", gzip.compress(TEXT, mtime=0)),
        (" deflate ", zlib.compress(TEXT)),
    ],
)
def test_a_compressed_body_is_decompressed(encoding, body):
    assert unpack(body, encoding, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("encoding", "body", "kind", "text"),
    [
        ("gzip", TEXT, BadInput, "the body is not packed with gzip: "),
        (
            "deflate",
            gzip.compress(TEXT, mtime=0),
            BadInput,
            "the body is not packed with deflate: ",
        ),
        (
            "deflate",
            zlib.compress(TEXT, wbits=-zlib.MAX_WBITS),
            BadInput,
            "not packed with deflate: incorrect header check; HTTP's deflate has zlib's header",
        ),
        ("gzip", b"", BadInput, "the body packed with gzip ends early"),
        (
            "gzip",
            gzip.compress(TEXT, mtime=0)[:-1],
            BadInput,
            "the body packed with gzip ends early",
        ),
        (
            "gzip",
            gzip.compress(TEXT, mtime=0) * 2,
            BadInput,
            " bytes follow the body packed with gzip",
        ),
        ("gzip", gzip.compress(TEXT + b" ", mtime=0), TooLarge, "unpacks to more than 16 bytes"),
        ("br", TEXT, Unsupported, "Content-Encoding 'br' is not read here; gzip and deflate are"),
        ("gzip, gzip", TEXT, Unsupported, "is not read here"),
    ],
)
def test_a_body_that_cannot_be_decompressed_is_refused(encoding, body, kind, text):
    with pytest.raises(kind) as refusal:
        unpack(body, encoding, len(TEXT))
    assert text in str(refusal.value)


def test_a_compression_bomb_uses_no_more_memory_than_the_limit():
    bomb = gzip.compress(bytes(2**28))
    bound = 2**20
    tracemalloc.start()
    with pytest.raises(TooLarge):
        unpack(bomb, "gzip", bound)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * bound


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 9 + b'"' + rb"\"" * 500_000,
        (b"1" * 299 + b",") * 20_000 + b"}",
        b'"' * 500_001 + b"[" * 9,
    ],
)
def test_refusing_a_body_takes_linear_time(body):
    with pytest.raises(Refusal):  # it took hours once
        load_json(body)


@given(
    st.recursive(
        st.text(alphabet='ab"\\[]{}', max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text('"[\\'), inner, max_size=2)
        ),
        max_leaves=12,
    ),
    st.integers(0, 4),
)
@example(["]", []], 1)
@example([['\\"]', '\\"]'], "[", [[]]], 2)
def test_brackets_in_strings_do_not_count_as_depth(value, limit):
    def depth(part):
        if isinstance(part, str):
            return 0
        return 1 + max(map(depth, part.values() if isinstance(part, dict) else part), default=0)

    body = json.dumps(value).encode()
    if depth(value) > limit:
        with pytest.raises(TooLarge):
            load_json(body, limit)
    else:
        assert load_json(body, limit) == value


def seldon(message):
    return messages.decode_request(json.dumps(message).encode(), JSON, "", Limits())


def seldon_feedback(message):
    return feedback.decode_feedback(json.dumps(message).encode(), JSON, "", Limits(), str)


def split(names, row):
    body = {"dataframe_split": {"columns": names, "data": [row]}}
    return mlflow.decode_request(json.dumps(body).encode(), JSON, Limits())


def csv(text):
    return mlflow.decode_request(text.encode(), "text/csv", Limits())


def infer(message):
    return open_inference.decode_request(json.dumps(message).encode(), None, Limits())


@pytest.mark.parametrize(
    "read",
    [
        lambda: load_json(b"[" + b"[]," * 1000 + b"[]]", most=1000),
        lambda: load_json(b'{"a": [' + b"{}," * 1000 + b"{}]}", most=1000),
        lambda: decode_names(["a"] * 11, "data.names", 10),
        lambda: decode_names([1.5] * 11, "data.names", 10),
        lambda: seldon({"meta": {"metrics": [{}] * 1001}, "data": {"ndarray": [[1]]}}),
        lambda: seldon({"meta": {"tags": dict.fromkeys(map(str, range(1001)))}}),
        lambda: seldon({"data": {"names": ["a"] * 5000, "ndarray": [[1]]}}),
        lambda: seldon_feedback({"request": {"meta": {"metrics": [{}] * 1001}}}),
        lambda: split(["a"] * 5000, [1]),
        lambda: csv("a," * 5000 + "a\n1\n"),
        lambda: csv("a\n" + "1," * 5000 + "1\n"),
        lambda: infer({"inputs": [TENSOR], "outputs": [{"name": "predict"}] * 1001}),
    ],
)
def test_every_list_of_a_message_is_counted_before_it_is_read(read):
    with pytest.raises(TooLarge, match=r"^[\d,]+ .* in one message; at most [\d,]+$"):
        read()


def test_a_message_at_its_bounds_is_read():
    bounded(10, 10, "rows")
    assert decode_names(["a"] * 10, "data.names", 10) == ("a",) * 10
    assert len(load_json(b"[" + b"[]," * 998 + b"[]]", most=1000)) == 999
    assert len(load_json(b'["' + b"[" * 5000 + b'"]', most=1000)) == 1  # brackets in a text
