import numpy as np
import pyarrow as pa
import pytest

from training.values import Dates, Distinct, Values, hash_numbers


def add(values, texts):
    found = pa.array(texts).value_counts()
    values.add(found.field("values"), np.asarray(found.field("counts")))


def test_a_few_different_values_are_counted_exactly():
    distinct = Distinct(1_000)
    for start in range(0, 900, 50):
        distinct.add(hash_numbers(np.arange(start, start + 100, dtype=np.float64)))
    assert distinct.count() == 950


def test_the_number_of_many_different_values_is_close():
    distinct = Distinct(10_000)
    for start in range(0, 300_000, 7_000):
        distinct.add(hash_numbers(np.arange(start, start + 10_000, dtype=np.float64)))
    assert distinct.count() == pytest.approx(304_000, rel=0.04)  # four standard errors


def test_zero_has_no_sign():
    assert hash_numbers(np.array([0.0])) == hash_numbers(np.array([-0.0]))


def test_texts_are_counted_over_batches_the_most_common_first():
    values = Values(100)
    add(values, ["b", "a", "b"])
    add(values, ["c d", "a", "a", "b"])
    assert (values.count(), values.total, values.words) == (3, 7, 8 / 7)
    assert list(values.most_common(2).items()) == [("a", 3), ("b", 3)]


def test_of_too_many_texts_the_common_ones_are_still_counted():
    values = Values(1_000)
    for batch in range(40):
        add(values, ["often"] * 50 + ["seldom"] * 3 + [f"id {batch} {i}" for i in range(400)])
    assert list(values.most_common(2).items()) == [("often", 2_000), ("seldom", 120)]
    assert values.count() == pytest.approx(16_002, rel=0.13)  # four standard errors
    assert values.total == 40 * 453


def test_a_format_of_dates_reads_the_texts_of_every_batch():
    dates = Dates()
    dates.add(["01/02/2026", "03/04/2026"], [5, 2])
    moments = {"hour": {0: 7}, "weekday": {6: 5, 4: 2}, "day": {1: 5, 3: 2}}
    assert dates.find() == ("%d/%m/%Y", moments)
    dates.add(["03/14/2026"], [1])
    moments = {"hour": {0: 8}, "weekday": {4: 5, 2: 2, 5: 1}, "day": {2: 5, 4: 2, 14: 1}}
    assert dates.find() == ("%m/%d/%Y", moments)
    dates.add(["no date"], [1])
    assert dates.find() is None
    assert not dates.is_possible
