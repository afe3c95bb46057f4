import json
from urllib.parse import quote, urlencode

import pytest

from service.errors import BadInput, TooLarge
from service.protocols.seldon.envelope import read_json
from service.rows import Limits

MESSAGE = {"data": {"ndarray": [[1, 2]]}, "meta": {"puid": "ü"}}
TEXT = json.dumps(MESSAGE)
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=cut"


def read(content_type, query="", body=b"", limits=Limits()):  # noqa: B008
    value, refusal = read_json(content_type, query, body, limits)
    assert refusal is None
    return value


def parts(*fields):
    """Return a multipart body of (name, text) and (name, text, file name)."""
    lines = []
    for name, text, *file in fields:
        place = f'name="{name}"' + "".join(f'; filename="{one}"' for one in file)
        lines += ["--cut", f"Content-Disposition: form-data; {place}", "", text]
    return "\r\n".join([*lines, "--cut--", ""]).encode()


@pytest.mark.parametrize(
    ("content_type", "query", "body"),
    [
        (JSON, "", TEXT.encode()),
        ("application/json; charset=utf-8", "scores=1", TEXT.encode()),
        ("application/vnd.seldon+json", "", TEXT.encode()),
        (FORM, "", urlencode({"json": TEXT}).encode()),
        (FORM, "", ("a=1&json=" + quote(TEXT) + "&json=2").encode()),
        ("", urlencode({"json": TEXT}), b""),
        ("text/plain", urlencode({"json": TEXT}), b"whatever"),
        (FORM, urlencode({"json": TEXT}), b"a=1"),
        (PARTS, "", parts(("data", '{"ndarray": [[1, 2]]}'), ("meta", '{"puid": "ü"}'))),
        (PARTS, "", parts(("data", '{"ndarray": [[1, 2]]}', "d.json"), ("meta", '{"puid": "ü"}'))),
    ],
)
def test_a_message_is_read_from_each_place_where_seldon_reads_it(content_type, query, body):
    assert read(content_type, query, body) == MESSAGE


def test_the_places_of_a_message_are_tried_in_seldons_order():
    in_query, in_form, in_parts = (f'"{way}"' for way in ("query", "form", "parts"))
    query = urlencode({"json": in_query})
    assert read(JSON, query, b'"body"') == "query"
    assert read(FORM, query, urlencode({"json": in_form}).encode()) == "form"
    assert read(PARTS, query, parts(("strData", in_parts))) == {"strData": in_parts}


def test_text_and_bytes_are_read_unchanged():
    body = parts(("strData", "ü", "a.txt"), ("binData", "x y", "a.bin"))
    assert read(PARTS, "", body) == {"strData": "ü", "binData": "eCB5"}


@pytest.mark.parametrize(
    ("content_type", "query", "body", "text"),
    [
        ("", "", TEXT.encode(), "send it with Content-Type: application/json"),
        ("text/json", "", TEXT.encode(), "send it with Content-Type: application/json"),
        (FORM, "", b"data=1", "the form has no field json"),
        (FORM, "json=", b"json=", "the form has no field json"),
        (FORM, "", b"&".join([b"json={}"] * 17), "a form has at most 16 fields"),
        (JSON, "", b"", "zero-length"),
        (JSON, "", b"{", "unexpected end"),
        (JSON, "json={", TEXT.encode(), "unexpected end"),
        (PARTS, "", b"no parts at all", "body cannot be read"),
        ("multipart/form-data", "", parts(("data", "1")), "body cannot be read"),
        (PARTS, "", parts(*[(f"a{i}", "1") for i in range(20)]), "body cannot be read"),
    ],
)
def test_invalid_json_is_refused_with_seldons_text(content_type, query, body, text):
    with pytest.raises(BadInput, match=f"^Can't find JSON in data: .*{text}"):
        read(content_type, query, body)


def test_a_part_with_invalid_json_is_named():
    with pytest.raises(BadInput, match=r"^the part 'data' cannot be read: Can't find JSON"):
        read(PARTS, "", parts(("meta", "{}"), ("data", "[Infinity]")))


@pytest.mark.parametrize("header", [b'name="b\xc3\xa2\\"', b"", b'filename="x"'])
@pytest.mark.parametrize("content", [b"x", b"{}"])
def test_a_part_without_a_name_is_refused(header, content):
    part = b"--cut\r\nContent-Disposition: form-data; " + header + b"\r\n\r\n" + content
    with pytest.raises(BadInput, match="a part has no name; each is named after a key"):
        read("multipart/form-data; boundary=cut", "", part + b"\r\n--cut--\r\n")


@pytest.mark.parametrize(
    ("content_type", "body"), [(FORM, b"json=[[[1]]]"), (PARTS, parts(("data", "[[[1]]]")))]
)
def test_depth_is_limited_wherever_the_message_is(content_type, body):
    with pytest.raises(TooLarge, match="nested more than 2 levels"):
        read(content_type, "", body, limits=Limits(depth=2))
