import csv
import io

from service.web.console.view import encode_csv


def test_lines_may_have_different_fields():
    text = encode_csv([{"a": 1, "b": "x,y"}, {"b": None, "c": 0.1}])
    assert list(csv.reader(io.StringIO(text))) == [
        ["a", "b", "c"],
        ["1", "x,y", ""],
        ["", "", "0.1"],
    ]


def test_a_text_that_a_spreadsheet_would_run_is_harmless():
    text = encode_csv([{"=name": cell} for cell in ("=1", "+1", "-1", "@a", "\t=1", "a=1", -1)])
    cells = [row[0] for row in csv.reader(io.StringIO(text))]
    assert cells == ["'=name", "'=1", "'+1", "'-1", "'@a", "'\t=1", "a=1", "-1"]
