import codecs

import pytest

from service.dialects import decode_text, find_dialect, read_rows
from service.errors import BadInput


@pytest.mark.parametrize(
    ("text", "separator", "decimal"),
    [
        ("a,b\n1,2\n", ",", "."),
        ("a;b\n1.5;2\n", ";", "."),
        ("a;b\n18,20;3,0\n", ";", ","),
        ("a;b\n1.234,5;2\n", ";", ","),
        ("a;b\n1,234;2\n", ";", ","),
        ('a,b\n"1,234",2.5\n', ",", "."),
        ('a,b\n"1,5",2\n', ",", ","),
        ("a\tb\n1\t2\n", "\t", "."),
        ("a|b\n1|2\n", "|", "."),
        ("a\n1\n", ",", "."),
        ("text,n\nhello; you,1\nhi; me,2\n", ",", "."),
        ("sep=;\na;b\n1;2\n", ";", "."),
        ("a,b\n", ",", "."),
        ("", ",", "."),
    ],
)
def test_separator_and_decimal_mark_are_recognised(text, separator, decimal):
    dialect = find_dialect(text)
    assert (dialect.separator, dialect.decimal) == (separator, decimal)


def test_what_is_said_is_not_recognised():
    dialect = find_dialect("a;b\n1,5;2\n", separator=",", decimal=".")
    assert (dialect.separator, dialect.decimal, dialect.notes) == (",", ".", ())


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("a;b\n1,234;2\n", "a comma in a number is taken for a decimal comma; thousands: "
         "--decimal ."),
        ('a,b\n"1,234",2\n', "a comma in a number is taken to separate thousands; a decimal comma: "
         "--decimal ,"),
        ("a|b;c\n1|2;3\n", "a vertical bar could separate them as well: say so with --sep"),
    ],
)  # fmt: skip
def test_where_two_readings_are_possible_the_choice_is_said(text, note):
    assert note in find_dialect(text).notes


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("größe".encode(), "größe"),
        (codecs.BOM_UTF8 + "größe".encode(), "größe"),
        ("größe".encode("utf-16"), "größe"),
        ("größe".encode("utf-32"), "größe"),
        ("größe €".encode("cp1252"), "größe €"),
    ],
)
def test_the_encoding_is_recognised(content, text):
    assert decode_text(content)[0] == text


def test_an_encoding_that_is_said_is_used_or_refused():
    assert decode_text("größe".encode("cp850"), "cp850")[0] == "größe"
    with pytest.raises(BadInput, match="it is not text in ascii"):
        decode_text("größe".encode(), "ascii")
    with pytest.raises(BadInput, match="there is no encoding 'utf-9'; one is utf-8 or latin-1"):
        decode_text(b"", "utf-9")
    with pytest.raises(BadInput, match="it is not text"):
        decode_text(b"\xff\x00\x01")


def test_an_empty_cell_at_the_end_of_every_row_is_dropped():
    text = "a,b\n1,2,\n3,4,\n"
    assert list(read_rows(text, find_dialect(text), 9)) == [["a", "b"], ["1", "2"], ["3", "4"]]
    text = "a,b\n1,2,\n3,4,5\n"
    assert list(read_rows(text, find_dialect(text), 9))[1] == ["1", "2", ""]


def test_blank_lines_do_not_count_and_the_rest_is_not_read():
    text = "sep=;\n\na;b\n\n1;2\n3;4\n5;6\n"
    assert list(read_rows(text, find_dialect(text), 2)) == [["a", "b"], ["1", "2"], ["3", "4"]]
