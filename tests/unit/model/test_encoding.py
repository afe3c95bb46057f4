import math

import numpy as np
import pytest

from service.model.card import Column
from service.model.encoding import EPOCH, FORMATS, CellFault, date_parser, make_encoder
from tests.support.cards import number

SHOPS = {"a": 5, "b": 3, "c": 1}


def text(kind="category", missing=0, values=SHOPS, others=0):
    return make_encoder(Column("x", kind, "text", missing, values=values, others=others))


def date(format, parts=("hour", "weekday", "day"), missing=0):
    return make_encoder(Column("x", "date", "text", missing, format=format, parts=list(parts)))


def many(encoder, cells):
    """Return the features of several cells, after checking that each alone gives the same."""
    out = np.zeros((len(cells), len(encoder.features)))
    stored, odd = encoder.many(cells, "", out)
    for cell, features, kept in zip(cells, out.tolist(), stored.tolist(), strict=True):
        alone, recorded, _ = encoder.one(cell, "")
        np.testing.assert_array_equal(alone, features)
        if encoder.is_text:
            assert recorded.rstrip(b"\0") == kept
    return out.tolist(), {kind: number for kind, number in odd.items() if number}


def test_an_unknown_category_counts_as_the_rarest_one():
    assert many(text(), ["a", "z"]) == ([[1, 0, 0], [0, 0, 1]], {1: 1})


def test_rarity_is_the_logarithm_of_the_share_in_training():
    features, odd = many(text("text", missing=1), ["a", "c", "z", None])
    assert np.ravel(features) == pytest.approx(np.log([0.5, 0.1, 0.1, 0.1]))
    assert odd == {1: 1, 2: 1}


def test_values_beyond_those_that_are_kept_count_in_the_shares():
    assert many(text("text", others=1), ["a"])[0][0] == pytest.approx([np.log(0.5)])


@pytest.mark.parametrize("values", [20, 254, 255, 5000])
def test_any_number_of_values_is_told_apart(values):
    encoder = text("text", values={f"v{i}": values - i for i in range(values)})
    cells = [f"v{i}" for i in range(values)] + ["new"]
    features, odd = many(encoder, cells)
    assert len({row[0] for row in features}) == values
    assert odd == {1: 1}


def test_blanks_and_spellings_of_a_missing_cell_do_not_matter():
    features, odd = many(text(missing=2), [" a", "a ", "", " NA ", None, float("nan"), "?"])
    assert features == [[1, 0, 0, 0]] * 2 + [[0, 0, 0, 1]] * 5
    assert odd == {2: 5}


def test_true_is_no_code_1():
    codes = text(values={"1": 2, "true": 1})
    assert many(codes, [1, True, 1.0, "1"])[0] == [[1, 0], [0, 1], [1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("format", "cell", "parts"),
    [
        ("ISO 8601", "2026-11-30 16:42:00", [16, 0, 30]),
        ("ISO 8601", "2026-11-30T23:42:00Z", [23, 0, 30]),
        ("ISO 8601", "2026-12-01T00:42:00+02:00", [0, 1, 1]),
        ("ISO 8601", "2026-11-30", [0, 0, 30]),
        (EPOCH, 1796056920, [16, 0, 30]),
        (EPOCH, "1796056920", [16, 0, 30]),
        ("%d.%m.%Y %H:%M", "30.11.2026 16:42", [16, 0, 30]),
        ("%m/%d/%Y %I:%M %p", "11/30/2026 04:42 PM", [16, 0, 30]),
        ("%Y%m%d", 20261130, [0, 0, 30]),
    ],
)
def test_dates_are_read_as_written(format, cell, parts):
    assert many(date(format), [cell, cell])[0] == [parts, parts]


def test_only_parts_that_vary_are_features_and_a_missing_date_has_none():
    encoder = date("ISO 8601", ["day"], missing=1)
    features, odd = many(encoder, ["2026-11-30", None])
    np.testing.assert_array_equal(features, [[30], [math.nan]])
    assert odd == {2: 1}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("cell", ["", "x", "99999999999999999999", "2026-13-45 99:00", "٣"])
def test_no_text_but_a_date_is_read(format, cell):
    with pytest.raises((ValueError, OverflowError, OSError)):
        date_parser(format)(cell)
    with pytest.raises(CellFault):
        date(format).one(cell, "")


def test_a_card_cannot_bring_a_format_of_its_own():
    with pytest.raises(ValueError, match="'%c' is no format of dates"):
        date("%c")


def test_numbers_out_of_range_are_counted_and_scored_as_they_are():
    encoder = make_encoder(number("x", np.linspace(0, 1, 101), missing=1))
    features, odd = many(encoder, [0.5, 2, -1, None, "0.5", "NA"])
    np.testing.assert_array_equal(np.ravel(features), [0.5, 2, -1, np.nan, 0.5, np.nan])
    assert odd == {0: 2, 2: 2}
