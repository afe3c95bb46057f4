import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.errors import BadInput, NotFound, TooLarge
from service.protocols import open_inference
from service.rows import Limits, Verdict

LIMITS = Limits()
TABLE = [[1.0, 2.0], [60.0, 40.0]]
VERDICT = Verdict(np.array([0.25, -0.5]), 0.0, "abc", samples=np.array([-0.25, -1.0]))
SHARES = np.array([[0.5, 1.5], [-2.0, -3.0]])


def tensor(data, shape=None, datatype="FP64", name="x", **more):
    shape = list(np.shape(data)) if shape is None else shape
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def decode(*inputs, limits=LIMITS, **more):
    body = json.dumps({"inputs": list(inputs), **more}).encode()
    request = open_inference.decode_request(body, None, limits)
    request.table.numbers()
    return request


def pack(*inputs, **more):
    """Return the body and header of a request whose inputs come with their bytes."""
    blobs = [blob for _, blob in inputs]
    text = json.dumps({"inputs": [head for head, _ in inputs], **more}).encode()
    return b"".join([text, *blobs]), str(len(text))


def binary(array, datatype="FP64", name="x", shape=None):
    blob = array if isinstance(array, bytes) else array.tobytes()
    shape = list(array.shape) if shape is None else shape
    head = {"name": name, "shape": shape, "datatype": datatype}
    return {**head, "parameters": {"binary_data_size": len(blob)}}, blob


@pytest.mark.parametrize(
    "request_",
    [
        [tensor(TABLE)],
        [tensor([1, 2, 60, 40], [2, 2])],
        [tensor(["1", "2.0", "60", "4e1"], [2, 2], "BYTES", name="any name")],
        [tensor([1, 2, 60, 40], [2, 2], "INT8", parameters={"content_type": "np", "odd": 1})],
    ],
)
def test_one_input_is_a_table_with_flat_or_nested_data(request_):
    decoded = decode(*request_, parameters={"anything": True})
    assert decoded.table.numbers().values.tolist() == TABLE
    assert decoded.table.names == ()


@pytest.mark.parametrize("content_type", [{}, {"parameters": {"content_type": "pd"}}])
def test_several_inputs_are_columns_in_any_order(content_type):
    decoded = decode(tensor([2, 40], name="sd"), tensor([[1], [60]], name="mean"), **content_type)
    assert decoded.table.names == ("sd", "mean")
    assert decoded.table.numbers().values.tolist() == [[2, 1], [40, 60]]


@pytest.mark.parametrize("datatype", ["FP64", "INT64", "BOOL"])
def test_null_is_a_missing_value_in_every_datatype(datatype):
    whole = decode(tensor([[1, None]], datatype=datatype)).table.numbers()
    columns = decode(
        tensor([1], name="a"), tensor([None], name="b", datatype=datatype)
    ).table.numbers()
    for rows in (whole, columns):
        assert rows.missing
        assert np.isnan(rows.values).tolist() == [[False, True]]


def test_nan_is_missing_in_binary_floats_and_in_strings():
    bf16 = (np.array([[1, np.nan]], "<f4").view("<u4") >> 16).astype("<u2")
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (b"1", b"nan"))
    inputs = [
        binary(np.array([[1, np.nan]], TYPES[kind]), kind) for kind in ("FP16", "FP32", "FP64")
    ]
    inputs += [binary(bf16, "BF16"), binary(texts, "BYTES", shape=[1, 2])]
    for sent in inputs:
        rows = open_inference.decode_request(*pack(sent), LIMITS).table.numbers()
        assert rows.missing
        assert np.isnan(rows.values).tolist() == [[False, True]]


def test_a_single_input_is_a_named_column_only_if_its_content_type_says_so():
    assert decode(tensor([1, 2])).table.numbers().values.tolist() == [[1], [2]]
    assert decode(tensor([1, 2])).table.names == ()
    assert decode(tensor([1, 2], parameters={"content_type": "pd"})).table.names == ("x",)


def test_string_columns_are_read_as_mlserver_sends_a_data_frame():
    texts = tensor(["1", "60"], datatype="BYTES", parameters={"content_type": "str"})
    numbers = tensor([2, 40], name="sd")
    rows = decode(texts, numbers, parameters={"content_type": "pd"}).table.numbers()
    assert (rows.names, rows.values.tolist()) == (("x", "sd"), TABLE)
    assert decode(texts, parameters={"content_type": "pd"}).table.names == ("x",)
    assert decode(texts).table.names == ()
    rows = decode(texts, parameters={"content_type": "str"}).table.numbers()
    assert rows.values.tolist() == [[1], [60]]


@pytest.mark.parametrize("asked", [{}, {"outputs": None}, {"outputs": []}])
def test_by_default_every_output_has_one_value_a_row(asked):
    request = decode(tensor(TABLE), **asked)
    assert list(request.outputs) == ["predict", "decision_function", "score_samples", "ids"]
    answer = json.loads(open_inference.encode_answer(request, "42", "m", VERDICT)[0])
    assert [output["shape"] for output in answer["outputs"]] == [[2]] * 3
    assert answer["parameters"] == {"threshold": 0.0}


def test_the_threshold_is_an_output_where_it_is_asked_for():
    request = decode(tensor(TABLE), outputs=[{"name": "threshold"}])
    answer = json.loads(open_inference.encode_answer(request, "42", "m", VERDICT)[0])
    assert [(output["shape"], output["data"]) for output in answer["outputs"]] == [([1], [0.0])]


def test_contributions_and_binary_outputs_are_sent_as_asked():
    asked = [{"name": "contributions"}, {"name": "predict", "parameters": {"binary_data": True}}]
    assert decode(tensor(TABLE), outputs=asked).outputs == {"contributions": False, "predict": True}


def test_binary_data_of_an_output_overrides_that_of_the_request():
    asked = [{"name": "threshold", "parameters": {"binary_data": False}}, {"name": "predict"}]
    decoded = decode(tensor(TABLE), outputs=asked, parameters={"binary_data_output": True})
    assert decoded.outputs == {"threshold": False, "predict": True}


def test_the_id_is_read_if_sent():
    assert decode(tensor(TABLE), id="42").id == "42"
    assert not decode(tensor(TABLE)).id


TYPES = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


@pytest.mark.parametrize("datatype", TYPES)
def test_every_datatype_is_read_from_bytes_and_from_json(datatype):
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(TYPES[datatype])
    decoded = open_inference.decode_request(*pack(binary(array, datatype)), LIMITS)
    assert decoded.table.numbers().values.tolist() == array.tolist()
    assert (
        decode(tensor(array.tolist(), datatype=datatype)).table.numbers().values.tolist()
        == array.tolist()
    )


LARGEST = {
    "FP16": (65504, 65520), "BF16": (3.3895313892515355e38, 3.3961775292304601e38),
    "FP32": (3.4028235e38, 1e39), "INT8": (127, 128), "INT32": (2**31 - 1, 2**31),
    "INT64": (2**63 - 1, 2**63), "UINT64": (2**64 - 1, 1.8446744073709552e19),
}  # fmt: skip


@pytest.mark.parametrize("datatype", LARGEST)
@pytest.mark.parametrize("text", [False, True])
def test_a_number_that_its_datatype_cannot_hold_is_refused_and_the_largest_is_read(datatype, text):
    fits, beyond = (str(cell) if text else cell for cell in LARGEST[datatype])
    assert decode(tensor([[fits]], datatype=datatype)).table.numbers().values.tolist() == [
        [float(fits)]
    ]
    with pytest.raises(BadInput, match=f"row 0, column 1: .* is not of the datatype {datatype}"):
        decode(tensor([[0, beyond]], datatype=datatype))


def test_the_largest_whole_numbers_are_read_from_bytes():
    for datatype, kind in (("INT64", "<i8"), ("UINT64", "<u8")):
        bounds = np.iinfo(kind)
        body = pack(binary(np.array([[bounds.min, bounds.max]], kind), datatype))
        rows = open_inference.decode_request(*body, LIMITS).table.numbers()
        assert rows.values.tolist() == [[float(bounds.min), float(bounds.max)]]


@pytest.mark.parametrize("make", [int, str])
def test_the_smallest_int64_is_read_and_smaller_numbers_are_refused(make):
    least = -(2**63)
    rows = decode(tensor([[make(least)]], datatype="INT64")).table.numbers()
    assert rows.values.tolist() == [[float(least)]]
    with pytest.raises(BadInput, match=r"row 0, column 1: .* is not of the datatype INT64"):
        decode(tensor([[make(least), make(least - 1)]], datatype="INT64"))


def test_fp16_bf16_and_strings_are_read_from_bytes():
    bf16 = (np.array([[1.5, -2.0]], "<f4").view("<u4") >> 16).astype("<u2")
    body = pack(binary(bf16, "BF16"))
    assert open_inference.decode_request(*body, LIMITS).table.numbers().values.tolist() == [
        [1.5, -2.0]
    ]
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (b"1.5", b"-2"))
    body = pack(binary(texts, "BYTES", shape=[1, 2]))
    assert open_inference.decode_request(*body, LIMITS).table.numbers().values.tolist() == [
        [1.5, -2.0]
    ]


def test_bytes_and_json_may_be_mixed():
    body = pack(
        binary(np.array([1.0, 60.0]), name="a"),
        (tensor([2, 40], name="b"), b""),
        binary(np.array([3, 4], "<i4"), "INT32", name="c"),
    )
    rows = open_inference.decode_request(*body, LIMITS).table.numbers()
    assert rows.names == ("a", "b", "c")
    assert rows.values.tolist() == [[1, 2, 3], [60, 40, 4]]


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_any_finite_table_decodes_to_itself_in_each_form(table):
    forms = [decode(tensor(table.tolist())), decode(tensor(table.ravel().tolist(), table.shape))]
    forms.append(open_inference.decode_request(*pack(binary(table)), LIMITS))
    for form in forms:
        assert np.array_equal(form.table.numbers().values, table)


def test_a_json_response_has_flat_data_and_the_model_version():
    body, length = open_inference.encode_answer(decode(tensor(TABLE)), "42", "m", VERDICT)
    answer = json.loads(body)
    assert length is None
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "m", "abc")
    assert {output["name"]: output["data"] for output in answer["outputs"]} == {
        "predict": [0, 1],
        "decision_function": [0.25, -0.5],
        "score_samples": [-0.25, -1.0],
    }
    assert answer["outputs"][0] == {
        "name": "predict",
        "datatype": "INT64",
        "shape": [2],
        "data": [0, 1],
        "parameters": {"content_type": "np"},
    }


def test_a_binary_response_has_its_tensors_after_the_json_in_order():
    asked = [{"name": "contributions", "parameters": {"binary_data": True}}, {"name": "threshold"},
             {"name": "predict", "parameters": {"binary_data": True}}]  # fmt: skip
    request = decode(tensor(TABLE), outputs=asked)
    body, length = open_inference.encode_answer(request, "42", "m", VERDICT, SHARES)
    shares, threshold, labels = json.loads(body[:length])["outputs"]
    assert (shares["shape"], shares["parameters"]["binary_data_size"]) == ([2, 2], 32)
    assert "data" not in shares
    assert threshold["data"] == [0.0]
    assert labels["parameters"]["binary_data_size"] == 16
    assert np.frombuffer(body[length : length + 32], "<f8").tolist() == SHARES.ravel().tolist()
    assert np.frombuffer(body[length + 32 :], "<i8").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([], "an inference request is a JSON object, as in"),
        ({}, "there are no inputs; send"),
        ({"inputs": []}, "there are no inputs; send"),
        ({"inputs": [1]}, "input 0 is not an object with a name"),
        ({"inputs": [{"shape": [1, 1]}]}, "input 0 is not an object with a name"),
        ({"inputs": [tensor(TABLE)], "id": 3}, "id is not a string"),
        ({"inputs": [tensor(TABLE)], "parameters": 3},
         "the parameters of the request are not an object"),
        ({"inputs": [tensor(TABLE, parameters=[])]},
         "the parameters of input 'x' are not an object"),
        ({"inputs": [tensor(TABLE, parameters={"content_type": "base64"})]},
         "input 'x': content_type 'base64' is not read here; np and pd are, "
         "and str for BYTES"),
        ({"inputs": [tensor(TABLE, parameters={"content_type": "str"})]},
         "input 'x': content_type 'str' is not read here; np and pd are, and str for BYTES"),
        ({"inputs": [tensor(TABLE, datatype="FP46")]},
         "input 'x': 'FP46' is no datatype (is it 'FP64'?)"),
        ({"inputs": [tensor(TABLE, datatype=None)]},
         "input 'x' has no datatype; name one, such as FP64"),
        ({"inputs": [{"name": "x", "shape": [1, 1], "data": [1]}]},
         "input 'x' has no datatype; name one, such as FP64"),
        ({"inputs": [tensor(TABLE, datatype="fp64")]},
         "input 'x': 'fp64' is no datatype (is it 'FP64'?)"),
        ({"inputs": [tensor(TABLE, datatype=["FP64"])]}, "input 'x': ['FP64'] is no datatype"),
        ({"inputs": [{"name": "x", "datatype": "FP64", "data": [1]}]},
         "input 'x' has no shape; it is rows and columns, as in [1, 2]"),
        ({"inputs": [tensor(TABLE, shape=2)]}, "input 'x': shape is not a list of whole numbers"),
        ({"inputs": [tensor(TABLE, shape=[-1, 2])]},
         "input 'x': shape is not a list of whole numbers"),
        ({"inputs": [tensor(TABLE, shape=[])]},
         "input 'x': shape has 0 dimensions; rows have 2, as in [1, 2]"),
        ({"inputs": [tensor(TABLE, shape=[1, 2, 2])]},
         "input 'x': shape has 3 dimensions; rows have 2, as in [1, 2]"),
        ({"inputs": [tensor([1, 2], shape=[2, 2])]}, "input 'x' has 2 values for the shape [2, 2]"),
        ({"inputs": [tensor(TABLE, shape=[3, 2])]},
         "input 'x' has 2 rows of data for 3 in its shape"),
        ({"inputs": [tensor([[1, 2], [3]], shape=[2, 2])]},
         "input 'x': row 1 is not a list of 2 numbers"),
        ({"inputs": [tensor([], shape=[0, 2])]},
         "there are no rows; one row is [[1, 2]]"),
        ({"inputs": [tensor("x", shape=[1, 1])]}, "input 'x': data is not a list"),
        ({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64"}]},
         "input 'x' has no data; it is a list of numbers, as in [1, 2]"),
        ({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64",
                      "parameters": {"shared_memory_region": "r"}}]},
         "input 'x': shared_memory_region is not served here; send data, or bytes and their "),
        ({"inputs": [tensor(TABLE, parameters={"content_type": "pd"})]},
         "input 'x' has 2 columns; an input of content_type pd is one column, of the shape [n] or"),
        ({"inputs": [tensor(TABLE)], "parameters": {"content_type": "pd"}},
         "input 'x' has 2 columns; an input of content_type pd is one column, of the shape [n] or"),
        ({"inputs": [tensor([[1, None], [3, "x"]])]},
         "row 1, column 1: 'x' is not a number"),
        ({"inputs": [tensor([[1, 2], [3, "x"]], datatype="BYTES")]},
         "row 1, column 1: 'x' is not a number"),
        ({"inputs": [tensor([[1, 2], [3, 1.5]], datatype="INT64")]},
         "input 'x': row 1, column 1: 1.5 is not of the datatype INT64"),
        ({"inputs": [tensor([[300]], datatype="UINT8")]},
         "input 'x': row 0, column 0: 300.0 is not of the datatype UINT8"),
        ({"inputs": [tensor([[2]], datatype="BOOL")]},
         "input 'x': row 0, column 0: 2.0 is not of the datatype BOOL"),
        ({"inputs": [tensor(TABLE), tensor([1, 2], name="y")]},
         "input 'x' has 2 columns; each of several inputs is one column, of the shape [n] or"),
        ({"inputs": [tensor([1, 2]), tensor([1], name="y")]},
         "input 'y' has 1 row, input 'x' has 2"),
        ({"inputs": [tensor(TABLE)], "outputs": 3}, "outputs is not a list"),
        ({"inputs": [tensor(TABLE)], "outputs": ["predict"]},
         "output 0 is not an object with a name"),
        ({"inputs": [tensor(TABLE)], "outputs": [{"name": "predict_proba"}]},
         "there is no output 'predict_proba' (is it 'predict'?); the outputs are predict, "),
        ({"inputs": [tensor(TABLE)], "outputs": [
            {"name": "predict", "parameters": {"classification": 2}}]},
         "output 'predict': classification is not served here"),
    ],
)  # fmt: skip
def test_an_invalid_request_is_refused_with_a_reason(body, text):
    with pytest.raises(BadInput) as refusal:
        open_inference.decode_request(json.dumps(body).encode(), None, LIMITS).table.numbers()
    assert str(refusal.value).startswith(text)


def sized(size, **more):
    return {"name": "x", "shape": [1, 1], "datatype": "FP64",
            "parameters": {"binary_data_size": size}, **more}  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([(sized(9), bytes(8))], "input 'x': binary_data_size is 9; 8 bytes are left of the body"),
        ([(sized(-1), b"")], "input 'x': binary_data_size is -1; 0 bytes are left of the body"),
        ([(sized("8"), bytes(8))], "input 'x': binary_data_size is '8'; 8 bytes are left"),
        ([(sized(7), bytes(7))], "input 'x': 7 bytes are no whole number of FP64"),
        ([(sized(16), bytes(16))], "input 'x' has 2 values for the shape [1, 1]"),
        ([(sized(8), bytes(9))], "the body goes on after the last binary input, by 1 byte"),
        ([(sized(8, data=[1]), bytes(8))], "input 'x' has both data and binary_data_size"),
        ([binary(np.array([[np.inf]], "<f4"), "FP32")],
         "input 'x': row 0, column 0: inf is not a finite number"),
        ([binary(b"\x02", "BOOL", shape=[1, 1])],
         "input 'x': row 0, column 0: 2.0 is not of the datatype BOOL"),
        ([binary(b"\x01", "BYTES", shape=[1, 1])], "input 'x': its binary data ends early"),
        ([binary(b"\x05\0\0\0a", "BYTES", shape=[1, 1])], "input 'x': its binary data ends early"),
        ([binary(b"\x01\0\0\0a", "BYTES", shape=[1, 1])],
         "row 0, column 0: 'a' is not a number"),
    ],
)  # fmt: skip
def test_binary_data_of_the_wrong_size_is_refused(inputs, text):
    with pytest.raises(BadInput) as refusal:
        open_inference.decode_request(*pack(*inputs), LIMITS).table.numbers()
    assert str(refusal.value).startswith(text)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"inputs": }', ": unexpected character, expected a JSON value at line 1 column 12"),
        (b"", ": it is a zero-length, empty document at line 1 column 1"),
    ],
)
def test_invalid_json_is_refused_with_its_position(body, text):
    for length in (None, str(len(body))):
        with pytest.raises(BadInput) as refusal:
            open_inference.decode_request(body, length, LIMITS)
        assert str(refusal.value) == f"the body is not JSON{text}"


@pytest.mark.parametrize("length", ["", "x", "-1", "1e3", "999999"])
def test_a_wrong_json_length_header_is_refused(length):
    with pytest.raises(BadInput, match="Inference-Header-Content-Length is a number of bytes up"):
        open_inference.decode_request(pack(binary(np.ones((1, 2))))[0], length, LIMITS)


def test_limits_hold_for_rows_columns_and_depth():
    limits = Limits(rows=2, columns=2, depth=4)
    for inputs in ([tensor([1, 2, 3], [3, 1])], [tensor([1, 2, 3], [1, 3])], [tensor([1])] * 3):
        with pytest.raises(TooLarge, match="at most 2"):
            decode(*inputs, limits=limits)
    with pytest.raises(TooLarge, match="nested"):
        decode(tensor(TABLE), limits=limits)


def test_metadata_of_a_model_with_column_names_has_one_input_per_column():
    types = {"a": "float", "b": "int", "c": "bool"}
    found = open_inference.encode_model("m", "abc", types, True, ["pvalue"])
    assert (found["name"], found["versions"], found["platform"]) == ("m", ["abc"], "sklearn_pickle")
    assert found["inputs"] == [
        {"name": "a", "datatype": "FP64", "shape": [-1]},
        {"name": "b", "datatype": "INT64", "shape": [-1]},
        {"name": "c", "datatype": "BOOL", "shape": [-1]},
    ]
    shapes = {output["name"]: output["shape"] for output in found["outputs"]}
    assert shapes == {"predict": [-1], "decision_function": [-1], "score_samples": [-1],
                      "threshold": [1], "contributions": [-1, 3], "ids": [-1]}  # fmt: skip
    assert found["outputs"][0]["parameters"] == {"meaning": "1 for an outlier, 0 for an inlier"}


def test_metadata_of_a_model_without_column_names_has_one_table():
    found = open_inference.encode_model("m", "abc", {"f0": "float", "f1": "float"}, False)
    assert found["inputs"] == [{"name": "rows", "datatype": "FP64", "shape": [-1, 2]}]


@pytest.mark.parametrize("field", ["names", "columns", "column_names", "feature_names", "features"])
def test_names_in_a_field_that_is_not_read_are_refused(field):
    names = {field: ["sd", "mean"]}
    for more in ({}, {"outputs": [{"name": "predict"}]}):
        for inputs, extra in (
            (tensor(TABLE), names),
            (tensor(TABLE), {"parameters": names}),
            (tensor(TABLE, **names), {}),
            (tensor(TABLE, parameters=names), {}),
        ):
            with pytest.raises(
                BadInput, match=f"has a field '{field}', which is not read; send one"
            ):
                decode(inputs, **extra, **more)


@pytest.mark.parametrize("option", ["scores", "explain"])
def test_options_of_other_protocols_are_refused_as_parameters(option):
    with pytest.raises(BadInput, match=f"{option} is no parameter here; ask for the output "):
        decode(tensor(TABLE), parameters={option: 1})
    assert decode(tensor(TABLE), parameters={option: 0})


def test_an_output_asked_for_twice_is_refused():
    asked = [{"name": "predict"}, {"name": "predict", "parameters": {"binary_data": True}}]
    with pytest.raises(BadInput, match="output 'predict' is asked for twice"):
        decode(tensor(TABLE), outputs=asked)


def test_another_model_or_version_is_not_found():
    open_inference.check_model("m", "m", None, "abc")
    open_inference.check_model("m", "m", "abc", "abc")
    with pytest.raises(NotFound, match="there is no model 'n'; the one served here is 'm'"):
        open_inference.check_model("n", "m", None, "abc")
    with pytest.raises(NotFound, match="model 'm' has no version '1'; the one served is 'abc'"):
        open_inference.check_model("m", "m", "1", "abc")


@pytest.mark.parametrize("length", ["9" * 5000, "0" * 7000, "-1", "1.5", "\u0663"])
def test_a_json_length_header_that_is_not_a_number_is_refused(length):
    with pytest.raises(BadInput, match=r"is a number of bytes up to the body's 2"):
        open_inference.decode_request(b"{}", length, LIMITS)
