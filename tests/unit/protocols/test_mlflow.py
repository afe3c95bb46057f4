import json

import numpy as np
import pytest

from service.errors import BadInput, TooLarge, Unsupported
from service.model.columns import Columns
from service.protocols import mlflow
from service.rows import Limits, Verdict
from tests.support.cards import number

LIMITS = Limits()
TABLE = [[1.0, 2.0], [60.0, 40.0]]
NAMED = ("a", "b")


def decode(body, content_type="application/json", limits=LIMITS):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    table = mlflow.decode_request(body, content_type, limits)
    if not table.is_csv:
        return table.numbers()
    return Columns([number(name, missing=1) for name in table.names]).encode(table)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"dataframe_split": {"columns": ["a", "b"], "index": [0, 1], "data": TABLE}}, NAMED),
        ({"dataframe_split": {"columns": [1, 0], "data": TABLE}}, ("1", "0")),
        ({"dataframe_split": {"data": TABLE}}, ()),
        ({"dataframe_records": [{"a": 1, "b": 2}, {"b": 40, "a": 60}]}, NAMED),
        ({"instances": TABLE}, ()),
        ({"instances": [{"a": 1, "b": 2}, {"a": 60, "b": 40}], "signature_name": "x"}, NAMED),
        ({"inputs": TABLE, "params": {"anything": 1}}, ()),
        ({"inputs": {"a": [1, 60], "b": [2, 40]}}, NAMED),
    ],
)
def test_each_format_of_mlflow_decodes_to_the_same_table(body, names):
    rows = decode(body)
    assert rows.values.tolist() == TABLE
    assert rows.names == names


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n60,40\n", "\ufeffa,b\r\n1,2\r\n\r\n60,40", '"a","b"\n1.0,"2"\n6e1,40\n']
)
def test_csv_starts_with_a_line_of_names(text):
    rows = decode(text.encode(), "text/csv; charset=utf-8")
    assert rows.values.tolist() == TABLE
    assert rows.names == NAMED


@pytest.mark.parametrize("cell", [b"", b" ", b'""', b"NaN", b"nan", b"NA", b"null"])
def test_an_empty_cell_or_nan_in_csv_is_missing(cell):
    rows = decode(b"a,b\n" + cell + b",2\n3,4\n", "text/csv")
    assert rows.missing
    assert np.isnan(rows.values).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([], "a request is a JSON object, as in"),
        ({}, "no rows came; a request has one of dataframe_split, dataframe_records, instances, "),
        ({"inputs": 1, "instances": 2}, "instances and inputs came; a request has one of "),
        ({"dataframe_split": TABLE}, "dataframe_split is not an object with data, as in "),
        ({"dataframe_split": {"columns": "ab", "data": TABLE}},
         "dataframe_split.columns is not a list of strings"),
        ({"dataframe_split": {"columns": [True, 0], "data": TABLE}},
         "dataframe_split.columns is not a list of strings"),
        ({"dataframe_split": {"index": [0], "data": TABLE}},
         "dataframe_split.index has 1 entries for 2 rows"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, {}]]}},
         "row 0, column 1 ('b'): an object is not a number"),
        ({"dataframe_records": {"a": 1}}, "dataframe_records is not a list of objects"),
        ({"dataframe_records": [{"a": 1}, 2]}, "dataframe_records is not a list of objects"),
        ({"dataframe_records": []}, "there are no rows"),
        ({"dataframe_records": [{}]}, "row 0 is empty"),
        ({"dataframe_records": [{"a": 1, "b": 2}, {"a": 1}]},
         "row 1 has no column 'b', row 0 has"),
        ({"dataframe_records": [{"a": 1}, {"a": 1, "b": 2}]},
         "row 1 has a column 'b', row 0 has none"),
        ({"instances": [1, 2]}, "rows are a list of lists: one row is [[1, 2]], not [1, 2]"),
        ({"inputs": {}}, "inputs is neither rows nor lists by name"),
        ({"inputs": {"a": 1}}, "inputs is neither rows nor lists by name"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, "column 'b' has 2 rows, column 'a' has 1"),
        ({"inputs": {"a": [1], "b": ["x"]}}, "row 0, column 1 ('b'): 'x' is not a number"),
        (b"{", "the body is not JSON: unexpected end of data at line 1 column 2"),
        (b"", "the body is not JSON: it is a zero-length, empty document at line 1 column 1"),
    ],
)  # fmt: skip
def test_invalid_tables_are_refused_with_a_reason(body, text):
    with pytest.raises(BadInput) as refusal:
        decode(body)
    assert str(refusal.value).startswith(text)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body is empty; send a line of names and a line for each row"),
        (b"a,b\n", "there are no rows after the first line, which is taken for the names"),
        (b"a,b\n1\n", "row 0 has 1 column, the line of names 2"),
        (b"a,b\n1,2\n3\n", "row 1 has 1 column, row 0 has 2"),
        (b"a,b\n1,x\n", "row 0, column 1 ('b'): 'x' is not a number"),
        (b"a,b\n1,1_000\n", "row 0, column 1 ('b'): '1_000' is not a number"),
        ("a,b\n1,\u0663\n".encode(), "row 0, column 1 ('b'): '\u0663' is not a number"),
        (b"a,b\n,inf\n", "row 0, column 1 ('b'): 'inf' is not a finite number"),
        (b"\xff\x00", "the body is not CSV: it is not text"),
        (b'a\n"' + b"x" * 200_000, "the body is not CSV: "),
    ],
)
def test_invalid_csv_is_refused_with_a_reason(body, text):
    with pytest.raises(BadInput) as refusal:
        decode(body, "text/csv")
    assert str(refusal.value).startswith(text)


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("iso-8859-1", "latin-1"), ("ISO-8859-15", "iso8859-15"), ("windows-1252", "cp1252"),
     ("utf-16", "utf-16"), ("UTF-16LE", "utf-16-le"), ("utf8", "utf-8-sig"), ('"utf-8"', "utf-8")],
)  # fmt: skip
def test_csv_is_read_in_the_charset_that_its_content_type_names(charset, codec):
    body = "\u00e9t\u00e9,b\n1,2\n".encode(codec)
    rows = decode(body, f"text/csv; header=present; Charset={charset}")
    assert rows.names == ("\u00e9t\u00e9", "b")


@pytest.mark.parametrize("charset", ["x-nonsense", "idna", "base64", "unicode_escape", "utf-7"])
def test_other_charsets_are_refused(charset):
    with pytest.raises(Unsupported, match=f"the charset '{charset}' is not read here; send CSV in"):
        decode(b"a,b\n1,2\n", f"text/csv;charset={charset}")


@pytest.mark.parametrize("line", ["60,40", "0,1", '"6e1",', "NA,-1", "0,0"])
def test_a_first_line_of_cells_is_marked_as_no_line_of_names(line):
    table = mlflow.decode_request(f"{line}\n1,2\n".encode(), "text/csv", LIMITS)
    assert table.is_headless
    assert not mlflow.decode_request(b"60,sd\n1,2\n", "text/csv", LIMITS).is_headless


@pytest.mark.parametrize("field", ["names", "columns", "column_names", "feature_names", "features"])
def test_names_in_a_field_that_is_not_read_are_refused(field):
    bodies = [{form: TABLE, field: ["b", "a"]} for form in ("inputs", "instances")]
    bodies.append({"dataframe_split": {"data": TABLE}, field: ["b", "a"]})
    if field != "columns":
        bodies.append({"dataframe_split": {"data": TABLE, field: ["b", "a"]}})
    for body in bodies:
        with pytest.raises(BadInput, match=f"has a field '{field}', which is not read; names of"):
            decode(body)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-parquet"])
def test_other_content_types_are_refused(content_type):
    with pytest.raises(Unsupported, match="send JSON or text/csv"):
        decode({"inputs": TABLE}, content_type)


def test_limits_hold_for_every_format():
    limits = Limits(rows=1, columns=1)
    records = [{"a": 1, "b": 2}]
    for body in ({"inputs": TABLE}, {"inputs": {"a": [1, 2]}}, {"dataframe_records": records}):
        with pytest.raises(TooLarge, match="at most 1"):
            decode(body, limits=limits)
    with pytest.raises(TooLarge, match="at most 1"):
        decode(b"a,b\n1,2\n", "text/csv", limits)


def test_answers_are_predictions_and_scores_on_request():
    verdict = Verdict(np.array([0.25, -0.5]), 0.0)
    assert json.loads(mlflow.encode_answer(verdict)) == {"predictions": [0, 1]}
    with_scores = {"predictions": [0, 1], "scores": [0.25, -0.5], "threshold": 0.0}
    assert json.loads(mlflow.encode_answer(verdict, with_scores=True)) == with_scores


def test_errors_have_mlflows_shape():
    assert mlflow.encode_error("no", 400) == {"error_code": "BAD_REQUEST", "message": "no"}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "UNAUTHENTICATED"),
        (405, "BAD_REQUEST"),
        (413, "BAD_REQUEST"),
        (415, "BAD_REQUEST"),
        (500, "INTERNAL_ERROR"),
        (503, "TEMPORARILY_UNAVAILABLE"),
    ],
)
def test_error_codes_are_mlflows_own_for_statuses_it_knows(status, code):
    assert mlflow.encode_error("no", status)["error_code"] == code


def test_reading_csv_stops_at_the_row_limit():
    line = b"1,2\n"
    assert len(mlflow.decode_request(b"mean,sd\n" + 3 * line, "text/csv", Limits(rows=3))) == 3
    with pytest.raises(TooLarge, match="more than 3 rows in one request"):
        mlflow.decode_request(b"mean,sd\n" + 4 * line + b'"' * 200_000, "text/csv", Limits(rows=3))
