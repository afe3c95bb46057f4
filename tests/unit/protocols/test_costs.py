"""What a body costs is bounded by its bytes, in every protocol and however it is sent.

Plain JSON sets the measure: its reader takes 12 bytes of memory for each byte of a body before any
value is made, and an empty object takes 64 bytes for its three. Nothing may take more.
"""

import gzip
import sys
import tracemalloc
from contextlib import suppress

import pytest

from service.errors import Refusal
from service.protocols import mlflow, open_inference
from service.protocols.codec import JSON, unpack
from service.protocols.seldon.feedback import decode_feedback
from service.protocols.seldon.messages import decode_request
from service.rows import Limits

SIZE = 2**17
LIMITS = Limits()
FORM, PARTS = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"

MOST_MEMORY = 40
"""Bytes for each byte of a body."""

MOST_CALLS = 1
"""Calls of functions for each byte of a body: about a tenth of a second for a megabyte."""


def fill(start, item, end=b"", between=b",", size=SIZE):
    """Return `start`, as many items as fit, and `end`."""
    items = (size - len(start) - len(end)) // (len(item) + len(between))
    return start + between.join([item] * items) + end


def part(name, content):
    return b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name, content)


def tensors(data, datatype=b"FP64"):
    """Return a V2 request with two columns of these data."""
    n_rows = data.count(b",") // 2 + 1
    head = b'{"inputs":[{"name":"x","datatype":"%s","shape":[%d,2],"data":[' % (datatype, n_rows)
    return head + data + b"]}]}"


def binary(datatype, row, n_rows):
    """Return the length of the JSON, and a V2 request of binary rows of two columns."""
    raw = row * n_rows
    head = b'{"inputs":[{"name":"x","datatype":"%s","shape":[%d,2],' % (datatype, n_rows)
    head += b'"parameters":{"binary_data_size":%d}}]}' % len(raw)
    return str(len(head)), head + raw


def seldon(body, content_type=JSON, query=""):
    decode_request(body, content_type, query, LIMITS)


def form(body):
    seldon(body, FORM)


def parts(body):
    seldon(body, PARTS)


def query(body):
    seldon(b"", "", body.decode())


def feedback(body):
    decode_feedback(body, JSON, "", LIMITS, lambda: "p")


def v2(body, json_length=None):
    open_inference.decode_request(body, json_length, LIMITS)


def v2_binary(request):
    v2(request[1], request[0])


def invocations(body):
    mlflow.decode_request(body, JSON, LIMITS)


def csv(body):
    mlflow.decode_request(body, "text/csv", LIMITS)


ROWS = {
    "whole numbers": b"[1,2]", "decimals": b"[1.25,-3.5]", "nulls": b"[null,1]", "NaN": b"[NaN,1]",
    "Infinity": b"[Infinity,1]", "texts": b'["a","b"]', "empty lists": b"[]", "objects": b"{}",
    "numbers": b"7", "lone texts": b'"a"', "digits": b"1" * 400,
    "wide rows": b"[" + b",".join([b"0.5"] * 500) + b"]",
}  # fmt: skip
"""What stands in the place of a row."""

KEYS = b"{" + b",".join(b'"%d":0' % i for i in range(SIZE // 8)) + b"}"
"""An object of many fields."""

NAMES = fill(b"[", b'"a"', b"]")


def row_bodies():
    """Yield (name, function that decodes, body): rows of each kind in each protocol."""
    for name, row in ROWS.items():
        yield f"Seldon, {name}", seldon, fill(b'{"data":{"ndarray":[', row, b"]}}")
        truths = b'{"response":{"meta":{"puid":"p"}},"truth":{"data":{"ndarray":['
        yield f"Seldon, feedback on {name}", feedback, fill(truths, row, b"]}}")
        yield f"MLflow, {name}", invocations, fill(b'{"inputs":[', row, b"]}")
        yield f"V2, {name}", v2, tensors(fill(b"", row))
        yield f"V2, texts of {name}", v2, tensors(fill(b"", row), b"BYTES")


def seldon_bodies():
    """Yield the same, of Seldon's messages in plain JSON."""
    rest = b',"data":{"ndarray":[[1,2]]}}'
    for where in (b'{"customData":%s', b'{"meta":{"tags":%s}', b'{"meta":{"routing":%s}'):
        yield f"Seldon, {where.decode()}", seldon, where % KEYS + rest
    yield "Seldon, unknown fields", seldon, KEYS
    yield "Seldon, names", seldon, b'{"data":{"ndarray":[[1,2]],"names":%s}}' % NAMES
    yield "Seldon, metrics", seldon, fill(b'{"meta":{"metrics":[', b"{}", b"]}") + rest
    shape = fill(b'{"data":{"tensor":{"values":[1],"shape":[', b"7", b"]}}}")
    yield "Seldon, a shape of many sides", seldon, shape
    yield "Seldon, escapes", seldon, fill(b'{"strData":"', rb"\u0041", b'"}', b"")
    yield "Seldon, other encodings", seldon, fill(b"[", b"[1,2]", b"]").decode().encode("utf-16")
    yield "Seldon, brackets", seldon, b"[" * SIZE
    yield "Seldon, quotes", seldon, b'"' * SIZE
    yield "Seldon, backslashes", seldon, b'["' + b"\\" * SIZE
    yield "Seldon, feedback's metrics", feedback, fill(b'{"request":{"meta":{"metrics":[', b"{}")
    yield "Seldon, feedback's path", feedback, b'{"request":{"meta":{"requestPath":%s}}}' % KEYS
    yield "Seldon, a long reward", feedback, b'{"reward":' + b"1" * SIZE + b"}"


def form_bodies():
    """Yield the same, of Seldon's messages in forms, queries and parts."""
    yield "a form", form, fill(b'json={"data":{"ndarray":[', b"[1,2]", b"]}}")
    yield "a form of escapes", form, fill(b"json=", b"%7b", between=b"")
    yield "a form of fields", form, b"&" * SIZE
    yield "a form of pluses", form, b"json=" + b"+" * SIZE
    yield "a query", query, fill(b'json={"data":{"ndarray":[', b"[1,2]", b"]}}", size=2**16)
    yield "parts", parts, part(b"data", fill(b'{"ndarray":[', b"[1,2]", b"]}")) + b"--b--\r\n"
    yield "many parts", parts, part(b"a", b"1") * 1000 + b"--b--\r\n"
    headers = b"--b\r\n" + fill(b"", b"A: b", b"", b"\r\n") + b"\r\n\r\nx\r\n--b--\r\n"
    yield "a part of many headers", parts, headers
    yield "parts of lines", parts, b"\r\n" * (SIZE // 2)


def v2_bodies():
    """Yield the same, of V2 requests."""
    yield "V2, parameters", v2, b'{"parameters":%s,"inputs":[]}' % KEYS
    an_input = b'{"name":"x","datatype":"FP64","shape":[1],"data":[1]}'
    yield "V2, inputs", v2, fill(b'{"inputs":[', an_input, b"]}")
    outputs = tensors(b"1,2")[:-1] + b',"outputs":['
    yield "V2, outputs", v2, fill(outputs, b'{"name":"x"}', b"]}")
    for datatype, row in ((b"INT8", bytes(2)), (b"FP64", bytes(16)), (b"BYTES", bytes(8))):
        request = binary(datatype, row, SIZE // len(row))
        yield f"V2, binary {datatype.decode()}", v2_binary, request
    yield "V2, a length of many digits", v2_binary, ("9" * 5000, b"{}" * SIZE)


def mlflow_bodies():
    """Yield the same, of MLflow's requests and CSV."""
    for name in (b"dataframe_records", b"instances"):
        records = fill(b'{"%s":[' % name, b'{"a":1,"b":2}', b"]}")
        yield f"MLflow, {name.decode()}", invocations, records
    yield "MLflow, names", invocations, b'{"dataframe_split":{"data":[],"columns":%s}}' % NAMES
    column = fill(b"[", b"7", b"]", size=SIZE // 2)
    yield "MLflow, columns", invocations, b'{"inputs":{"a":%s,"b":%s}}' % (column, column)
    columns = b",".join(b'"%d":[1]' % i for i in range(SIZE // 10))
    yield "MLflow, many columns", invocations, b'{"inputs":{%s}}' % columns
    for name, line in (("numbers", b"1,2"), ("decimal commas", b"1,5;2,5"), ("quotes", b'"1","2"')):
        yield f"CSV, {name}", csv, fill(b"a,b\n", line, between=b"\n")
    yield "CSV, commas", csv, b"a,b\n" + b"," * SIZE
    yield "CSV, two long lines", csv, fill(b"", b"a", b"\n") + fill(b"", b"1.5", b"\n")
    yield "CSV, no lines", csv, b"a,b\n" + b"\n" * SIZE
    yield "CSV, an open quote", csv, b'a,b\n"' + b"x" * SIZE


MAKERS = row_bodies, seldon_bodies, form_bodies, v2_bodies, mlflow_bodies
CASES = {name: case for make in MAKERS for name, *case in make()}


@pytest.mark.parametrize("name", CASES)
def test_decoding_takes_memory_and_calls_by_the_bytes_of_a_body(name):
    decode, body = CASES[name]
    size = len(body[1] if isinstance(body, tuple) else body)
    with suppress(Refusal):
        decode(body)  # what is cached the first time is no cost of a body
    assert count_memory(decode, body) < MOST_MEMORY * size + 2**18
    assert count_calls(decode, body) < MOST_CALLS * size


def count_memory(decode, body):
    """Return the most bytes that decoding a body holds at a time."""
    tracemalloc.start()
    with suppress(Refusal):
        decode(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def count_calls(decode, body):
    """Return how many functions decoding a body calls."""
    calls = 0

    def note(_frame, event, _argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    with suppress(Refusal):
        decode(body)
    sys.setprofile(before)
    return calls


def test_a_compressed_body_takes_no_more_than_the_largest_plain_one():
    packed = gzip.compress(bytes(4 * LIMITS.body_bytes), 1)
    peak = count_memory(lambda body: unpack(body, "gzip", LIMITS.body_bytes), packed)
    assert peak < 3 * LIMITS.body_bytes
